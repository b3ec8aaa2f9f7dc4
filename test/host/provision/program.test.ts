import { execFileSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readStat } from '../../../src/host/procfs.js';
import { endLeftovers, type ProgramSpec, runForExitCode, runProgram } from '../../../src/host/provision/program.js';
import { ProvisionError } from '../../../src/host/provision/provisionError.js';
import { checkSubmodules } from '../../../src/host/provision/submodules.js';
import { readHostTools } from '../../../src/host/provision/tools.js';
import { writeProgram } from '../../support/fakeTools.js';
import { cleanUp, temporaryFolder } from '../support.js';

let folder: string;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(cleanUp);

/** Starts a helper, writes its pid down, and waits for it. */
const FAMILY = 'sleep 600 & echo $! > pid.new; mv pid.new pid; wait';

function spec(script: string, changes: Partial<ProgramSpec> = {}): ProgramSpec {
  return {
    argv: ['/bin/sh', '-c', script],
    cwd: folder,
    logFile: join(folder, 'log'),
    deadlineMs: 20_000,
    mark: null,
    signal: new AbortController().signal,
    ...changes,
  };
}

const helperPid = () => readFile(join(folder, 'pid'), 'utf8').then(Number, () => 0);

async function expectHelperDead(): Promise<void> {
  const pid = await helperPid();
  expect(pid).toBeGreaterThan(1);
  expect(['Z', 'X', undefined]).toContain(readStat(pid)?.state);
}

describe('a program', () => {
  it('that fails is told with its last lines, free of escapes, and how to run it again', async () => {
    const failure = await runProgram(spec("echo one; printf '\\033[31mtwo\\033[0m\\n' >&2; exit 3")).catch(
      (error) => error,
    );
    expect(failure).toBeInstanceOf(ProvisionError);
    expect(failure.reason).toMatchObject({ code: 'PROGRAM_FAILED', message: expect.stringContaining('code 3') });
    expect(failure.message).toContain('one | two');
    expect(await readFile(join(folder, 'log'), 'utf8')).toContain('one');
  });

  it('shows nothing of an earlier one', async () => {
    await runProgram(spec('echo earlier'));
    const failure = await runProgram(spec('exit 1')).catch((error) => error);
    expect(failure.message).not.toContain('earlier');
  });

  it('that is late is ended with its helpers', async () => {
    const failure = await runProgram(spec(FAMILY, { deadlineMs: 5_000 })).catch((error) => error);
    expect(failure.reason).toMatchObject({ code: 'PROGRAM_TIMEOUT' });
    await expectHelperDead();
  });

  it('that is aborted is ended with its helpers, and rejects with the reason', async () => {
    const controller = new AbortController();
    const why = new Error('enough');
    const running = runProgram(spec(FAMILY, { signal: controller.signal }));
    await expect.poll(helperPid).toBeGreaterThan(1);
    controller.abort(why);
    await expect(running).rejects.toBe(why);
    await expectHelperDead();
  });

  it('leaves no helper behind when it ends by itself', async () => {
    await runProgram(spec('sleep 600 & echo $! > pid'));
    await expectHelperDead();
  });

  it('that is not there is an error, and not a crash', async () => {
    const failure = await runForExitCode(spec('', { argv: [join(folder, 'none')] })).catch((error) => error);
    expect(failure.reason).toMatchObject({ code: 'PROGRAM_FAILED' });
  });

  it('knows nothing of our environment but what it needs', async () => {
    process.env.AUTH_TOKEN = 'canary';
    try {
      await runProgram(spec('env > env.txt'));
    } finally {
      delete process.env.AUTH_TOKEN;
    }
    const environment = await readFile(join(folder, 'env.txt'), 'utf8');
    expect(environment).toContain('PATH=');
    expect(environment).not.toContain('canary');
  });

  it('of an earlier life is found by its mark, and no other', async () => {
    const controller = new AbortController();
    const mark = `test/${process.pid}`;
    const ours = runForExitCode(spec(FAMILY, { mark, signal: controller.signal }));
    const other = runForExitCode(spec('sleep 600', { mark: `${mark}0`, signal: controller.signal }));
    let otherEnded = false;
    void other.catch(() => {
      otherEnded = true;
    });
    await expect.poll(helperPid).toBeGreaterThan(1);
    await endLeftovers(mark);
    await expectHelperDead();
    expect(await ours).toBeNull();
    expect(otherEnded).toBe(false);
    controller.abort(new Error('done'));
    await expect(other).rejects.toThrow('done');
  });

  it('of an earlier life is asked to go before it is killed', async () => {
    const mark = `test/asked/${process.pid}`;
    const ours = runForExitCode(
      spec("trap 'echo cleaned > end; exit 0' TERM; sleep 600 & echo $! > pid; wait", { mark }),
    );
    await expect.poll(helperPid).toBeGreaterThan(1);
    await endLeftovers(mark);
    expect(await ours).toBe(0);
    expect(await readFile(join(folder, 'end'), 'utf8')).toBe('cleaned\n');
  });
});

