/** Every engine that can be tested here: its adapter, its simulator, and what it cannot tell. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CompletionRequest, EngineAdapter, EngineFrame } from '../../src/engines/adapter.js';
import type { EngineEndpoint } from '../../src/engines/client.js';
import { DIALECTS } from '../../src/engines/dialects.js';
import { EngineError } from '../../src/engines/failure.js';
import { llamaCppLaunch } from '../../src/engines/llamacpp/launch.js';
import { freePort } from '../../src/host/ports.js';
import { spawnEngineProcess } from '../../src/host/process.js';
import { sendSignal } from '../../src/host/procfs.js';
import { pollUntil } from '../../src/runtime/wait.js';
import { type RunningSim, startEngineSim } from './engineSim.js';
import { endsWithFile } from './lifetimes.js';
import { realLlamaServer } from './llamaServer.js';
import { writeTinyModel } from './tinyModel.js';

export const PROTOCOLS = ['llamacpp', 'vllm', 'tgi', 'triton'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

export const MODEL = 'model-m';
const DEADLINE_MS = 10_000;
export const deadline = (): AbortSignal => AbortSignal.timeout(DEADLINE_MS);

type Over = Partial<EngineEndpoint> & { readonly slots?: number; readonly contextLength?: number };

/** As supervision makes it. */
export function adapterFor(
  protocol: Protocol,
  engine: { baseUrl: string; metricsUrl?: string | null },
  over: Over = {},
) {
  const { slots = 2, contextLength = 600, ...endpoint } = over;
  return DIALECTS[protocol].adapter({
    baseUrl: engine.baseUrl,
    servedModel: MODEL,
    expectedModelId: MODEL,
    slots,
    contextLength,
    otherUrls: typeof engine.metricsUrl === 'string' ? [engine.metricsUrl] : [],
    ...endpoint,
  });
}

/** Throws when the engine is not ready in time. */
export async function untilReady(adapter: EngineAdapter): Promise<void> {
  const isReady = async (signal: AbortSignal) => (await adapter.health(signal)).ready;
  if (!(await pollUntil(isReady, { everyMs: 20, deadlineMs: 20_000 })))
    throw new Error('the engine is not ready in time');
}

let requests = 0;

export function ask(over: Partial<CompletionRequest> = {}): CompletionRequest {
  requests += 1;
  const requestId = `request-${requests}`;
  return { requestId, prompt: 'Once upon a time', maxTokens: 8, seed: 7n, strict: true, slot: 0, ...over };
}

export interface Outcome {
  readonly text: string;
  readonly tokens: number;
  readonly end: (EngineFrame & { kind: 'end' }) | null;
  readonly error: unknown;
}

/** Reads a stream to its end or its failure; `onTokens` hears how many tokens have come so far. */
export async function run(
  adapter: EngineAdapter,
  request: CompletionRequest,
  signal = deadline(),
  onTokens: (tokens: number) => void = () => {},
): Promise<Outcome> {
  let text = '';
  let tokens = 0;
  let end: Outcome['end'] = null;
  try {
    for await (const group of adapter.stream(request, signal)) {
      for (const frame of group) {
        if (frame.kind === 'end') end = frame;
        else {
          text += frame.text;
          tokens += 1;
        }
      }
      onTokens(tokens);
    }
    return { text, tokens, end, error: null };
  } catch (error) {
    return { text, tokens, end, error };
  }
}

/** `CODE phase lost=…` of what a stream or a call failed with. */
export function failure({ error }: Pick<Outcome, 'error'>): string {
  if (!(error instanceof EngineError)) return error === null ? 'none' : `not an EngineError: ${error}`;
  return `${error.code} ${error.phase} lost=${error.engineLost}`;
}

/** Starts a stream and resolves once so many tokens have come; `over` is how it ends. */
export async function startRun(adapter: EngineAdapter, request: CompletionRequest, tokens = 1, signal = deadline()) {
  let begun: () => void = () => {};
  const enough = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const over = run(adapter, request, signal, (count) => {
    if (count >= tokens) begun();
  });
  await Promise.race([enough, over]);
  return { over };
}

/** One simulator for one test, and an adapter bound to it. Both are gone when it returns. */
export async function withSim(
  protocol: Protocol,
  args: readonly string[],
  test: (sim: RunningSim, adapter: EngineAdapter) => Promise<void>,
  options: Over & { readonly until?: 'ready' | 'control' } = {},
): Promise<void> {
  const { until = 'ready', ...over } = options;
  const common = ['--tokens-per-second', '0', '--model', MODEL];
  await using sim = await startEngineSim({ protocol, args: [...common, ...args], until });
  const adapter = adapterFor(protocol, sim, over);
  try {
    await test(sim, adapter);
  } finally {
    await adapter.close();
  }
}

export interface RunningEngine extends AsyncDisposable {
  readonly baseUrl: string;
  readonly metricsUrl: string | null;
}

/** A real llama-server with the tiny model, which it serves as MODEL; null where this machine has none. */
export async function startRealLlamaServer(options: {
  readonly slots: number;
  readonly ctx: number;
  readonly args?: readonly string[];
}): Promise<RunningEngine | null> {
  const engine = await realLlamaServer();
  if (!('file' in engine)) {
    if (process.env.LLORCH_REQUIRE_REAL_ENGINE === '1') throw new Error(engine.unavailable);
    console.warn(`SKIPPED: no real llama-server: ${engine.unavailable}`);
    return null;
  }
  const folder = await mkdtemp(join(tmpdir(), 'llama-orch-real-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const { baseUrl, stop, kill } = await spawnRealLlamaServer(engine.file, folder, options);
    const end = async (): Promise<void> => {
      await stop().finally(remove);
    };
    const hasEnded = endsWithFile({ end, kill });
    return { baseUrl, metricsUrl: null, [Symbol.asyncDispose]: () => end().finally(hasEnded) };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function spawnRealLlamaServer(
  binaryPath: string,
  folder: string,
  { slots, ctx, args = [] }: { readonly slots: number; readonly ctx: number; readonly args?: readonly string[] },
) {
  const model = join(folder, 'tiny.gguf');
  await writeTinyModel(model);
  const port = await freePort();
  const spec = llamaCppLaunch({
    ...{ binaryPath, model, servedName: MODEL, ports: [port], gpuUuids: [], gpuIndices: [] },
    ...{ contextPerSlot: ctx, slots, extraArgs: ['-t', '1', ...args] },
  });
  const logFile = join(folder, 'engine.log');
  const child = spawnEngineProcess({ ...spec, cwd: folder, logFile, mark: `test/${port}` });
  return {
    baseUrl: `http://127.0.0.1:${port}`,
    stop: () => child.stop({ graceMs: 5_000 }),
    kill: () => void sendSignal(-child.pid, 'SIGKILL'),
  };
}
