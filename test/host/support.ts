/** Temporary folders, and programs run as processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { firstBarrier } from '../../src/host/reach.js';

export const isRoot = process.getuid?.() === 0;
export const nobody = { uid: 65534, gid: 65534 };
const repository = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** False where another user could not run anything out of this clone, e.g. one below a private home. */
export const cloneIsOpen = (await firstBarrier(await realpath(join(repository, 'node_modules')), nobody, 5)) === null;

export function fixture(name: string): string {
  return fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
}

const cleanups: (() => unknown)[] = [];

/** Runs `cleanup` after the test, last registered first; see `cleanUp`. */
export function later(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

/** For afterEach and afterAll. Runs all of them, then reports the first that failed. */
export async function cleanUp(): Promise<void> {
  const failures: unknown[] = [];
  for (const cleanup of cleanups.splice(0).reverse()) {
    try {
      await cleanup();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** A folder of this test, removed by `cleanUp`; `mode` decides who else may pass it. */
export async function temporaryFolder(mode = 0o711): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'llama-orch-host-')));
  later(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  await chmod(folder, mode);
  return folder;
}

/** Makes fixtures/program.ts runnable by plain node. Returns the file. */
export async function buildProgram(folder: string): Promise<string> {
  const outfile = join(folder, 'program.mjs');
  await build({
    entryPoints: [fixture('program.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    logLevel: 'silent',
  });
  await chmod(outfile, 0o644);
  await symlink(join(repository, 'node_modules'), join(folder, 'node_modules'));
  return outfile;
}

export interface Program {
  readonly child: ChildProcess;
  /** The next event with this key; rejects when the program ends first, or after 20 s. */
  event(key: string): Promise<Record<string, unknown>>;
  /** Ends it and waits for that. */
  kill(signal: NodeJS.Signals): Promise<void>;
}

export function runProgram(file: string, args: readonly string[], user?: { uid: number; gid: number }): Program {
  const child = spawn(process.execPath, [file, ...args], { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], ...user });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const events: Record<string, unknown>[] = [];
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    events.push(JSON.parse(line) as Record<string, unknown>);
    child.emit('news');
  });
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await ended;
  };
  later(() => kill('SIGKILL'));
  return { child, kill, event: (key) => nextEvent(child, ended, events, key, () => complaint) };
}

function nextEvent(
  child: ChildProcess,
  ended: Promise<void>,
  events: Record<string, unknown>[],
  key: string,
  complaint: () => string,
): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const look = (): boolean => {
      const index = events.findIndex((event) => key in event);
      const [found] = index < 0 ? [] : events.splice(index, 1);
      if (found === undefined) return false;
      clearTimeout(timer);
      child.off('news', look);
      resolve(found);
      return true;
    };
    const fail = (why: string): void =>
      reject(new Error(`${why} before '${key}': ${JSON.stringify(events)} ${complaint()}`));
    const timer = setTimeout(() => fail('20 s passed'), 20_000);
    if (look()) return;
    child.on('news', look);
    void ended.then(() => {
      clearTimeout(timer);
      if (!look()) fail('the program ended');
    });
  });
}
