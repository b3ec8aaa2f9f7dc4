import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { freePort, heldPorts } from '../../src/host/ports.js';
import { type EngineProcess, reapOrphan, spawnEngineProcess } from '../../src/host/process.js';
import { groupMembers, isAlive, readCmdline, readEnvironment, readStat } from '../../src/host/procfs.js';
import { StartupError } from '../../src/host/startupError.js';
import { cleanUp, fixture, later, temporaryFolder } from './support.js';

afterEach(cleanUp);

const deadline = { timeout: 10_000, interval: 10 };

async function start(
  name: string,
  args: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<EngineProcess> {
  const cwd = await temporaryFolder();
  const engine = spawnEngineProcess({
    file: process.execPath,
    args: [fixture(name), ...args],
    env,
    cwd,
    logFile: join(cwd, 'engine.log'),
    mark: 'test/replica-1',
  });
  later(() => engine.stop({ graceMs: 0 }));
  return engine;
}

/** Waits for a line in the log. */
async function line(engine: EngineProcess, pattern: RegExp): Promise<string> {
  let found = '';
  await expect
    .poll(async () => {
      found = (await engine.tail(50)).find((text) => pattern.test(text)) ?? '';
      return found;
    }, deadline)
    .not.toBe('');
  return found;
}

function startError(file: string, cwd = '/'): StartupError {
  try {
    spawnEngineProcess({ file, args: [], env: {}, cwd, logFile: '/dev/null', mark: 'm' });
  } catch (error) {
    if (error instanceof StartupError) return error;
    throw error;
  }
  throw new Error('it started');
}

describe('engine process', () => {
  test('ends on SIGTERM within its grace', async () => {
    const engine = await start('polite.mjs');
    await line(engine, /^ready$/);
    expect(isAlive(engine.pid, engine.startTimeTicks)).toBe(true);
    expect(readStat(engine.pid)?.groupId).toBe(engine.pid);
    expect(await engine.stop({ graceMs: 10_000 })).toEqual({ forced: false });
    expect(await engine.exited).toEqual({ code: null, signal: 'SIGTERM' });
    expect(isAlive(engine.pid, engine.startTimeTicks)).toBe(false);
  });

  test('gets a minimal environment, its own variables and the mark', async () => {
    process.env.LLORCH_TEST_SECRET = 'secret';
    later(() => delete process.env.LLORCH_TEST_SECRET);
    const engine = await start('polite.mjs', [], { CUDA_VISIBLE_DEVICES: '1', LANG: 'C' });
    const env = JSON.parse((await line(engine, /^env /)).slice(4)) as Record<string, string>;
    expect(env).toMatchObject({ CUDA_VISIBLE_DEVICES: '1', LANG: 'C', LLAMA_ORCH_MARK: 'test/replica-1' });
    expect(
      Object.keys(env)
        .filter((name) => !['PATH', 'HOME', 'LANG'].includes(name))
        .sort(),
    ).toEqual(['CUDA_VISIBLE_DEVICES', 'LLAMA_ORCH_MARK']);
  });

  test('shows the end of its log without terminal escapes', async () => {
    const engine = await start('polite.mjs');
    await line(engine, /^ready$/);
    expect(await engine.tail(2)).toContain('red  line');
    expect(await engine.tail(1)).toHaveLength(1);
    expect(await engine.tail(0)).toEqual([]);
  });

  test('is killed when it ignores SIGTERM', async () => {
    const engine = await start('stubborn.mjs');
    await line(engine, /^ready$/);
    expect(await engine.stop({ graceMs: 100 })).toEqual({ forced: true });
    expect(await engine.exited).toEqual({ code: null, signal: 'SIGKILL' });
  });

  test('is killed also when it is stopped', async () => {
    const engine = await start('polite.mjs');
    await line(engine, /^ready$/);
    process.kill(engine.pid, 'SIGSTOP');
    expect(await engine.stop({ graceMs: 50 })).toEqual({ forced: true });
  });

  test('takes its children along', async () => {
    const engine = await start('family.mjs');
    const child = Number((await line(engine, /^child /)).slice(6));
    expect(groupMembers(engine.pid)).toContain(child);
    expect(await engine.stop({ graceMs: 10_000 })).toEqual({ forced: true });
    expect(groupMembers(engine.pid)).toEqual([]);
    expect(readStat(child)?.state ?? 'gone').toMatch(/^(Z|gone)$/);
  });

  test.each([[[]], [['crash']]])('takes along the children that lead groups of their own (%s)', async (how) => {
    const engine = await start('family.mjs', ['apart', ...how]);
    const child = Number((await line(engine, /^child /)).slice(6));
    expect(groupMembers(child)).toEqual([child]);
    expect(await engine.stop({ graceMs: 200 })).toEqual({ forced: true });
    expect(groupMembers(child)).toEqual([]);
  });

  test('is cleared of its children after a crash', async () => {
    const engine = await start('family.mjs', ['crash']);
    expect(await engine.exited).toEqual({ code: 3, signal: null });
    expect(groupMembers(engine.pid)).toHaveLength(1);
    expect(await engine.stop({ graceMs: 50 })).toEqual({ forced: true });
    expect(groupMembers(engine.pid)).toEqual([]);
    expect(await engine.stop({ graceMs: 50 })).toEqual({ forced: true });
  });

  test('tells what is wrong with its program', async () => {
    const folder = await temporaryFolder();
    const file = join(folder, 'engine');
    expect(startError(file).message).toBe(`The engine binary ${file} is missing: it does not exist.`);
    expect(startError('no-such-engine-anywhere').message).toContain('no-such-engine-anywhere is missing');
    await writeFile(file, '#!/no/such/interpreter\n');
    expect(startError(file).fix).toBe(`Make it executable: chmod +x ${file}`);
    await chmod(file, 0o755);
    expect(startError(file).message).toContain('interpreter');
    expect(startError(process.execPath, join(folder, 'none')).message).toContain('working folder');
  });
});

describe('orphans', () => {
  test('are reaped with their children when only those are left, wherever they went', async () => {
    const engine = await start('family.mjs', ['apart', 'crash']);
    const child = Number((await line(engine, /^child /)).slice(6));
    const { pid, startTimeTicks } = engine;
    await engine.exited;
    expect(await reapOrphan({ pid, startTimeTicks, mark: 'test/replica-1', graceMs: 50 })).toBe('reaped');
    expect(groupMembers(child)).toEqual([]);
  });

  test('are reaped by pid, start time and mark', async () => {
    const engine = await start('stubborn.mjs');
    await line(engine, /^ready$/);
    const facts = { pid: engine.pid, startTimeTicks: engine.startTimeTicks, mark: 'test/replica-1', graceMs: 50 };
    expect(await reapOrphan(facts)).toBe('reaped');
    expect(await reapOrphan(facts)).toBe('gone');
    expect(await engine.exited).toEqual({ code: null, signal: 'SIGKILL' });
  });

  test('are reaped without their leader', async () => {
    const engine = await start('family.mjs', ['crash']);
    await engine.exited;
    const { pid, startTimeTicks } = engine;
    expect(await reapOrphan({ pid, startTimeTicks, mark: 'other', graceMs: 0 })).toBe('foreign');
    expect(groupMembers(pid)).toHaveLength(1);
    expect(await reapOrphan({ pid, startTimeTicks, mark: 'test/replica-1', graceMs: 0 })).toBe('reaped');
    expect(groupMembers(pid)).toEqual([]);
  });

  test('are left alone when they are not ours', async () => {
    const engine = await start('polite.mjs');
    await line(engine, /^ready$/);
    const { pid, startTimeTicks } = engine;
    const mark = 'test/replica-1';
    expect(await reapOrphan({ pid, startTimeTicks, mark: 'test/replica-2', graceMs: 0 })).toBe('foreign');
    expect(await reapOrphan({ pid, startTimeTicks, mark: 'test/replica', graceMs: 0 })).toBe('foreign');
    // The number was reused, by an engine of ours with the same mark: still not the one that was written down.
    expect(await reapOrphan({ pid, startTimeTicks: startTimeTicks - 1, mark, graceMs: 0 })).toBe('foreign');
    for (const wrong of [0, 1, -1, -pid, Number.NaN, 1.5]) {
      expect(await reapOrphan({ pid: wrong, startTimeTicks, mark, graceMs: 0 })).toBe('foreign');
    }
    const stranger = spawn(process.execPath, [fixture('polite.mjs')], { stdio: ['ignore', 'pipe', 'ignore'] });
    later(() => stranger.kill('SIGKILL'));
    await once(stranger.stdout, 'data');
    const itsTicks = readStat(stranger.pid ?? 0)?.startTimeTicks ?? 0;
    expect(await reapOrphan({ pid: stranger.pid ?? 0, startTimeTicks: itsTicks, mark, graceMs: 0 })).toBe('foreign');
    expect(isAlive(stranger.pid ?? 0, itsTicks)).toBe(true);
    expect(isAlive(pid, startTimeTicks)).toBe(true);
  });
});

test('a free port can be bound, is held then, and free again after', async () => {
  const port = await freePort();
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  expect(port).toBeGreaterThan(1023);
  expect(await heldPorts([port], 0)).toEqual([port]);
  server.close();
  expect(await heldPorts([port], 5_000)).toEqual([]);
  expect(await heldPorts([], 5_000)).toEqual([]);
});

test('arguments and variables are read back as they were given, whatever their language', async () => {
  const cwd = await temporaryFolder();
  const args = ['-e', 'setInterval(() => {}, 1000)', '模型/größe.gguf'];
  const env = { MODEL_NAME: 'naïve 模型' };
  const engine = spawnEngineProcess({
    file: process.execPath,
    args,
    env,
    cwd,
    logFile: join(cwd, 'engine.log'),
    mark: 'm',
  });
  later(() => engine.stop({ graceMs: 0 }));
  await expect.poll(() => readCmdline(engine.pid).slice(-3)).toEqual(args);
  expect(readEnvironment(engine.pid, 'MODEL_NAME')).toBe('naïve 模型');
});

test('the log of an engine is appended to', async () => {
  const cwd = await temporaryFolder();
  const logFile = join(cwd, 'engine.log');
  await writeFile(logFile, 'before\n');
  const engine = spawnEngineProcess({ file: process.execPath, args: ['-p', '1+1'], env: {}, cwd, logFile, mark: 'm' });
  expect(await engine.exited).toEqual({ code: 0, signal: null });
  expect(await readFile(logFile, 'utf8')).toBe('before\n2\n');
});
