/** The real program as a child process, as a user starts it, and a look at what it leaves behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface ServerProcess {
  readonly pid: number;
  readonly url: string;
  readonly output: () => string;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  signal(name: NodeJS.Signals): void;
}

const START_DEADLINE_MS = 30_000;

/** A data directory for one test; PostgreSQL's own user must be able to reach it when we are root. */
export async function makeHome(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'llama-orch-home-'));
  await chmod(path, 0o711);
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

export function runProgram(args: readonly string[], env: Readonly<Record<string, string>>): ChildProcess {
  const { PATH = '', HOME = '' } = process.env;
  return spawn(process.execPath, ['bin/llama-orch.js', ...args], {
    env: { PATH, HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Runs a command that ends by itself. */
export async function runToEnd(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<{ code: number | null; output: string }> {
  const child = runProgram(args, env);
  let output = '';
  child.stdout?.on('data', (chunk) => (output += String(chunk)));
  child.stderr?.on('data', (chunk) => (output += String(chunk)));
  const timer = setTimeout(() => child.kill('SIGKILL'), START_DEADLINE_MS);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearTimeout(timer);
  return { code, output };
}

/** Starts `up` and resolves once it says that it is up. */
export async function startServer(
  home: string,
  options: { args?: string[]; env?: Record<string, string> } = {},
): Promise<ServerProcess> {
  const child = runProgram(['up', ...(options.args ?? [])], {
    LLAMA_ORCH_HOME: home,
    ORCHD_ADDR: '127.0.0.1:0',
    ...options.env,
  });
  let output = '';
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once('exit', (code, signal) => resolve({ code, signal })),
  );
  const url = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not up in time:\n${output}`)), START_DEADLINE_MS);
    const look = (chunk: unknown) => {
      output += String(chunk);
      const found = /GraphQL {3}(http:\/\/\S+)\/graphql/.exec(output)?.[1];
      if (found === undefined || !output.includes('Ctrl-C stops everything')) return;
      clearTimeout(timer);
      resolve(found);
    };
    child.stdout?.on('data', look);
    child.stderr?.on('data', look);
    void exited.then(({ code }) => reject(new Error(`ended with ${code}:\n${output}`)));
  });
  return { pid: child.pid ?? 0, url, output: () => output, exited, signal: (name) => void child.kill(name) };
}

/** Processes that belong to a data directory: its PostgreSQL by command line, its engines by mark and log. */
export function processesOf(home: string): number[] {
  const nodeId = readOrEmpty(join(home, 'run', 'node-id')).trim();
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      if (readOrEmpty(`/proc/${pid}/cmdline`).includes(home)) return true;
      return nodeId !== '' && readOrEmpty(`/proc/${pid}/environ`).includes(`LLAMA_ORCH_MARK=${nodeId}`);
    })
    .map(Number);
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
