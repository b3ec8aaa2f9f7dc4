/**
 * The law of a task's event stream.
 *
 *   started (seq 0) ─► token 0 (seq 1) ─► token 1 (seq 2) ─► … ─► end | error (seq tokens + 1)
 *
 * 1. Token i has seq i + 1, so a position means the same thing before and after a replay on another engine.
 * 2. `metrics` and `seam` stand after the token whose seq they carry; they take no position of their own.
 * 3. A reader that comes back with `after: n` gets every token with seq > n, and always the terminal event.
 * 4. The terminal event is last; appending after it is refused.
 * 5. A task that is no completion has no tokens: its `end` (seq 1) names the result.
 */
import type { BudgetLeft } from './budget.js';
import type { TaskFailure } from './errors.js';
import type { PromptCache } from './session.js';

export interface StartedEvent {
  readonly kind: 'started';
  readonly seq: 0;
  readonly atMs: number;
  readonly queuePosition: number;
  readonly predictedStartMs: number;
  readonly replicaId: string | null;
  readonly seed: string;
  /** Left out in older logs. */
  readonly promptCache?: PromptCache;
}
/** Consecutive tokens; `seq` is that of the last one, so that it can be handed back as `after`. */
export interface TokensEvent {
  readonly kind: 'tokens';
  readonly seq: number;
  readonly atMs: number;
  readonly firstIndex: number;
  readonly tokens: readonly string[];
}
export interface MetricsEvent {
  readonly kind: 'metrics';
  readonly seq: number;
  readonly atMs: number;
  readonly queueDepth: number;
  /** It runs where its session ran last, on the same engine process: a part of its prompt may still be in the cache. */
  readonly kvWarmth: boolean;
  /** Of ending before the deadline, 0 … 1; null or left out: nothing to judge by. */
  readonly onTimeProbability?: number | null;
  /** What its session had left for other tasks; null or left out: it has no budget. */
  readonly budget?: BudgetLeft | null;
}
/** The run moved to another engine; the tokens before it were produced again and are the same. */
export interface SeamEvent {
  readonly kind: 'seam';
  readonly seq: number;
  readonly atMs: number;
  readonly index: number;
  readonly cause: string;
  readonly attempt: number;
}
export interface EndEvent {
  readonly kind: 'end';
  readonly seq: number;
  readonly atMs: number;
  readonly tokensOut: number;
  readonly decodeMs: number;
  readonly canceled: boolean;
  readonly finishReason: string;
  /** Id of the artifact that holds what an embedding or rerank task gave. */
  readonly resultId?: string;
}
export interface ErrorEvent {
  readonly kind: 'error';
  readonly seq: number;
  readonly atMs: number;
  readonly error: TaskFailure;
}

export type StreamEvent = StartedEvent | TokensEvent | MetricsEvent | SeamEvent | EndEvent | ErrorEvent;
export type TerminalEvent = EndEvent | ErrorEvent;
export type MarkEvent = MetricsEvent | SeamEvent;

export function isTerminalEvent(event: StreamEvent): event is TerminalEvent {
  return event.kind === 'end' || event.kind === 'error';
}

/** The part of a stored or live event that a reader who has everything up to `after` still misses; null when nothing. */
export function eventAfter(event: StreamEvent, after: number): StreamEvent | null {
  if (isTerminalEvent(event)) return event;
  if (event.kind !== 'tokens') return event.seq > after ? event : null;
  if (event.seq <= after) return null;
  const missing = event.seq - after;
  if (missing >= event.tokens.length) return event;
  const skipped = event.tokens.length - missing;
  return { ...event, firstIndex: event.firstIndex + skipped, tokens: event.tokens.slice(skipped) };
}
