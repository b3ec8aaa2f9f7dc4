/** Starts the engine simulator as the child process it is in real life, and ends it with the test. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const ENTRY = fileURLToPath(new URL('../../dist/engines/sim/main.js', import.meta.url));
const START_TIMEOUT_MS = 15_000;
const MAX_KEPT_LINES = 200;

export interface SimExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface RunningSim extends AsyncDisposable {
  readonly baseUrl: string;
  readonly pid: number;
  /** Resolves when the process is gone, however it went. */
  readonly exited: Promise<SimExit>;
  /** The last log lines, for a failing test to show. */
  readonly lines: readonly string[];
  /** Sets the faults: `hang-at-token:5`, several, or `none`. */
  control(fault: string | readonly string[]): Promise<void>;
  kill(signal: NodeJS.Signals): void;
}

export interface SimOptions {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** `ready`: the model is loaded. `bound`: the port is open and every route answers 503. */
  readonly until?: 'ready' | 'bound';
}

/** Resolves once the simulator has logged that it is there. Rejects when it ends before, or says nothing in time. */
export async function startEngineSim({ args = [], env = {}, until = 'ready' }: SimOptions = {}): Promise<RunningSim> {
  const child = spawn(process.execPath, [ENTRY, '--protocol', 'llamacpp', '--port', '0', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
  });
  const exited = once(child, 'exit').then(([code, signal]): SimExit => ({ code, signal }));
  const lines: string[] = [];
  try {
    const baseUrl = await waitForUrl(child, lines, until === 'ready' ? 'listening on' : 'bound to');
    return {
      baseUrl,
      pid: child.pid ?? 0,
      exited,
      lines,
      control: (fault) => setFault(baseUrl, fault),
      kill: (signal) => void child.kill(signal),
      [Symbol.asyncDispose]: async () => {
        child.kill('SIGKILL');
        await exited;
      },
    };
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
}

function waitForUrl(
  child: ChildProcessByStdio<null, null, Readable>,
  lines: string[],
  announcement: string,
): Promise<string> {
  const pattern = new RegExp(`${announcement} (http://\\S+)`);
  return new Promise((resolve, reject) => {
    const fail = (what: string): void => reject(new Error(`engine-sim ${what}; it said:\n${lines.join('\n')}`));
    const timer = setTimeout(() => fail('did not start in time'), START_TIMEOUT_MS);
    // The reader stays for the life of the process, so that its log never blocks it.
    createInterface({ input: child.stderr }).on('line', (line) => {
      lines.push(line);
      if (lines.length > MAX_KEPT_LINES) lines.shift();
      const url = pattern.exec(line)?.[1];
      if (url === undefined) return;
      clearTimeout(timer);
      resolve(url);
    });
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      fail('ended before it was there');
    });
  });
}

async function setFault(baseUrl: string, fault: string | readonly string[]): Promise<void> {
  const answer = await fetch(`${baseUrl}/sim/control`, {
    method: 'POST',
    body: JSON.stringify({ fault }),
    signal: AbortSignal.timeout(START_TIMEOUT_MS),
  });
  if (!answer.ok) throw new Error(`/sim/control: ${answer.status} ${await answer.text()}`);
  await answer.arrayBuffer();
}
