/** What one run tells beside its tokens: the metrics frames of its stream, and its pace to those who plan by it. */
import type { BudgetLeft } from '../core/budget.js';
import type { MetricsEvent } from '../core/frame.js';
import { onTimeProbability } from '../core/prediction.js';
import type { Clock } from '../runtime/clock.js';
import type { ClaimedTask } from '../store/tasks.js';
import type { Fleet, ReadyReplica } from './fleet.js';
import type { Quotes } from './quotes.js';
import type { SessionPlaces } from './sessionPlaces.js';

/** A stream that is shorter has one frame, at its start. */
const FRAME_EVERY_MS = 2_000;
/** From so many tokens on a run's own speed counts, not that of the runs before it. */
const OWN_SPEED_TOKENS = 8;

export interface RunReportDeps {
  readonly clock: Clock;
  readonly fleet: Fleet;
  readonly quotes: Quotes;
  readonly places: SessionPlaces;
  readonly queueDepth: (poolId: string) => number;
  readonly onError: (name: string, error: unknown) => void;
  readonly budgetLeft: () => BudgetLeft | null;
}

export class RunReport {
  readonly #deps: RunReportDeps;
  readonly #task: ClaimedTask;
  readonly #replica: ReadyReplica;
  /** It runs where its session ran last, on the same engine process. */
  readonly kvWarmth: boolean;
  #first: { readonly atMs: number; readonly tokens: number } | null = null;
  #lastFrameAtMs = 0;
  /** Settles when the place of its session is written; never rejects. */
  placed: Promise<void> = Promise.resolve();

  constructor(deps: RunReportDeps, task: ClaimedTask, replica: ReadyReplica) {
    this.#deps = deps;
    this.#task = task;
    this.#replica = replica;
    this.kvWarmth = task.kvHint !== 'cold' && deps.places.isWarm(task.sessionId, replica, task.createdAt.getTime());
  }

  /** @param tokens that the stream has with it. */
  firstTokenCame(sinceLeaseMs: number, tokens: number): void {
    this.#first = { atMs: this.#deps.clock.monotonicMs(), tokens };
    this.#tell(sinceLeaseMs, null);
    this.placed = this.#deps.places
      .ran(this.#task, this.#replica)
      .catch((error: unknown) => this.#deps.onError('session place', error));
  }

  /** By the engine's own word; null: it had none. */
  ended(end: {
    readonly tokensIn: number | null;
    readonly tokensOut: number;
    readonly tokensPerSecond: number | null;
  }): void {
    const { tokensIn, tokensOut, tokensPerSecond } = end;
    this.#tell(null, tokensPerSecond);
    if (tokensIn !== null) this.#deps.places.ended(this.#task, this.#replica, tokensIn + tokensOut);
  }

  #tell(firstTokenMs: number | null, tokensPerSecond: number | null): void {
    this.#deps.fleet.progressed(this.#replica.id, { firstTokenMs, tokensPerSecond });
    this.#deps.quotes.progressed(this.#replica.id, { firstTokenMs, tokensPerSecond });
  }

  /** @param tokens that the stream has, and its position. */
  frame(tokens: number): MetricsEvent {
    const { clock, queueDepth, budgetLeft } = this.#deps;
    const budget = budgetLeft();
    this.#lastFrameAtMs = clock.monotonicMs();
    return {
      kind: 'metrics',
      seq: tokens,
      atMs: clock.nowMs(),
      queueDepth: queueDepth(this.#task.poolId),
      kvWarmth: this.kvWarmth,
      onTimeProbability: this.#onTime(tokens),
      ...(budget !== null && { budget }),
    };
  }

  /** The next frame, when it is time for one. */
  frameDue(tokens: number): MetricsEvent | null {
    return this.#deps.clock.monotonicMs() - this.#lastFrameAtMs < FRAME_EVERY_MS ? null : this.frame(tokens);
  }

  #onTime(tokens: number): number | null {
    const known = this.#deps.quotes.speed(this.#replica.id);
    const tokensPerSecond = this.#ownSpeed(tokens) ?? known?.tokensPerSecond ?? null;
    if (tokensPerSecond === null) return null;
    return onTimeProbability({
      remainingMs: this.#task.deadlineAt.getTime() - this.#deps.clock.nowMs(),
      tokensLeft: this.#task.maxTokens - tokens,
      firstTokenMs: this.#first === null ? (known?.firstTokenMs ?? 0) : 0,
      tokensPerSecond,
    });
  }

  #ownSpeed(tokens: number): number | null {
    if (this.#first === null) return null;
    const made = tokens - this.#first.tokens;
    const elapsedMs = this.#deps.clock.monotonicMs() - this.#first.atMs;
    return made < OWN_SPEED_TOKENS || elapsedMs <= 0 ? null : (made * 1000) / elapsedMs;
  }
}
