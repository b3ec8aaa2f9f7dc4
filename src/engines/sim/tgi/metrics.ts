/**
 * What the router counts, and its `/metrics` page. A metric is on the page once it has had a value, none has a label for
 * the model, and the capacity of the batch is never there: the router learns it before its recorder is installed.
 */
import type { SimEngine } from '../engine.js';
import { type Family, familyText, Histogram, type Sample } from '../prometheus.js';
import type { Slot } from '../slots.js';

type Failure = 'overloaded' | 'validation' | 'generation' | 'dropped';

/** Upper bounds in seconds: 0.00015, and from there each half as large again. */
const DURATION_BOUNDS = Array.from({ length: 35 }, (_, place) => 0.0001 * 1.5 ** (place + 1));

export class RouterStats {
  /** Requests that hold one of the router's permits. */
  permits = 0;
  requests = 0;
  successes = 0;
  readonly failures = new Map<Failure, number>();
  readonly histograms: Readonly<Record<HistogramName, Histogram>>;

  constructor(maxTotalTokens: number) {
    const tokens = (most: number): Histogram =>
      new Histogram(Array.from({ length: 100 }, (_, place) => (most / 100) * (place + 1)));
    this.histograms = {
      request_input_length: tokens(maxTotalTokens - 1),
      request_max_new_tokens: tokens(maxTotalTokens),
      request_generated_tokens: tokens(maxTotalTokens),
      request_duration: new Histogram(DURATION_BOUNDS),
      request_queue_duration: new Histogram(DURATION_BOUNDS),
      request_inference_duration: new Histogram(DURATION_BOUNDS),
      request_mean_time_per_token_duration: new Histogram(DURATION_BOUNDS),
    };
  }

  fail(failure: Failure): void {
    this.failures.set(failure, (this.failures.get(failure) ?? 0) + 1);
  }

  /** Only a request that ended well counts its tokens. Times in ms. */
  succeed(tokens: number, times: { readonly total: number; readonly queue: number; readonly inference: number }): void {
    this.successes += 1;
    this.histograms.request_generated_tokens.add(tokens);
    this.histograms.request_duration.add(times.total / 1000);
    this.histograms.request_queue_duration.add(times.queue / 1000);
    this.histograms.request_inference_duration.add(times.inference / 1000);
    this.histograms.request_mean_time_per_token_duration.add(times.inference / 1000 / tokens);
  }
}

type HistogramName =
  | 'request_input_length'
  | 'request_max_new_tokens'
  | 'request_generated_tokens'
  | 'request_duration'
  | 'request_queue_duration'
  | 'request_inference_duration'
  | 'request_mean_time_per_token_duration';

export function metricsText(engine: SimEngine, stats: RouterStats): string {
  const families: readonly Family[] = [
    ...counters(engine, stats),
    ...(stats.requests === 0 ? [] : gauges(engine)),
    ...Object.entries(stats.histograms).map(([name, histogram]): Family => {
      return { name: `tgi_${name}`, type: 'histogram', samples: histogram.isEmpty ? [] : histogram.samples() };
    }),
  ];
  // A blank line after each.
  return families
    .filter(({ samples }) => samples.length > 0)
    .map((family) => `${familyText(family)}\n`)
    .join('');
}

/** A shard call that was begun and has neither succeeded nor failed shows in `count` alone. */
function counters({ slots, counters: decoded, completions }: SimEngine, stats: RouterStats): readonly Family[] {
  const { prefilling, decoding } = atWork(slots.slots);
  const prefills = completions.started;
  const decodes = decoded.decodedTokens;
  return [
    counter('request_count', [{ value: stats.requests }]),
    counter('request_success', [{ value: stats.successes }]),
    counter(
      'request_failure',
      [...stats.failures].map(([err, value]) => ({ labels: { err }, value })),
    ),
    counter('batch_inference_count', byMethod(prefills, decodes + Math.min(decoding.length, 1))),
    counter('batch_inference_success', byMethod(prefills - prefilling.length, decodes)),
  ];
}

function byMethod(prefill: number, decode: number): readonly Sample[] {
  return Object.entries({ prefill, decode }).map(([method, value]) => ({ labels: { method }, value }));
}

function counter(name: string, samples: readonly Sample[]): Family {
  return { name: `tgi_${name}`, type: 'counter', samples: samples.filter(({ value }) => value > 0) };
}

/** A request stands in the queue, then nowhere while its prompt is worked on, then in the batch. */
function gauges({ slots, config }: SimEngine): readonly Family[] {
  const { decoding } = atWork(slots.slots);
  const mayGrowTo = decoding.reduce((sum, { task }) => sum + (task?.promptTokens ?? 0) + (task?.maxTokens ?? 0), 0);
  const rows = [
    ['batch_current_size', 'Current batch size', decoding.length],
    ['batch_current_max_tokens', 'Maximum tokens for the current batch', Math.min(mayGrowTo, capacityTokens(config))],
    ['queue_size', 'Current queue size', slots.deferredCount],
  ] as const;
  return rows.map(([name, help, value]) => ({ name: `tgi_${name}`, type: 'gauge', help, samples: [{ value }] }));
}

/** All tokens that fit into the GPU's memory. */
export function capacityTokens({ contextTokens, slots }: SimEngine['config']): number {
  return contextTokens * slots;
}

function atWork(slots: readonly Slot[]): { readonly prefilling: readonly Slot[]; readonly decoding: readonly Slot[] } {
  const busy = slots.filter((slot) => slot.busy);
  const hasTokens = ({ task }: Slot): boolean => task !== null && task.decoded > 0;
  return { prefilling: busy.filter((slot) => !hasTokens(slot)), decoding: busy.filter(hasTokens) };
}
