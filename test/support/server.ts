/** The real program as a child process, as a user starts it, and a look at what it leaves behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readStat, sendSignal } from '../../src/host/procfs.js';
import { pollUntil } from '../../src/runtime/wait.js';
import { endsWithFile, inTime } from './lifetimes.js';

interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ServerProcess {
  readonly pid: number;
  readonly url: string;
  readonly output: () => string;
  /** Rejects with the output when it has not ended 25 s after the question: each look starts that time anew. */
  readonly exited: Promise<Exit>;
  signal(name: NodeJS.Signals): void;
}

const START_DEADLINE_MS = 30_000;
/** Less than a test has, so that it says what it waited for. */
const EXIT_DEADLINE_MS = 25_000;
/** For what is ended because its test failed. */
const GRACE_MS = 10_000;

/** A data directory for one test; PostgreSQL's own user must be able to reach it when we are root. */
export async function makeHome(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'llama-orch-home-'));
  await chmod(path, 0o711);
  const remove = async (): Promise<void> => {
    await endProcessesOf(path);
    await rm(path, { recursive: true, force: true });
    hasEnded();
  };
  const hasEnded = endsWithFile({ end: remove, kill: () => killProcessesOf(path) });
  return { path, remove };
}

interface Program {
  readonly child: ChildProcess;
  readonly output: () => string;
  /** Calls with each piece of the output, and all before it. */
  readonly onOutput: (listener: (all: string) => void) => void;
  readonly exited: () => Promise<Exit>;
  /** All its output is there too. */
  readonly closed: () => Promise<Exit>;
  /** The program and all that it has started, in peace if it can be. */
  readonly end: () => Promise<void>;
}

/** The program over a data directory, until it ends or its test file does. */
function runProgram(args: readonly string[], env: Readonly<Record<string, string>>): Program {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, ['bin/llama-orch.js', ...args], {
    env: { PATH, HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const listeners: ((all: string) => void)[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
      for (const listener of listeners) listener(output);
    });
  }
  const ended = (event: 'exit' | 'close') =>
    new Promise<Exit>((resolve) => {
      child.once(event, (code, signal) => resolve({ code, signal }));
      child.once('error', () => resolve({ code: null, signal: null }));
    });
  // Whatever it started may hold its output open after its end.
  const gone = ended('exit');
  const closed = ended('close');
  const late = (): string => `llama-orch does not end:\n${output}`;
  const home = env.LLAMA_ORCH_HOME;
  const end = async (): Promise<void> => {
    child.kill('SIGINT');
    await inTime(gone, GRACE_MS, late).catch(() => child.kill('SIGKILL'));
    if (home !== undefined) await endProcessesOf(home);
    await inTime(gone, GRACE_MS, late);
  };
  const kill = (): void => {
    child.kill('SIGKILL');
    if (home !== undefined) killProcessesOf(home);
  };
  void gone.then(endsWithFile({ end, kill }));
  return {
    ...{ child, output: () => output, onOutput: (listener) => void listeners.push(listener), end },
    exited: () => inTime(gone, EXIT_DEADLINE_MS, late),
    closed: () => inTime(closed, EXIT_DEADLINE_MS, late),
  };
}

