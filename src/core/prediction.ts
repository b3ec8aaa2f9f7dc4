/**
 * When a waiting task will start. Pure. A pool is `slotsTotal` servers; every slot that is held is given back once after
 * what is left of its service, and then again after each whole service time. The k-th slot to come back is the start of
 * the task with k - 1 others between it and the free slots.
 *
 * 1. Never earlier for a place further back. 2. p90 >= p50 >= 0, finite. 3. 0 where a slot is free. 4. Same input, same quote.
 */
import type { StartBasis } from './queue.js';

/** How long tasks hold a slot, ms: exponentially weighted, so that the last ones count most. */
export interface ServiceTime {
  readonly samples: number;
  readonly meanMs: number;
  /** Of the squared deviation from the mean, ms². */
  readonly varianceMs2: number;
}

export const UNKNOWN_SERVICE: ServiceTime = { samples: 0, meanMs: 0, varianceMs2: 0 };

/** With fewer samples than this a quote would be a guess; none is given. */
export const MIN_SAMPLES = 5;
const LEAST_WEIGHT = 0.2;
/** Samples that an average with that weight remembers: (2 - w) / w. */
const REMEMBERED_SAMPLES = (2 - LEAST_WEIGHT) / LEAST_WEIGHT;
/** Standard deviations from the middle of a normal distribution to its 90th percentile. */
const Z90 = 1.2816;

/** Takes one more service into the averages. The first samples weigh the same; a sample that is no time is left out. */
export function observeService(known: ServiceTime, sampleMs: number): ServiceTime {
  if (!Number.isFinite(sampleMs) || sampleMs < 0) return known;
  const samples = known.samples + 1;
  const weight = Math.max(LEAST_WEIGHT, 1 / samples);
  const difference = sampleMs - known.meanMs;
  return {
    samples,
    meanMs: known.meanMs + weight * difference,
    varianceMs2: (1 - weight) * (known.varianceMs2 + weight * difference * difference),
  };
}

export interface Share {
  /** How many tasks of this kind are ahead, > 0. */
  readonly tasks: number;
  readonly service: ServiceTime;
}

/** Service time of work of several kinds together. It is known as well as the least known of them. */
export function mixServices(shares: readonly Share[]): ServiceTime {
  const total = shares.reduce((sum, share) => sum + share.tasks, 0);
  if (total <= 0) return UNKNOWN_SERVICE;
  const mean = (of: (service: ServiceTime) => number) =>
    shares.reduce((sum, { tasks, service }) => sum + (tasks / total) * of(service), 0);
  const meanMs = mean((service) => service.meanMs);
  const squaredMs2 = mean((service) => service.varianceMs2 + service.meanMs * service.meanMs);
  return {
    samples: Math.min(...shares.map(({ service }) => service.samples)),
    meanMs,
    varianceMs2: Math.max(0, squaredMs2 - meanMs * meanMs),
  };
}

/**
 * What is left of a service after `heldMs` of it. Regular services end at their mean; the more they scatter (at a
 * deviation as large as the mean they have no memory), the less their age says.
 */
function remainingMs(heldMs: number, basis: StartBasis): number {
  const { serviceMs, deviationMs = 0 } = basis;
  if (serviceMs === 0) return 0;
  const scatter = Math.min(1, (deviationMs / serviceMs) ** 2);
  return Math.max(0, serviceMs - heldMs) + scatter * Math.min(Math.max(0, heldMs), serviceMs);
}

/** When the k-th slot is given back, counted from now, ms; k from 1. */
function returnMs(k: number, basis: StartBasis): number {
  const { serviceMs } = basis;
  const slots = Math.max(1, basis.slotsTotal);
  const left = (basis.heldMs ?? []).slice(0, slots).map((ms) => remainingMs(ms, basis));
  // A free slot is taken now, by a task that is ahead. One whose age nobody knows comes back at its turn of an even spread.
  const free = Math.min(Math.max(0, basis.slotsFree), slots - left.length);
  const unknown = slots - left.length - free;
  for (let n = 0; n < free; n += 1) left.push(serviceMs);
  for (let n = 1; n <= unknown; n += 1) left.push((serviceMs * n) / unknown);
  left.sort((a, b) => a - b);
  return (left[(k - 1) % slots] ?? serviceMs) + Math.floor((k - 1) / slots) * serviceMs;
}

/** Places between the free slots and this position: how many slots must come back first. */
function returnsNeeded(position: number, basis: StartBasis): number {
  return Math.max(0, Math.floor(position) - Math.max(0, basis.slotsFree) + 1);
}

