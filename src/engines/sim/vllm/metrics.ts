/** vLLM's Prometheus page: every series carries the engine's number and the model's name. */
import type { DecodeReport, SimEngine } from '../engine.js';
import { type Family, familyText, Histogram, type Sample } from '../prometheus.js';

/** Upper bounds, seconds. */
const FIRST_TOKEN_BOUNDS = [
  ...[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75],
  ...[1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560],
];
const BETWEEN_TOKENS_BOUNDS = [
  ...[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75],
  ...[1, 2.5, 5, 7.5, 10, 20, 40, 80],
];
const REQUEST_BOUNDS = [
  ...[0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680],
];
const TOKENS_PER_BLOCK = 16;

/** How long finished completions took; the real server tells it from each token on. */
export class Latencies {
  readonly #firstToken = new Histogram(FIRST_TOKEN_BOUNDS);
  readonly #betweenTokens = new Histogram(BETWEEN_TOKENS_BOUNDS);
  readonly #queue = new Histogram(REQUEST_BOUNDS);
  readonly #whole = new Histogram(REQUEST_BOUNDS);

  /** The times between tokens are told as their mean. */
  add({ queueMs, promptMs, decodeMs, tokens }: DecodeReport): void {
    this.#firstToken.add((queueMs + promptMs) / 1000);
    if (tokens > 1) this.#betweenTokens.add(decodeMs / 1000 / (tokens - 1), tokens - 1);
    this.#queue.add(queueMs / 1000);
    this.#whole.add((queueMs + promptMs + decodeMs) / 1000);
  }

  families(labels: Readonly<Record<string, string>>): readonly Family[] {
    const rows = [
      ['time_to_first_token_seconds', 'Histogram of time to first token in seconds.', this.#firstToken],
      ['inter_token_latency_seconds', 'Histogram of inter-token latency in seconds.', this.#betweenTokens],
      ['e2e_request_latency_seconds', 'Histogram of e2e request latency in seconds.', this.#whole],
      ['request_queue_time_seconds', 'Histogram of time spent in WAITING phase for request.', this.#queue],
    ] as const;
    return rows.map(([name, help, histogram]) => {
      return { name: `vllm:${name}`, type: 'histogram', help, samples: histogram.samples(labels, goFloat) };
    });
  }
}

/** Gauges change with the engine's steps and totals with each request that leaves, in the real server with each token. */
export function metricsText(engine: SimEngine, latencies: Latencies): string {
  const labels = { engine: '0', model_name: engine.toldModel };
  const one = (name: string, type: Family['type'], help: string, value: number): Family => {
    return { name: `vllm:${name}`, type, help, samples: [{ labels, value }] };
  };
  const { slots, counters } = engine;
  const families: readonly Family[] = [
    one('num_requests_running', 'gauge', 'Number of requests in model execution batches.', slots.busyCount),
    one('num_requests_waiting', 'gauge', 'Number of requests waiting to be processed.', slots.deferredCount),
    one('kv_cache_usage_perc', 'gauge', 'KV-cache usage. 1 means 100 percent usage.', kvUsage(engine)),
    one('prefix_cache_queries_total', 'counter', 'Prefix cache queries, in tokens.', counters.promptTokens),
    one('prefix_cache_hits_total', 'counter', 'Prefix cache hits, in tokens.', 0), // it caches nothing
    one('num_preemptions_total', 'counter', 'Cumulative number of preemption from the engine.', 0),
    one('prompt_tokens_total', 'counter', 'Number of prefill tokens processed.', counters.promptTokens),
    one('generation_tokens_total', 'counter', 'Number of generation tokens processed.', counters.decodedTokens),
    successes(engine, labels),
    ...latencies.families(labels),
    cacheConfig(engine),
  ];
  return families.map((family) => familyText(family, goFloat)).join('');
}

function successes({ completions, counters }: SimEngine, labels: Readonly<Record<string, string>>): Family {
  const byReason = {
    stop: counters.stopped,
    length: completions.finished - counters.stopped,
    abort: completions.abandoned,
    error: 0,
  };
  const samples = Object.entries(byReason).map(
    ([reason, value]): Sample => ({ labels: { ...labels, finished_reason: reason }, value }),
  );
  const help = 'Count of successfully processed requests.';
  return { name: 'vllm:request_success_total', type: 'counter', help, samples };
}

/** What the cache is like stands in the labels. */
function cacheConfig({ config }: SimEngine): Family {
  const blocks = Math.ceil(config.contextTokens / TOKENS_PER_BLOCK) * config.slots;
  const labels = {
    block_size: String(TOKENS_PER_BLOCK),
    cache_dtype: 'auto',
    enable_prefix_caching: 'False',
    engine: '0',
    gpu_memory_utilization: '0.9',
    num_gpu_blocks: String(blocks),
  };
  const help = 'Information of the LLMEngine CacheConfig';
  return { name: 'vllm:cache_config_info', type: 'gauge', help, samples: [{ labels, value: 1 }] };
}

/** 0 … 1, of the room that all sequences at their longest would take. */
function kvUsage({ slots, config }: SimEngine): number {
  const held = slots.slots.map(({ busy, task }) => (busy && task !== null ? task.promptTokens + task.decoded : 0));
  return held.reduce((sum, tokens) => sum + tokens, 0) / (config.slots * config.contextTokens);
}

/** Python's client writes numbers as Go would: `0.0`, `55.0`, and from a million on `1.5e+06`. */
export function goFloat(value: number): string {
  const text = Number.isInteger(value) ? `${value}.0` : String(value);
  const point = text.indexOf('.');
  if (value <= 0 || point <= 6) return text;
  const digits = `${text[0]}.${text.slice(1, point)}${text.slice(point + 1)}`.replace(/[0.]+$/, '');
  return `${digits}e+0${point - 1}`;
}