/** Runs a command that ends by itself; it is ended, with code null, where it does not. */
export async function runToEnd(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<{ code: number | null; output: string }> {
  const { closed, output, end } = runProgram(args, env);
  try {
    const { code } = await closed();
    return { code, output: output() };
  } catch {
    await end();
    return { code: null, output: output() };
  }
}

/** Starts `up` and resolves once it says that it is up. */
export async function startServer(
  home: string,
  options: { args?: string[]; env?: Record<string, string> } = {},
): Promise<ServerProcess> {
  const { child, output, onOutput, exited, end } = runProgram(['up', ...(options.args ?? [])], {
    LLAMA_ORCH_HOME: home,
    ORCHD_ADDR: '127.0.0.1:0',
    ...options.env,
  });
  const up = new Promise<string>((resolve, reject) => {
    onOutput((all) => {
      const found = /GraphQL {3}(http:\/\/\S+)\/graphql/.exec(all)?.[1];
      if (found !== undefined && all.includes('Ctrl-C stops everything')) resolve(found);
    });
    child.once('error', reject);
    child.once('close', (code) => reject(new Error(`ended with ${code}:\n${output()}`)));
  });
  try {
    const url = await inTime(up, START_DEADLINE_MS, () => `not up in time:\n${output()}`);
    return {
      ...{ pid: child.pid ?? 0, url, output, signal: (name) => void child.kill(name) },
      get exited() {
        return exited();
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

export interface ServeProcess {
  /** What it has written so far, its log among it. */
  readonly output: () => string;
  /** Its URL once its doors are open; rejects with what it wrote when it ends before that, or is late. */
  readonly open: Promise<string>;
  /** SIGTERM, and how it ended. */
  stop(): Promise<Exit>;
}

/** Starts `serve`, as a service manager does. */
export function startServe(
  configFile: string,
  env: Readonly<Record<string, string>>,
  deadlineMs = START_DEADLINE_MS,
): ServeProcess {
  const { child, output, onOutput, exited } = runProgram(['serve', '--config', configFile], env);
  const open = new Promise<string>((resolve, reject) => {
    let isOpen = false;
    onOutput((all) => {
      if (isOpen) return; // what it writes later is much
      const line = all.split('\n').find((one) => one.startsWith('{') && one.endsWith('"msg":"doors open"}'));
      if (line === undefined) return;
      isOpen = true;
      resolve((JSON.parse(line) as { url: string }).url);
    });
    child.once('error', reject);
    child.once('close', (code) => reject(new Error(`ended with ${code}:\n${output()}`)));
  });
  return {
    output,
    open: inTime(open, deadlineMs, () => `its doors are not open in time:\n${output()}`),
    stop: () => {
      child.kill('SIGTERM');
      return exited();
    },
  };
}

/**
 * Processes that belong to a data directory: control planes by their environment, PostgreSQL by its command line,
 * engines by their mark.
 */
export function processesOf(home: string): number[] {
  const nodeId = readOrEmpty(join(home, 'run', 'node-id')).trim();
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      if (readOrEmpty(`/proc/${pid}/cmdline`).includes(home)) return true;
      const environment = readOrEmpty(`/proc/${pid}/environ`);
      if (environment.split('\0').includes(`LLAMA_ORCH_HOME=${home}`)) return true;
      return nodeId !== '' && environment.includes(`LLAMA_ORCH_MARK=${nodeId}`);
    })
    .map(Number);
}

/** The engines of a data directory that live, helpers left out. */
export function enginesOf(home: string): { readonly pid: number; readonly mark: string }[] {
  const nodeId = readOrEmpty(join(home, 'run', 'node-id')).trim();
  return processesOf(home).flatMap((pid) => {
    const entries = readOrEmpty(`/proc/${pid}/environ`).split('\0');
    const mark = entries
      .find((entry) => entry.startsWith(`LLAMA_ORCH_MARK=${nodeId}/`))
      ?.slice('LLAMA_ORCH_MARK='.length);
    return mark === undefined || readStat(pid)?.groupId !== pid ? [] : [{ pid, mark }];
  });
}

export function killProcessesOf(home: string): void {
  for (const pid of processesOf(home)) sendSignal(pid, 'SIGKILL');
}

/** Kills them and waits until they are gone: what they still write would be in the way of removing their folder. */
async function endProcessesOf(home: string): Promise<void> {
  const areGone = async (): Promise<boolean> => {
    killProcessesOf(home);
    return processesOf(home).length === 0;
  };
  if (!(await pollUntil(areGone, { everyMs: 20, deadlineMs: GRACE_MS })))
    throw new Error(`processes of ${home} outlive SIGKILL: ${processesOf(home).join(', ')}`);
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
