/** llama-server in the terms of the EngineAdapter contract. Holds one connection pool; `close` drops it. */
import { z } from 'zod';
import {
  type CompletionRequest,
  type EngineAdapter,
  EngineError,
  type EngineFrame,
  type EngineHealth,
  type EngineMetrics,
  type EngineProps,
} from '../adapter.js';
import { CallScope, EngineHttpClient, explain, type HttpFailure, release } from '../http.js';
import { DEFAULT_MAX_EVENT_CHARS, SseError, SseReader } from '../sse.js';
import { failureError, transportError } from './errors.js';
import { CompletionFrames } from './frames.js';

export interface LlamaCppAdapterOptions {
  readonly baseUrl: string;
  readonly apiKey?: string;
  /** Longest silence inside a completion before the engine counts as hung; also the wait for its first token. */
  readonly idleTimeoutMs?: number;
  readonly unaryTimeoutMs?: number;
  /** Most connections at once; at least the slots and a few more for probes. */
  readonly connections?: number;
}

const DEFAULT_IDLE_TIMEOUT_MS = 60_000;
const DEFAULT_UNARY_TIMEOUT_MS = 30_000;
const DEFAULT_CONNECTIONS = 136;
/** A token frame is around 130 bytes; a piece of text escaped in JSON stays far below this. */
const MAX_BYTES_PER_TOKEN = 4_096;
/** The last frame repeats the prompt; JSON writes one UTF-16 unit in at most six characters. */
const MAX_ESCAPED_CHARS = 6;
const UINT32_MAX = 0xffff_ffffn;

/** Written out in every request, so that a build with other defaults gives the same text. */
const SAMPLING = { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05 } as const;

const propsSchema = z.object({
  build_info: z.string(),
  model_alias: z.string().nullish(),
  model_path: z.string(),
  total_slots: z.number().int().positive(),
  default_generation_settings: z.object({ n_ctx: z.number().int().positive() }),
});
const tokensSchema = z.object({ tokens: z.array(z.unknown()) });
const slotsSchema = z.array(z.object({ id: z.number().int(), is_processing: z.boolean() }));

/** Folds to 0 … 2^32-2: 2^32-1 would ask for a random seed. Seeds that fit stay as they are. */
export function foldSeed(seed: bigint): number {
  return Number(seed % UINT32_MAX);
}

export function completionBody(request: CompletionRequest): Record<string, unknown> {
  return {
    prompt: request.prompt,
    n_predict: request.maxTokens,
    stream: true,
    seed: foldSeed(request.seed),
    ...SAMPLING,
    id_slot: request.slot,
    cache_prompt: !request.strict,
    return_tokens: false,
    timings_per_token: false,
  };
}

export function createLlamaCppAdapter(options: LlamaCppAdapterOptions): EngineAdapter {
  return new LlamaCppAdapter(options);
}

class LlamaCppAdapter implements EngineAdapter {
  readonly engine = 'llamacpp' as const;
  readonly #http: EngineHttpClient;
  readonly #idleTimeoutMs: number;

