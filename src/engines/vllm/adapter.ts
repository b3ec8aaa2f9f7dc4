/** vLLM's OpenAI server in the terms of the EngineAdapter contract. */
import { performance } from 'node:perf_hooks';
import { z } from 'zod';
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
import { embedAt, rerankAt } from '../openai.js';
import { readSamples, type Sample, sumOf } from '../prometheus.js';
import { jsonSeed, SAMPLER_PROFILE } from '../sampling.js';
import { VLLM_ERRORS } from './errors.js';
import { VllmFrames } from './frames.js';

/** How long gauges may show an aborted request before the engine is made to refresh them. */
const STALE_GAUGES_MS = 1_000;

export interface VllmEndpoint extends EngineEndpoint {
  /** What --max-num-seqs says: the server does not tell it. */
  readonly slots?: number;
  /** The name it serves the model under; without it the server is asked once. */
  readonly servedModel?: string;
}

const versionSchema = z.object({ version: z.string() });
const modelSchema = z.object({ id: z.string(), max_model_len: z.number().int().positive().nullish() });
const modelsSchema = z.object({ data: z.tuple([modelSchema], modelSchema) });
const countSchema = z.object({ count: z.number().int().nonnegative() });

/**
 * Penalties are written out because a model's generation_config.json would set them. `cache_salt` keeps a strict
 * request from finding another's prefix in the cache, which would change the shapes it is computed in; so does one that is
 * not to use the cache at all.
 */
export function completionBody(request: CompletionRequest, model: string): Record<string, unknown> {
  return {
    model,
    prompt: request.prompt,
    max_tokens: request.maxTokens,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    return_token_ids: true,
    request_id: request.requestId,
    seed: jsonSeed(request.seed),
    temperature: SAMPLER_PROFILE.temperature,
    top_k: SAMPLER_PROFILE.topK,
    top_p: SAMPLER_PROFILE.topP,
    min_p: SAMPLER_PROFILE.minP,
    repetition_penalty: 1,
    presence_penalty: 0,
    frequency_penalty: 0,
    ...((request.strict || request.reusesCache === false) && { cache_salt: request.requestId }),
  };
}

export function createVllmAdapter(endpoint: VllmEndpoint): EngineAdapter {
  return new VllmAdapter(endpoint);
}

class VllmAdapter implements EngineAdapter {
  readonly engine = 'vllm' as const;
  readonly #client: EngineClient;
  readonly #expectedModelId: string | undefined;
  readonly #slots: number | null;
  #servedModel: string | undefined;

  constructor(endpoint: VllmEndpoint) {
    this.#client = new EngineClient(endpoint, VLLM_ERRORS);
    this.#expectedModelId = endpoint.expectedModelId;
    this.#slots = endpoint.slots ?? null;
    this.#servedModel = endpoint.servedModel;
  }

  /** It listens only once it is loaded; a 503 is an engine that has died behind its API server. */
  health(signal: AbortSignal): Promise<EngineHealth> {
    return this.#client.health('/health', [], signal);
  }