/** Expected wait until the task with `position` others ahead of it gets a slot, ms; by a default where nothing is measured. */
export function predictStartMs(position: number, basis: StartBasis): number {
  const k = returnsNeeded(position, basis);
  return k === 0 ? 0 : Math.round(returnMs(k, basis));
}

/** `slot_free`: nothing had to be predicted. `service_times`: from what was measured. */
export type QuoteBasis = 'slot_free' | 'service_times';

export interface StartQuote {
  readonly p50Ms: number;
  readonly p90Ms: number;
  /** Measured services that it rests on. */
  readonly sampleCount: number;
  readonly basis: QuoteBasis;
}

export type QuoteGap = 'THIN_DATA' | 'POOL_UNREADY';

export type QuoteOutcome =
  | { readonly quote: StartQuote; readonly withheld: null }
  | { readonly quote: null; readonly withheld: QuoteGap };

/** The quote for a task with `position` others ahead of it, or why there is none. */
export function quoteStart(position: number, basis: StartBasis): QuoteOutcome {
  const { slotsReady, samples = 0, serviceMs, deviationMs = 0 } = basis;
  if (slotsReady === 0) return { quote: null, withheld: 'POOL_UNREADY' };
  const k = returnsNeeded(position, basis);
  if (k === 0) {
    return { quote: { p50Ms: 0, p90Ms: 0, sampleCount: samples, basis: 'slot_free' }, withheld: null };
  }
  if (samples < MIN_SAMPLES) return { quote: null, withheld: 'THIN_DATA' };
  const middleMs = returnMs(k, basis);
  // Of the k-th return of a pool whose services scatter by d: k d² / slots². Beside it the doubt about the mean itself,
  // which grows with every round that it is used for.
  const slots = Math.max(1, basis.slotsTotal);
  const ownMs2 = (k * deviationMs * deviationMs) / (slots * slots);
  const rounds = serviceMs === 0 ? 0 : middleMs / serviceMs;
  const meanMs2 = (rounds * deviationMs) ** 2 / Math.min(samples, REMEMBERED_SAMPLES);
  const p50Ms = Math.round(middleMs);
  const p90Ms = Math.max(p50Ms, Math.round(middleMs + Z90 * Math.sqrt(ownMs2 + meanMs2)));
  return { quote: { p50Ms, p90Ms, sampleCount: samples, basis: 'service_times' }, withheld: null };
}

/** A quote is not finer than this: the time that claiming a free slot takes. */
export const GRADE_TOLERANCE_MS = 50;

export type QuoteVerdict = 'within_p50' | 'within_p90' | 'over_p90';

/** How a quote did against the wait that came, ms. */
export function gradeQuote(quote: Pick<StartQuote, 'p50Ms' | 'p90Ms'>, actualMs: number): QuoteVerdict {
  if (actualMs <= quote.p50Ms + GRADE_TOLERANCE_MS) return 'within_p50';
  return actualMs <= quote.p90Ms + GRADE_TOLERANCE_MS ? 'within_p90' : 'over_p90';
}

/** What is known about a run that goes on, and how it is paced. */
export interface Pace {
  /** Until the deadline, ms. */
  readonly remainingMs: number;
  /** At most so many are to come. */
  readonly tokensLeft: number;
  /** Until the first of them, ms; 0 when they are coming already. */
  readonly firstTokenMs: number;
  readonly tokensPerSecond: number;
}

/** Speeds wander: the time a run still needs is taken to scatter by this share of itself. */
const PACE_SCATTER = 0.15;

/**
 * How likely the run ends before its deadline, 0 … 1, if it uses all tokens it may: a lower bound for one that stops by
 * itself. Rises with time left, falls with tokens left.
 */
export function onTimeProbability({ remainingMs, tokensLeft, firstTokenMs, tokensPerSecond }: Pace): number {
  if (tokensLeft <= 0) return 1;
  if (remainingMs <= 0 || !(tokensPerSecond > 0)) return 0;
  const neededMs = firstTokenMs + (tokensLeft / tokensPerSecond) * 1000;
  if (neededMs === 0) return 1;
  // The logistic curve stands in for the normal distribution; 1.702 makes them agree to one percent.
  const deviations = (remainingMs / neededMs - 1) / PACE_SCATTER;
  return Math.round(1000 / (1 + Math.exp(-1.702 * deviations))) / 1000;
}