  constructor(options: LlamaCppAdapterOptions) {
    this.#idleTimeoutMs = options.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS;
    this.#http = new EngineHttpClient({
      baseUrl: options.baseUrl,
      headers: options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` },
      connections: options.connections ?? DEFAULT_CONNECTIONS,
      unaryTimeoutMs: options.unaryTimeoutMs ?? DEFAULT_UNARY_TIMEOUT_MS,
      translate: (failure, cause) => new LlamaCppCallError(failure, cause),
    });
  }

  async health(signal: AbortSignal): Promise<EngineHealth> {
    try {
      await this.#http.text({ method: 'GET', path: '/health' }, signal);
      return { state: 'ready' };
    } catch (error) {
      if (!(error instanceof LlamaCppCallError)) throw error;
      const { failure } = error;
      if (failure.kind === 'status') {
        return { state: failure.status === 503 ? 'loading' : 'failing', detail: error.message };
      }
      return { state: failure.fault === 'refused' ? 'unreachable' : 'failing', detail: error.message };
    }
  }

  async props(signal: AbortSignal): Promise<EngineProps> {
    const props = await this.#http.json({ method: 'GET', path: '/props' }, propsSchema, signal);
    return {
      version: props.build_info,
      modelId: props.model_alias || props.model_path,
      contextLength: props.default_generation_settings.n_ctx,
      slotsTotal: props.total_slots,
    };
  }

  async countTokens(text: string, signal: AbortSignal): Promise<number> {
    // As /completion reads a prompt: begin-of-sequence added, special tokens recognised. Both defaults differ here.
    const body = { content: text, add_special: true, parse_special: true };
    const { tokens } = await this.#http.json({ method: 'POST', path: '/tokenize', body }, tokensSchema, signal);
    return tokens.length;
  }

  async *stream(request: CompletionRequest, signal: AbortSignal): AsyncGenerator<readonly EngineFrame[], void, void> {
    const frames = new CompletionFrames();
    const scope = new CallScope(signal);
    try {
      yield* this.#streamInScope(request, frames, scope);
    } catch (error) {
      throw streamError(error, frames, scope, signal);
    } finally {
      scope.close();
    }
  }

  /**
   * The idle deadline runs from one group of frames to the next, not from byte to byte: a hung llama-server keeps
   * sending keep-alive comments. It stands still while the consumer holds a group.
   */
  async *#streamInScope(
    request: CompletionRequest,
    frames: CompletionFrames,
    scope: CallScope,
  ): AsyncGenerator<readonly EngineFrame[], void, void> {
    const call = { method: 'POST', path: '/completion', body: completionBody(request) } as const;
    const { body } = await this.#http.open(call, scope, this.#idleTimeoutMs);
    try {
      const maxEventChars = DEFAULT_MAX_EVENT_CHARS + request.prompt.length * MAX_ESCAPED_CHARS;
      const maxTotalBytes = maxEventChars * 3 + request.maxTokens * MAX_BYTES_PER_TOKEN;
      const reader = new SseReader({ maxEventChars, maxTotalBytes });
      scope.arm(this.#idleTimeoutMs);
      for await (const chunk of body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        const group = frames.read(reader.push(chunk));
        if (group.length > 0) {
          scope.disarm();
          yield group;
          scope.arm(this.#idleTimeoutMs);
        }
        if (frames.failure !== null) throw frames.failure;
        if (frames.ended) return;
      }
      reader.end();
      const broken = frames.atEof();
      if (broken !== null) throw broken;
    } finally {
      release(body, frames.ended);
    }
  }

  async isSlotBusy(slot: number, signal: AbortSignal): Promise<boolean | null> {
    try {
      const slots = await this.#http.json({ method: 'GET', path: '/slots' }, slotsSchema, signal);
      return slots.find(({ id }) => id === slot)?.is_processing ?? null;
    } catch (error) {
      if (error instanceof LlamaCppCallError && error.answered(404, 501)) return null;
      throw error;
    }
  }

  async metrics(signal: AbortSignal): Promise<EngineMetrics> {
    return readMetrics(await this.#http.text({ method: 'GET', path: '/metrics' }, signal));
  }

  async close(): Promise<void> {
    await this.#http.close();
  }
}

/** A failed unary call; always before the first token, because it has none. */
class LlamaCppCallError extends EngineError {
  readonly failure: HttpFailure;
  constructor(failure: HttpFailure, cause: unknown) {
    const { message, code, engineLost } = failureError(failure, 'before_first_token');
    super(message, { code, phase: 'before_first_token', engineLost }, { cause });
    this.failure = failure;
  }

  answered(...statuses: readonly number[]): boolean {
    return this.failure.kind === 'status' && statuses.includes(this.failure.status);
  }
}

function streamError(error: unknown, frames: CompletionFrames, scope: CallScope, caller: AbortSignal): unknown {
  if (error instanceof EngineError) return error;
  if (error instanceof SseError) return transportError('malformed', error.message, frames.phase, error);
  return explain(error, scope, caller, (failure, cause) => failureError(failure, frames.phase, cause));
}

const METRIC_LINE = /^llamacpp:(\w+)(?:\{[^}]*\})? (\S+)/gm;

/** Reads Prometheus text. llama-server tells no KV usage; a counter it lacks, or one it writes as nan, reads as 0. */
export function readMetrics(text: string): EngineMetrics {
  const values = new Map<string, number>();
  for (const [, name = '', value = ''] of text.matchAll(METRIC_LINE)) values.set(name, Number(value));
  const read = (name: string): number => values.get(name) || 0;
  return {
    running: read('requests_processing'),
    waiting: read('requests_deferred'),
    kvUsage: null,
    tokensInTotal: read('prompt_tokens_total') + read('prompt_tokens_cached_total'),
    tokensOutTotal: read('tokens_predicted_total'),
  };
}
