/** Triton with the TensorRT-LLM backend (its ensemble or BLS model) in the terms of the EngineAdapter contract. */
import { z } from 'zod';
import { delay, within } from '../../runtime/wait.js';
import type {
  CancelOutcome,
  CancelRequest,
  CompletionRequest,
  EmbeddingRequest,
  Embeddings,
  EngineAdapter,
  EngineFrame,
  EngineHealth,
  EngineMetrics,
  EngineProps,
  Ranking,
  RerankRequest,
} from '../adapter.js';
import { type CancelLook, EngineClient, type EngineEndpoint } from '../client.js';
import { EngineError } from '../failure.js';
import { readSamples, sumOf } from '../prometheus.js';
import { jsonSeed, SAMPLER_PROFILE } from '../sampling.js';
import { TRITON_ERRORS } from './errors.js';
import { TritonFrames } from './frames.js';

const DEFAULT_MODEL = 'ensemble';
/** The model that decodes, behind every ensemble and BLS model; it alone has the `stop` tensor, and all share the id. */
const STOP_PATH = '/v2/models/tensorrt_llm/generate';
const METRICS_CONNECTIONS = 4;
const STOP_TIMEOUT_MS = 5_000;
/** The backend looks for stopped requests, and then renews its gauges, every 100 ms each. */
const METRICS_LAG_MS = 200;

const NO_METRICS: EngineMetrics = {
  ...{ running: null, waiting: null, kvUsage: null, tokensInTotal: null, tokensOutTotal: null },
};

const serverSchema = z.object({ version: z.string() });
const modelSchema = z.object({ name: z.string() });

/**
 * Inputs of the model by name; what it has no input for is ignored, as the counts are by older models, which in turn
 * insist on the two word lists. There is no word for min_p.
 */
export function completionBody(request: CompletionRequest): Record<string, unknown> {
  return {
    id: request.requestId,
    text_input: request.prompt,
    max_tokens: request.maxTokens,
    stream: true,
    temperature: SAMPLER_PROFILE.temperature,
    top_k: SAMPLER_PROFILE.topK,
    top_p: SAMPLER_PROFILE.topP,
    seed: jsonSeed(request.seed),
    bad_words: '',
    stop_words: '',
    return_num_input_tokens: true,
    return_num_output_tokens: true,
  };
}

export interface TritonEndpoint extends EngineEndpoint {
  /** The model of the repository that is asked. */
  readonly model?: string;
  /** Metrics have a port of their own. */
  readonly metricsUrl?: string;
  /** Both are compiled into the engine files; the protocol tells neither. */
  readonly slots?: number;
  readonly contextLength?: number;
}

export function createTritonAdapter(endpoint: TritonEndpoint): EngineAdapter {
  return new TritonAdapter(endpoint);
}

class TritonAdapter implements EngineAdapter {
  readonly engine = 'triton' as const;
  readonly #client: EngineClient;
  readonly #metrics: EngineClient | null;
  readonly #model: string;
  readonly #modelPath: string;
  readonly #slots: number | null;
  readonly #contextLength: number | null;

  constructor(endpoint: TritonEndpoint) {
    const { metricsUrl, unaryTimeoutMs, model = DEFAULT_MODEL } = endpoint;
    this.#client = new EngineClient(endpoint, TRITON_ERRORS);
    const metrics = { connections: METRICS_CONNECTIONS, ...(unaryTimeoutMs !== undefined && { unaryTimeoutMs }) };
    this.#metrics =
      metricsUrl === undefined ? null : new EngineClient({ baseUrl: metricsUrl, ...metrics }, TRITON_ERRORS);
    this.#model = model;
    this.#modelPath = `/v2/models/${encodeURIComponent(model)}`;
    this.#slots = endpoint.slots ?? null;
    this.#contextLength = endpoint.contextLength ?? null;
  }

  /** Nothing listens until the models are loaded; 400 means that one of them is not ready, or not any more. */
  health(signal: AbortSignal): Promise<EngineHealth> {
    return this.#client.health('/v2/health/ready', [400], signal);
  }

  /** Throws EngineError when the server does not have the model. */
  async props(signal: AbortSignal): Promise<EngineProps> {
    const server = await this.#client.json({ method: 'GET', path: '/v2' }, serverSchema, signal);
    const model = await this.#client.json({ method: 'GET', path: this.#modelPath }, modelSchema, signal);
    const { running } = await this.metrics(signal);
    return {
      version: server.version,
      modelId: model.name,
      modelDigest: null,
      contextLength: this.#contextLength,
      slotsTotal: this.#slots,
      slotsBusy: running,
    };
  }

