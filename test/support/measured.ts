/** The real program with a look inside: what a piece of abuse cost its event loop, and what it left in its memory. */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeHome, type ServerProcess, startServer } from './server.js';

const HOOK = fileURLToPath(new URL('../api/fixtures/measureHook.mjs', import.meta.url));
const ANSWER_DEADLINE_MS = 20_000;

export interface Cost {
  /** CPU of the longest that the event loop was held at a stretch. */
  readonly longestTurnMs: number;
  /** Of the whole process, its helper threads too. */
  readonly cpuMs: number;
}

export interface MeasuredServer extends AsyncDisposable {
  readonly process: ServerProcess;
  readonly url: string;
  measure(act: () => Promise<unknown>): Promise<Cost>;
  /** Heap and buffers in use after a full collection. */
  liveBytes(): Promise<number>;
  /** The most memory that it held since `resetPeak`, its program included. */
  peakBytes(): number;
  rssBytes(): number;
  resetPeak(): void;
}

/** One question at a time. */
async function askHook(socket: Socket, command: string): Promise<Record<string, number>> {
  socket.write(command);
  const [text] = (await once(socket, 'data', { signal: AbortSignal.timeout(ANSWER_DEADLINE_MS) })) as [string];
  return JSON.parse(text) as Record<string, number>;
}

export async function startMeasured(
  options: { args?: string[]; env?: Record<string, string> } = {},
): Promise<MeasuredServer> {
  const home = await makeHome();
  const path = join(home.path, 'measure.sock');
  const env = { ...options.env, NODE_OPTIONS: `--import=${HOOK}`, LLORCH_MEASURE: path };
  const server = await startServer(home.path, { ...options, env });
  const socket = connect(path);
  await once(socket.setEncoding('utf8'), 'connect');
  const status = (field: string): number => {
    const text = readFileSync(`/proc/${server.pid}/status`, 'utf8');
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) * 1024;
  };
  return {
    process: server,
    url: server.url,
    async measure(act) {
      await askHook(socket, 'begin');
      await act();
      const { longestTurnMs = Number.NaN, cpuMs = Number.NaN } = await askHook(socket, 'end');
      return { longestTurnMs, cpuMs };
    },
    liveBytes: async () => (await askHook(socket, 'memory')).liveBytes ?? Number.NaN,
    peakBytes: () => status('VmHWM'),
    rssBytes: () => status('VmRSS'),
    resetPeak: () => writeFileSync(`/proc/${server.pid}/clear_refs`, '5'),
    async [Symbol.asyncDispose]() {
      socket.destroy();
      await home.remove();
    },
  };
}