  async props(signal: AbortSignal): Promise<EngineProps> {
    const { version } = await this.#client.json({ method: 'GET', path: '/version' }, versionSchema, signal);
    const { data } = await this.#models(signal);
    const served = data.find(({ id }) => id === this.#servedModel) ?? data[0];
    const metrics = await this.#client.ifOffered(() => this.metrics(signal));
    return {
      version,
      modelId: served.id,
      modelDigest: null,
      contextLength: served.max_model_len ?? null,
      slotsTotal: this.#slots,
      slotsBusy: metrics?.running ?? null,
    };
  }

  async countTokens(text: string, signal: AbortSignal): Promise<number | null> {
    const body = { model: await this.#modelName(signal), prompt: text, add_special_tokens: true };
    const answer = await this.#client.ifOffered(() =>
      this.#client.json({ method: 'POST', path: '/tokenize', body }, countSchema, signal),
    );
    return answer?.count ?? null;
  }

  async *stream(request: CompletionRequest, signal: AbortSignal): AsyncGenerator<readonly EngineFrame[], void, void> {
    const model = this.#servedModel ?? (await this.#modelName(signal));
    const call = { method: 'POST', path: '/v1/completions', body: completionBody(request, model) } as const;
    const reader = new VllmFrames(this.#client.failures, this.#expectedModelId);
    yield* this.#client.stream(request, call, reader, signal);
  }

  /** A closed connection is the only cancel there is; the engine drops the request between two of its steps. */
  cancel({ requestId }: CancelRequest, signal: AbortSignal): Promise<CancelOutcome> {
    const told = 'the connection is closed; vLLM aborts what lost its client';
    return this.#client.cancel(requestId, this.#looker(), told, signal);
  }

  /**
   * Looks at the gauges. They change only when the engine takes a step: one whose requests were all aborted shows the
   * last of them until the next request, so it is given one of a single token, once.
   */
  #looker(): (signal: AbortSignal) => Promise<CancelLook> {
    const startedMs = performance.now();
    let stepped = false;
    return async (signal) => {
      const { running, waiting } = (await this.#client.ifOffered(() => this.metrics(signal))) ?? { running: null };
      if (running === null) return { free: null, saw: 'no metrics to look at' };
      const look = this.#client.lookAt(running + (waiting ?? 0), 'GET /metrics');
      const isStale =
        look.free === false && this.#client.running === 0 && performance.now() - startedMs > STALE_GAUGES_MS;
      if (isStale && !stepped) {
        stepped = true;
        await this.#step(signal);
      }
      return look;
    };
  }

  async #step(signal: AbortSignal): Promise<void> {
    try {
      const body = { model: await this.#modelName(signal), prompt: '.', max_tokens: 1, temperature: 0 };
      await this.#client.text({ method: 'POST', path: '/v1/completions', body }, signal);
    } catch {
      // Its answer is of no interest; the next look shows what became of the engine.
    }
  }

  async embed(request: EmbeddingRequest, signal: AbortSignal): Promise<Embeddings> {
    return embedAt(this.#client, request, { model: await this.#modelName(signal) }, signal);
  }

  async rerank(request: RerankRequest, signal: AbortSignal): Promise<Ranking> {
    return rerankAt(this.#client, request, { model: await this.#modelName(signal) }, signal);
  }

  async metrics(signal: AbortSignal): Promise<EngineMetrics> {
    return readMetrics(await this.#client.text({ method: 'GET', path: '/metrics' }, signal));
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  async #modelName(signal: AbortSignal): Promise<string> {
    this.#servedModel ??= (await this.#models(signal)).data[0].id;
    return this.#servedModel;
  }

  #models(signal: AbortSignal) {
    return this.#client.json({ method: 'GET', path: '/v1/models' }, modelsSchema, signal);
  }
}

/** Sums over the engines of a data-parallel server. A server started with --disable-log-stats has none of the series. */
export function readMetrics(text: string): EngineMetrics {
  const samples = readSamples(text);
  return {
    running: sumOf(samples, 'vllm:num_requests_running'),
    waiting: sumOf(samples, 'vllm:num_requests_waiting'),
    kvUsage: meanOf(samples, 'vllm:kv_cache_usage_perc') ?? meanOf(samples, 'vllm:gpu_cache_usage_perc'),
    tokensInTotal: sumOf(samples, 'vllm:prompt_tokens_total'),
    tokensOutTotal: sumOf(samples, 'vllm:generation_tokens_total'),
  };
}

/** The engines have caches of one size, so the mean of their shares is the share of all. */
function meanOf(samples: readonly Sample[], name: string): number | null {
  const sum = sumOf(samples, name);
  return sum === null ? null : sum / samples.filter((sample) => sample.name === name).length;
}