  /** The generate protocol has no tokenizer. */
  async countTokens(_text: string, _signal: AbortSignal): Promise<null> {
    return null;
  }

  stream(request: CompletionRequest, signal: AbortSignal): AsyncIterable<readonly EngineFrame[]> {
    const path = `${this.#modelPath}/generate_stream`;
    const call = { method: 'POST', path, body: completionBody(request) } as const;
    const reader = new TritonFrames(this.#client.failures, this.#model, request.maxTokens);
    return this.#client.stream(request, call, reader, signal);
  }

  /**
   * A closed connection is noticed only when Triton next writes to it, so the request is also stopped by its id. The
   * connection goes first: a stream that was stopped ends like one that is complete.
   */
  async cancel({ requestId }: CancelRequest, signal: AbortSignal): Promise<CancelOutcome> {
    const closed: CancelLook = { free: null, saw: 'the connection is closed' };
    await this.#client.cancel(requestId, async () => closed, null, signal);
    const isTold = await this.#stop(requestId, signal);
    if (this.#metrics !== null) await delay(METRICS_LAG_MS, signal);
    const told = isTold ? 'the stop request was answered; there are no metrics to look at' : null;
    return this.#client.cancel(requestId, (within) => this.#look(requestId, within), told, signal);
  }

  /** Whether it was answered; an unknown id is answered alike. The tensors beside `stop` are there because they must be. */
  async #stop(requestId: string, signal: AbortSignal): Promise<boolean> {
    const body = { id: requestId, input_ids: [0], input_lengths: 0, request_output_len: 0, stop: true };
    using deadline = within(STOP_TIMEOUT_MS, signal);
    try {
      await this.#client.text({ method: 'POST', path: STOP_PATH, body }, deadline.signal);
      return true;
    } catch {
      return false; // the look that follows shows what there is to see
    }
  }

  async #look(requestId: string, signal: AbortSignal): Promise<CancelLook> {
    const atWork = await this.#atWork(signal);
    if (atWork === null) {
      const { state } = await this.#client.health('/v2/health/live', [], signal);
      const isGone = state === 'unreachable';
      return isGone ? { free: true, saw: 'the engine is gone' } : { free: null, saw: 'nothing to look at' };
    }
    const look = this.#client.lookAt(atWork, 'GET /metrics');
    // A stop that overtakes its request is forgotten, so it is said again.
    if (look.free === false) await this.#stop(requestId, signal);
    return look;
  }

  /** Requests that the backend holds; null where no metrics tell. */
  async #atWork(signal: AbortSignal): Promise<number | null> {
    try {
      const { running, waiting } = await this.metrics(signal);
      return running === null ? null : running + (waiting ?? 0);
    } catch (error) {
      if (error instanceof EngineError && (error.fault === 'refused' || error.status === 404)) return null;
      throw error;
    }
  }

  /** Embeddings and rankings are other models' tensors, not a protocol. */
  async embed(_request: EmbeddingRequest, _signal: AbortSignal): Promise<Embeddings> {
    throw this.#client.failures.unsupported('embeddings');
  }

  async rerank(_request: RerankRequest, _signal: AbortSignal): Promise<Ranking> {
    throw this.#client.failures.unsupported('reranking');
  }

  async metrics(signal: AbortSignal): Promise<EngineMetrics> {
    if (this.#metrics === null) return NO_METRICS;
    return readMetrics(await this.#metrics.text({ method: 'GET', path: '/metrics' }, signal));
  }

  async close(): Promise<void> {
    await Promise.all([this.#client.close(), this.#metrics?.close()]);
  }
}

/** Gauges of the TensorRT-LLM backend. Only newer ones count tokens, once a request has ended; the sums are theirs. */
export function readMetrics(text: string): EngineMetrics {
  const samples = readSamples(text);
  const requests = (type: string): number | null =>
    sumOf(samples, 'nv_trt_llm_request_metrics', { request_type: type });
  const kvUsage = sumOf(samples, 'nv_trt_llm_kv_cache_block_metrics', { kv_cache_block_type: 'fraction' });
  return {
    running: requests('active'),
    waiting: requests('waiting'),
    kvUsage: kvUsage === null ? null : Math.min(kvUsage, 1),
    tokensInTotal: sumOf(samples, 'nv_llm_input_token_len_sum'),
    tokensOutTotal: sumOf(samples, 'nv_llm_output_token_len_sum'),
  };
}
