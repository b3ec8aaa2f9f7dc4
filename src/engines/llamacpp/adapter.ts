/** llama-server in the terms of the EngineAdapter contract. */
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
import { readSamples, sumOf } from '../prometheus.js';
import { SAMPLER_PROFILE } from '../sampling.js';
import { LLAMACPP_ERRORS } from './errors.js';
import { LlamaCppFrames } from './frames.js';

const UINT32_MAX = 0xffff_ffffn;

const propsSchema = z.object({
  build_info: z.string(),
  model_alias: z.string().nullish(),
  model_path: z.string(),
  total_slots: z.number().int().positive(),
  default_generation_settings: z.object({ n_ctx: z.number().int().positive() }),
});
const tokensSchema = z.object({ tokens: z.array(z.unknown()) });
const slotsSchema = z.array(z.object({ id: z.number().int(), is_processing: z.boolean() }));

const erasedSchema = z.object({ n_erased: z.number() });

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
    temperature: SAMPLER_PROFILE.temperature,
    top_k: SAMPLER_PROFILE.topK,
    top_p: SAMPLER_PROFILE.topP,
    min_p: SAMPLER_PROFILE.minP,
    id_slot: request.slot,
    cache_prompt: request.reusesCache !== false && !request.strict,
    return_tokens: false,
    timings_per_token: false,
  };
}

export function createLlamaCppAdapter(endpoint: EngineEndpoint): EngineAdapter {
  return new LlamaCppAdapter(endpoint);
}

class LlamaCppAdapter implements EngineAdapter {
  readonly engine = 'llamacpp' as const;
  readonly #client: EngineClient;
  readonly #expectedModelId: string | undefined;

  constructor(endpoint: EngineEndpoint) {
    this.#client = new EngineClient(endpoint, LLAMACPP_ERRORS);
    this.#expectedModelId = endpoint.expectedModelId;
  }

  health(signal: AbortSignal): Promise<EngineHealth> {
    return this.#client.health('/health', [503], signal);
  }

  async props(signal: AbortSignal): Promise<EngineProps> {
    const props = await this.#client.json({ method: 'GET', path: '/props' }, propsSchema, signal);
    const slots = await this.#slots(signal);
    return {
      version: props.build_info,
      modelId: props.model_alias || props.model_path,
      modelDigest: null,
      contextLength: props.default_generation_settings.n_ctx,
      slotsTotal: props.total_slots,
      slotsBusy: slots?.filter((slot) => slot.is_processing).length ?? null,
    };
  }

  async countTokens(text: string, signal: AbortSignal): Promise<number> {
    // As /completion reads a prompt: begin-of-sequence added, special tokens recognised. Both defaults differ here.
    const body = { content: text, add_special: true, parse_special: true };
    const { tokens } = await this.#client.json({ method: 'POST', path: '/tokenize', body }, tokensSchema, signal);
    return tokens.length;
  }

  stream(request: CompletionRequest, signal: AbortSignal): AsyncIterable<readonly EngineFrame[]> {
    // No header tells the conversation: with one, the server would go on decoding after the connection is closed.
    const call = { method: 'POST', path: '/completion', body: completionBody(request) } as const;
    const reader = new LlamaCppFrames(this.#client.failures, this.#expectedModelId);
    return this.#client.stream(request, call, reader, signal);
  }

  /** A closed connection is the only cancel there is; the server sees it within about a second, between two batches. */
  cancel({ requestId, slot }: CancelRequest, signal: AbortSignal): Promise<CancelOutcome> {
    const told = 'the connection is closed; the server shows neither slots nor metrics';
    return this.#client.cancel(requestId, (within) => this.#look(slot, within), told, signal);
  }

  async #look(slot: number | null, signal: AbortSignal): Promise<CancelLook> {
    const slots = slot === null ? null : await this.#slots(signal);
    const mine = slots?.find(({ id }) => id === slot);
    if (mine !== undefined) {
      const state = mine.is_processing ? 'busy' : 'idle';
      // Texts to be embedded or ranked go to any slot that is free.
      const explained = this.#client.runsUnary;
      return { free: !mine.is_processing, explained, saw: `GET /slots: slot ${slot} is ${state}` };
    }
    const metrics = await this.#client.ifOffered(() => this.metrics(signal));
    if (metrics === null || metrics.running === null) return { free: null, saw: 'nothing to look at' };
    return this.#client.lookAt(metrics.running + (metrics.waiting ?? 0), 'GET /metrics');
  }

  embed(request: EmbeddingRequest, signal: AbortSignal): Promise<Embeddings> {
    return embedAt(this.#client, request, {}, signal);
  }

  rerank(request: RerankRequest, signal: AbortSignal): Promise<Ranking> {
    return rerankAt(this.#client, request, {}, signal);
  }

  async metrics(signal: AbortSignal): Promise<EngineMetrics> {
    return readMetrics(await this.#client.text({ method: 'GET', path: '/metrics' }, signal));
  }

  /** Offered where the server was started with --slot-save-path. A slot that is taken meanwhile is erased once it is idle. */
  async evict(slot: number, signal: AbortSignal): Promise<boolean> {
    const call = { method: 'POST', path: `/slots/${slot}?action=erase`, body: {} } as const;
    return (await this.#client.ifOffered(() => this.#client.json(call, erasedSchema, signal))) !== null;
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  /** Null where the server was started without them. */
  #slots(signal: AbortSignal) {
    return this.#client.ifOffered(() => this.#client.json({ method: 'GET', path: '/slots' }, slotsSchema, signal));
  }
}

/** llama-server tells no KV usage; a counter it lacks, or one it writes as nan, reads as 0. */
export function readMetrics(text: string): EngineMetrics {
  const samples = readSamples(text);
  const read = (name: string): number => sumOf(samples, `llamacpp:${name}`) ?? 0;
  return {
    running: read('requests_processing'),
    waiting: read('requests_deferred'),
    kvUsage: null,
    tokensInTotal: read('prompt_tokens_total') + read('prompt_tokens_cached_total'),
    tokensOutTotal: read('tokens_predicted_total'),
  };
}
