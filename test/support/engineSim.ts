/** Starts the engine simulator as the child process it is in real life, and ends it with the test. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { endsWithFile, inTime } from './lifetimes.js';

const ENTRY = fileURLToPath(new URL('../../dist/engines/sim/main.js', import.meta.url));
const START_TIMEOUT_MS = 15_000;
/** Less than a test has, so that it says what it waited for. */
const EXIT_TIMEOUT_MS = 20_000;
const MAX_KEPT_LINES = 200;

export interface SimExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** GET /sim/control. */
export interface SimInspection {
  readonly faults: readonly string[];
  /** Open ones of the engine's own ports. */
  readonly connections: number;
  readonly busySlots: number;
  readonly deferred: number;
  readonly completions: { readonly started: number; readonly finished: number; readonly abandoned: number };
  readonly requests: number;
}

export interface RunningSim extends AsyncDisposable {
  readonly baseUrl: string;
  readonly controlUrl: string;
  /** Of the engine's second listener, where it has one and is ready. */
  readonly metricsUrl: string | null;
  readonly pid: number;
  /**
   * Resolves when the process is gone, however it went, and all its lines are there. Rejects with these when it is not
   * gone 20 s after the question: each look at this property starts that time anew.
   */
  readonly exited: Promise<SimExit>;
  /** The last log lines, for a test to read or to show. */
  readonly lines: readonly string[];
  /** Sets the faults: `hang-at-token:5`, several, or `none`. */
  control(fault: string | readonly string[]): Promise<void>;
  inspect(): Promise<SimInspection>;
  /** Signals the process alone, not its group. */
  kill(signal: NodeJS.Signals): void;
}

export interface SimOptions {
  readonly protocol?: 'llamacpp' | 'vllm' | 'tgi' | 'triton';
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /**
   * `ready`: the model is loaded. `bound`: the port is open and every route answers 503 (llama.cpp only).
   * `control`: only the control port is surely up; the engine's own may still refuse connections.
   */
  readonly until?: 'ready' | 'bound' | 'control';
}

const ANNOUNCEMENTS = {
  control: /^engine-sim: control on (http:\S+)/,
  metrics: /^engine-sim: metrics on (http:\S+)/,
  bound: /bound to (http:\S+)/,
  ready: /^engine-sim: ready on (http:\S+)/,
} as const;
type Announced = Partial<Record<keyof typeof ANNOUNCEMENTS, string>>;

/** Resolves once the simulator has logged that it is there. Rejects when it ends before, or says nothing in time. */
export async function startEngineSim(options: SimOptions = {}): Promise<RunningSim> {
  const { protocol = 'llamacpp', args = [], env = {}, until = 'ready' } = options;
  // Where it does not tell its port in time, the port is chosen for it.
  const port = until === 'control' ? await freePort() : 0;
  const ports = ['--port', String(port), '--metrics-port', '0', '--control-port', '0'];
  const { child, pid, lines, exited, dispose } = spawnSim(['--protocol', protocol, ...ports, ...args], env);
  try {
    const announced = await waitFor(child, lines, until);
    const controlUrl = announced.control ?? '';
    return {
      baseUrl: announced.ready ?? announced.bound ?? `http://127.0.0.1:${port}`,
      controlUrl,
      metricsUrl: announced.metrics ?? null,
      pid,
      get exited() {
        return exited();
      },
      lines,
      control: async (fault) =>
        void (await askControl(controlUrl, { method: 'POST', body: JSON.stringify({ fault }) })),
      inspect: async () => (await askControl(controlUrl, {})) as SimInspection,
      kill: (signal) => void child.kill(signal),
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function spawnSim(args: readonly string[], env: Readonly<Record<string, string>>) {
  const child = spawn(process.execPath, [ENTRY, '--exit-with-stdin', ...args], {
    // Its standard input ends with us, however we go, and it with that.
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
    detached: true, // a process group of its own, which ends with it
  });
  const pid = child.pid ?? 0;
  const lines: string[] = [];
  const closed = new Promise<SimExit>((resolve) => child.once('close', (code, signal) => resolve({ code, signal })));
  const exited = (): Promise<SimExit> =>
    inTime(closed, EXIT_TIMEOUT_MS, () => `engine-sim ${pid} does not end; it said:\n${lines.join('\n')}`);
  const end = async (): Promise<void> => {
    killGroup(pid);
    if (pid !== 0) await exited();
  };
  const hasEnded = endsWithFile({ end, kill: () => killGroup(pid) });
  return { child, pid, lines, exited, dispose: () => end().finally(hasEnded) };
}

/** Also what outlives the leader. */
function killGroup(pid: number): void {
  if (pid === 0) return; // never started
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The whole group is gone.
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function waitFor(
  child: ChildProcessByStdio<Writable, null, Readable>,
  lines: string[],
  until: 'ready' | 'bound' | 'control',
): Promise<Announced> {
  const announced: Announced = {};
  return new Promise((resolve, reject) => {
    const fail = (what: string): void => reject(new Error(`engine-sim ${what}; it said:\n${lines.join('\n')}`));
    const timer = setTimeout(() => fail('did not start in time'), START_TIMEOUT_MS);
    // The reader stays for the life of the process, so that its log never blocks it.
    createInterface({ input: child.stderr }).on('line', (line) => {
      lines.push(line);
      if (lines.length > MAX_KEPT_LINES) lines.shift();
      for (const [name, pattern] of Object.entries(ANNOUNCEMENTS)) {
        const url = pattern.exec(line)?.[1];
        if (url !== undefined) announced[name as keyof Announced] = url;
      }
      if (announced[until] === undefined) return;
      clearTimeout(timer);
      resolve(announced);
    });
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', () => {
      clearTimeout(timer);
      fail('ended before it was there');
    });
  });
}

async function askControl(controlUrl: string, init: RequestInit): Promise<unknown> {
  const answer = await fetch(`${controlUrl}/sim/control`, { ...init, signal: AbortSignal.timeout(START_TIMEOUT_MS) });
  if (!answer.ok) throw new Error(`/sim/control: ${answer.status} ${await answer.text()}`);
  return answer.json();
}
