import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { openDataDir } from '../../src/host/dataDir.js';
import { lockName, takeLock } from '../../src/host/dirLock.js';
import { StartupError } from '../../src/host/startupError.js';
import { buildProgram, cleanUp, cloneIsOpen, isRoot, later, nobody, runProgram, temporaryFolder } from './support.js';

afterEach(cleanUp);

async function failure(action: Promise<unknown>): Promise<StartupError> {
  const error: unknown = await action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof StartupError)) throw new Error(`no StartupError: ${String(error)}`);
  return error;
}

describe('data directory', () => {
  test('is made with its folders, and keeps its node id', async () => {
    const path = join(await temporaryFolder(), 'made', 'here');
    const first = await openDataDir(path);
    expect((await readdir(first.path)).sort()).toEqual(['logs', 'models', 'run']);
    expect((await stat(path)).mode & 0o777).toBe(isRoot ? 0o711 : 0o700);
    expect((await stat(first.runDir)).mode & 0o777).toBe(0o700);
    expect(first.nodeId).toMatch(/^[0-9a-f-]{36}$/);
    await first[Symbol.asyncDispose]();
    const second = await openDataDir(path);
    expect(second.nodeId).toBe(first.nodeId);
    expect(await readdir(second.runDir)).not.toContainEqual(expect.stringMatching(/^probe/));
    await second[Symbol.asyncDispose]();
  });

  test('replaces a damaged node id', async () => {
    const path = await temporaryFolder();
    await mkdir(join(path, 'run'));
    await writeFile(join(path, 'run', 'node-id'), '\0\0\0\0');
    const dir = await openDataDir(path);
    later(() => dir[Symbol.asyncDispose]());
    expect((await readFile(join(path, 'run', 'node-id'), 'utf8')).trim()).toBe(dir.nodeId);
    expect(dir.nodeId).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('refuses a second program and names the first, until that one dies', async () => {
    const folder = await temporaryFolder();
    const data = join(folder, 'data');
    const holder = runProgram(await buildProgram(folder), [data]);
    await holder.event('ready');
    const refused = await failure(openDataDir(data));
    expect(refused.message).toContain(`pid ${holder.child.pid}`);
    expect(refused.message).toMatch(/running since \d{4}-\d\d-\d\dT/);
    expect(refused.message).toContain('http://127.0.0.1:4242');
    expect(refused.fix).toContain(`kill ${holder.child.pid}`);
    await holder.kill('SIGKILL');
    const dir = await openDataDir(data);
    await dir[Symbol.asyncDispose]();
  });

  test('refuses also when the first program is stopped and cannot answer', async () => {
    const folder = await temporaryFolder();
    const data = join(folder, 'data');
    const holder = runProgram(await buildProgram(folder), [data]);
    await holder.event('ready');
    holder.child.kill('SIGSTOP');
    expect((await failure(openDataDir(data))).message).toContain('does not answer');
  });

  test('of two that open at once one wins', async () => {
    const path = await temporaryFolder();
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => openDataDir(path)));
    const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    for (const dir of won) await dir[Symbol.asyncDispose]();
    expect(won).toHaveLength(1);
  });

  test('tells when a file is in its place', async () => {
    const path = join(await temporaryFolder(), 'file');
    await writeFile(path, '');
    const error = await failure(openDataDir(path));
    expect(error.message).toContain(path);
    expect(error.fix).toContain('is a file');
  });

  test.skipIf(!isRoot || !cloneIsOpen)('tells a user without write access', async () => {
    const folder = await temporaryFolder(0o755);
    const program = runProgram(await buildProgram(folder), [join(folder, 'data')], nobody);
    expect(await program.event('error')).toMatchObject({
      error: expect.stringContaining('cannot be used'),
      fix: expect.stringContaining('uid 65534'),
    });
  });
});

describe('lock by socket file, where there are no abstract sockets', () => {
  const owner = () => ({ pid: process.pid, startedAt: '2026-01-01T00:00:00.000Z' });

  async function deadSocket(path: string): Promise<void> {
    const script = `require('net').createServer().listen(process.argv[1], () => console.log('on'))`;
    const child = spawn(process.execPath, ['-e', script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'close');
    expect((await stat(path)).isSocket()).toBe(true);
  }

  test('is chosen off Linux, also below long paths', () => {
    expect(lockName('/data', 501, 'darwin')).toEqual({ kind: 'file', path: '/data/run/lock.sock' });
    expect(lockName(`/${'long'.repeat(40)}`, 501, 'darwin').path.length).toBeLessThan(104);
    expect(lockName('/data', 0, 'linux')).not.toEqual(lockName('/other', 0, 'linux'));
  });

  test('is held once, and free after release', async () => {
    const name = { kind: 'file', path: join(await temporaryFolder(), 'lock') } as const;
    const first = await takeLock(name, owner);
    expect(first.held).toBe(true);
    expect(await takeLock(name, owner)).toEqual({ held: false, owner: owner() });
    if (first.held) await first.release();
    const second = await takeLock(name, owner);
    expect(second.held).toBe(true);
    if (second.held) await second.release();
  });

  test('passes from a dead owner to exactly one', async () => {
    const name = { kind: 'file', path: join(await temporaryFolder(), 'lock') } as const;
    await deadSocket(name.path);
    const results = await Promise.all(Array.from({ length: 8 }, () => takeLock(name, owner)));
    for (const result of results) if (result.held) await result.release();
    expect(results.filter((result) => result.held)).toHaveLength(1);
  });
});
