/** Text Generation Inference (TGI) in the terms of the EngineAdapter contract. */
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
import { readSamples, type Sample, sumOf } from '../prometheus.js';
import { jsonSeed, SAMPLER_PROFILE } from '../sampling.js';
import { TGI_ERRORS } from './errors.js';
import { TgiFrames } from './frames.js';

const SHORT_SHA_CHARS = 7;

const infoSchema = z.object({
  model_id: z.string(),
  model_sha: z.string().nullish(),
  max_concurrent_requests: z.number().int().positive(),
  max_total_tokens: z.number().int().positive(),
  version: z.string(),
  sha: z.string().nullish(),
});
const tokensSchema = z.array(z.unknown());

/**
 * Everything is written out: without `parameters` the server samples, with them and without `do_sample` it does not.
 * There is no word for min_p, nor for a request that shall not use the prefix cache.
 */
export function completionBody(request: CompletionRequest): Record<string, unknown> {
  return {
    inputs: request.prompt,
    parameters: {
      max_new_tokens: request.maxTokens,
      do_sample: true,
      seed: jsonSeed(request.seed),
      temperature: SAMPLER_PROFILE.temperature,
      top_k: SAMPLER_PROFILE.topK,
      top_p: SAMPLER_PROFILE.topP,
      details: true,
      return_full_text: false,
      decoder_input_details: false,
    },
  };
}

/** @param endpoint `slots`: how many requests the server was started for; its own answer counts the queue too. */
export function createTgiAdapter(endpoint: EngineEndpoint & { readonly slots?: number }): EngineAdapter {
  return new TgiAdapter(endpoint);
}

class TgiAdapter implements EngineAdapter {
  readonly engine = 'tgi' as const;
  readonly #client: EngineClient;
  readonly #slots: number | undefined;

  constructor(endpoint: EngineEndpoint & { readonly slots?: number }) {
    this.#client = new EngineClient(endpoint, TGI_ERRORS);
    this.#slots = endpoint.slots;
  }

  /** Nothing listens until the model is loaded and warm; a 503 comes from a server whose shards are in trouble. */
  health(signal: AbortSignal): Promise<EngineHealth> {
    return this.#client.health('/health', [], signal);
  }

  /** Streams do not name the model: what is served shows only here. */
  async props(signal: AbortSignal): Promise<EngineProps> {
    const info = await this.#client.json({ method: 'GET', path: '/info' }, infoSchema, signal);
    const samples = await this.#samples(signal);
    return {
      version: info.sha ? `${info.version} (${info.sha.slice(0, SHORT_SHA_CHARS)})` : info.version,
      modelId: info.model_id,
      modelDigest: info.model_sha ?? null,
      contextLength: info.max_total_tokens,
      slotsTotal: this.#slots ?? info.max_concurrent_requests,
      slotsBusy: samples && readMetrics(samples).running,
    };
  }

  async countTokens(text: string, signal: AbortSignal): Promise<number | null> {
    // Special tokens are added here as in a completion; the server reads no switch for it.
    const call = { method: 'POST', path: '/tokenize', body: { inputs: text } } as const;
    const tokens = await this.#client.ifOffered(() => this.#client.json(call, tokensSchema, signal));
    return tokens?.length ?? null;
  }

  stream(request: CompletionRequest, signal: AbortSignal): AsyncIterable<readonly EngineFrame[]> {
    const call = { method: 'POST', path: '/generate_stream', body: completionBody(request) } as const;
    return this.#client.stream(request, call, new TgiFrames(this.#client.failures, request.maxTokens), signal);
  }

  /** A closed connection is the only cancel there is; the server sees it when the next token is due. */
  cancel({ requestId }: CancelRequest, signal: AbortSignal): Promise<CancelOutcome> {
    const told = 'the connection is closed; the server shows no metrics';
    return this.#client.cancel(requestId, (within) => this.#look(within), told, signal);
  }

  async #look(signal: AbortSignal): Promise<CancelLook> {
    const samples = await this.#samples(signal);
    // Counted before anything is decoded, so a page without it is not the page of the server that got the request.
    if (samples === null || sumOf(samples, 'tgi_request_count') === null) {
      return { free: null, saw: 'nothing to look at' };
    }
    // While a prompt is worked on, its request stands neither in the queue nor in the batch.
    if (callsUnderWay(samples, 'prefill') > 0) return { free: false, saw: 'GET /metrics: a prefill is under way' };
    const { running, waiting } = readMetrics(samples);
    return this.#client.lookAt((running ?? 0) + (waiting ?? 0), 'GET /metrics');
  }

  /** TGI only generates; embeddings and rankings are another program's. */
  async embed(_request: EmbeddingRequest, _signal: AbortSignal): Promise<Embeddings> {
    throw this.#client.failures.unsupported('embeddings');
  }

  async rerank(_request: RerankRequest, _signal: AbortSignal): Promise<Ranking> {
    throw this.#client.failures.unsupported('reranking');
  }

  async metrics(signal: AbortSignal): Promise<EngineMetrics> {
    return readMetrics(readSamples(await this.#client.text({ method: 'GET', path: '/metrics' }, signal)));
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  /** Null where the server has no metrics route. */
  async #samples(signal: AbortSignal): Promise<readonly Sample[] | null> {
    const text = await this.#client.ifOffered(() => this.#client.text({ method: 'GET', path: '/metrics' }, signal));
    return text === null ? null : readSamples(text);
  }
}

/**
 * A metric is on the page once it has had a value; until then it is 0. Generated tokens count when their request has
 * ended well. There is no KV usage: the tokens the batch may still grow to, as a share of all that fit, stand for it.
 */
export function readMetrics(samples: readonly Sample[]): EngineMetrics {
  const read = (name: string): number => sumOf(samples, `tgi_${name}`) ?? 0;
  const capacity = read('batch_max_total_tokens');
  return {
    running: read('batch_current_size'),
    waiting: read('queue_size'),
    kvUsage: capacity > 0 ? Math.min(read('batch_current_max_tokens') / capacity, 1) : null,
    tokensInTotal: read('request_input_length_sum'),
    tokensOutTotal: read('request_generated_tokens_sum'),
  };
}

/** Calls to the shards that were begun and have neither succeeded nor failed. */
function callsUnderWay(samples: readonly Sample[], method: 'prefill' | 'decode'): number {
  const read = (name: string): number => sumOf(samples, `tgi_batch_inference_${name}`, { method }) ?? 0;
  return read('count') - read('success') - read('failure');
}