describe('tools', () => {
  it('are found where PATH says, if they may be executed', async () => {
    await writeProgram(join(folder, 'cmake'), '#!/bin/sh\n');
    await writeFile(join(folder, 'git'), 'no program');
    const { tools } = readHostTools(`relative:${folder}`);
    expect(tools).toMatchObject({ cmake: join(folder, 'cmake'), git: null, podman: null });
  });
});

describe('submodules', () => {
  const git = (...args: string[]) => execFileSync('git', args, { cwd: folder, stdio: 'ignore' });
  const signal = new AbortController().signal;

  /** In a clone that has this list of submodules, set up as a plan does it. */
  async function check(list: string, repo = 'https://github.com/a/b', hosts: readonly string[] = ['github.com']) {
    git('init', '--quiet', '.');
    git('config', 'remote.origin.url', repo);
    await writeFile(join(folder, '.gitmodules'), list);
    git('update-index', '--add', '--cacheinfo', `160000,${'1'.repeat(40)},x`);
    git('submodule', 'init');
    return checkSubmodules({ git: 'git', at: folder, repo }, hosts, signal);
  }
  const listed = (url: string) => `[submodule "x"]\n\tpath = x\n\turl = ${url}\n`;

  it('come from hosts that policy allows', () => check(listed('https://github.com/c/d.git')));
  it('come from beside the repository', () => check(listed('../c.git')));
  it('come from this machine where the repository does', () => check(listed('../c.git'), 'file:///srv/a'));
  it('may be none', async () => {
    git('init', '--quiet', '.');
    await checkSubmodules({ git: 'git', at: folder, repo: 'https://github.com/a/b' }, [], signal);
  });

  const far = `${'# a long list\n'.repeat(25_000)}${listed('https://evil.test/x')}`;
  it.each([
    ['another host', listed('https://evil.test/x')],
    ['ssh', listed('git@github.com:c/d.git')],
    ['a helper program', listed('ext::sh -c id')],
    ['a file', listed('file:///etc')],
    ['an ssh URL', listed('ssh://github.com/x')],
    ['a path', listed('/abs')],
    ['another host, all on one line', '[submodule "x"] path = x\n[submodule "x"] url = https://evil.test/x\n'],
    ['a host above the repository', listed('../../../evil.test/y')],
    ['another host, far down', far],
  ])('are refused from %s', async (_what, list) => {
    const failure = await check(list).catch((error) => error);
    expect(failure.reason).toMatchObject({ code: 'POLICY_REFUSED' });
  });

  it('that cannot be listed are not taken for none', async () => {
    const clone = { git: 'git', at: join(folder, 'none'), repo: 'https://github.com/a/b' };
    const failure = await checkSubmodules(clone, [], signal).catch((error) => error);
    expect(failure.reason).toMatchObject({ code: 'PROGRAM_FAILED' });
  });
});
