/**
 * What the router counts, and its `/metrics` page. A metric is on the page once it has had a value, none has a label for
 * the model, and the capacity of the batch is never there: the router learns it before its recorder is installed.
 */
import type { SimEngine } from '../engine.js';
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

class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #count = 0;
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  add(value: number): void {
    this.#count += 1;
    this.#sum += value;
    for (const [place, bound] of this.#bounds.entries()) {
      if (value <= bound) this.#counts[place] = (this.#counts[place] ?? 0) + 1;
    }
  }

  lines(name: string): readonly string[] {
    if (this.#count === 0) return [];
    const buckets = this.#bounds.map((bound, place) => `${name}_bucket{le="${bound}"} ${this.#counts[place]}`);
    const whole = [`${name}_bucket{le="+Inf"} ${this.#count}`, `${name}_sum ${this.#sum}`];
    return [`# TYPE ${name} histogram`, ...buckets, ...whole, `${name}_count ${this.#count}`];
  }
}

export function metricsText(engine: SimEngine, stats: RouterStats): string {
  const families = [
    ...counters(engine, stats),
    ...(stats.requests === 0 ? [] : gauges(engine)),
    ...Object.entries(stats.histograms).map(([name, histogram]) => histogram.lines(`tgi_${name}`)),
  ].filter((lines) => lines.length > 0);
  // A blank line after each.
  return families.map((lines) => [...lines, ''].map((line) => `${line}\n`).join('')).join('');
}

/** A shard call that was begun and has neither succeeded nor failed shows in `count` alone. */
function counters({ slots, counters: decoded, completions }: SimEngine, stats: RouterStats): string[][] {
  const { prefilling, decoding } = atWork(slots.slots);
  const prefills = completions.started;
  const decodes = decoded.decodedTokens;
  return [
    counter('request_count', [['', stats.requests]]),
    counter('request_success', [['', stats.successes]]),
    counter(
      'request_failure',
      [...stats.failures].map(([failure, value]) => [`{err="${failure}"}`, value]),
    ),
    counter('batch_inference_count', [
      ['{method="prefill"}', prefills],
      ['{method="decode"}', decodes + Math.min(decoding.length, 1)],
    ]),
    counter('batch_inference_success', [
      ['{method="prefill"}', prefills - prefilling.length],
      ['{method="decode"}', decodes],
    ]),
  ];
}

function counter(name: string, series: readonly (readonly [labels: string, value: number])[]): string[] {
  const lines = series.filter(([, value]) => value > 0).map(([labels, value]) => `tgi_${name}${labels} ${value}`);
  return lines.length === 0 ? [] : [`# TYPE tgi_${name} counter`, ...lines];
}

/** A request stands in the queue, then nowhere while its prompt is worked on, then in the batch. */
function gauges({ slots, config }: SimEngine): string[][] {
  const { decoding } = atWork(slots.slots);
  const mayGrowTo = decoding.reduce((sum, { task }) => sum + (task?.promptTokens ?? 0) + (task?.maxTokens ?? 0), 0);
  const rows = [
    ['batch_current_size', 'Current batch size', decoding.length],
    ['batch_current_max_tokens', 'Maximum tokens for the current batch', Math.min(mayGrowTo, capacityTokens(config))],
    ['queue_size', 'Current queue size', slots.deferredCount],
  ] as const;
  return rows.map(([name, help, value]) => [
    `# HELP tgi_${name} ${help}`,
    `# TYPE tgi_${name} gauge`,
    `tgi_${name} ${value}`,
  ]);
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
