/**
 * The budget of one run: how much of its session's time it may still use, and what is left for others. It is asked at
 * every group of frames, and takes another slice of time before the last one is used up, so that nobody waits for it.
 */
import { type BudgetLeft, TIME_SLICE_MS } from '../core/budget.js';
import { LEASE_TTL_MS } from '../core/lease.js';
import type { Clock } from '../runtime/clock.js';
import { extendTime, leftForTask } from '../store/budgets.js';
import type { Database } from '../store/database.js';
import type { ClaimedTask } from '../store/tasks.js';

/** With less than this ahead of it a run asks for more, ms. */
const ASK_BEFORE_MS = 2_000;
/** How far a run may go beyond what it has while the database owes it an answer, ms; it is not charged for that. */
const GRACE_MS = 1_000;
const ASK_AGAIN_MS = 250;
/** The same while the database cannot be asked: other streams live on their leases for so long. */
const OUTAGE_GRACE_MS = LEASE_TTL_MS;

export interface BudgetMeterDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly onError: (name: string, error: unknown) => void;
}

export class BudgetMeter {
  readonly #deps: BudgetMeterDeps;
  readonly #task: ClaimedTask;
  #timeMs: number;
  /** What it still had when it was last told that there is no more; null: it was not. */
  #refusedAtMs: number | null = null;
  #asking = false;
  #unanswered = false;
  #askNotBeforeMs = 0;
  #reading = false;
  #left: BudgetLeft | null = null;

  constructor(deps: BudgetMeterDeps, task: ClaimedTask) {
    this.#deps = deps;
    this.#task = task;
    this.#timeMs = task.budgetTimeMs;
  }

  /** What other tasks of its session may reserve, as last read; it is read anew for the next who asks. null: no budget. */
  left(): BudgetLeft | null {
    void this.read();
    return this.#left;
  }

  /** Never rejects. */
  async read(): Promise<void> {
    if (!this.#task.hasBudget || this.#reading) return;
    this.#reading = true;
    const left = await leftForTask(this.#deps.db, this.#task.id).catch((error: unknown) => {
      this.#deps.onError('budget', error);
      return this.#left;
    });
    this.#left = left;
    this.#reading = false;
  }

  /** @param decodedMs since its first token. @returns whether the time of its session has run out: it is to be cut off. */
  isOver(decodedMs: number): boolean {
    if (this.#timeMs === 0) return false;
    const aheadMs = this.#timeMs - decodedMs;
    // Told once that there is no more, it asks again when it needs some: another task may have given back what it had.
    const mayAsk = this.#refusedAtMs === null || (this.#refusedAtMs > 0 && aheadMs <= 0);
    if (aheadMs < ASK_BEFORE_MS && mayAsk && !this.#asking) void this.#askForMore(aheadMs);
    return (
      aheadMs <= 0 && ((this.#refusedAtMs ?? 1) <= 0 || aheadMs < (this.#unanswered ? -OUTAGE_GRACE_MS : -GRACE_MS))
    );
  }

  async #askForMore(aheadMs: number): Promise<void> {
    const { db, clock, onError } = this.#deps;
    if (clock.monotonicMs() < this.#askNotBeforeMs) return;
    this.#asking = true;
    try {
      const moreMs = await extendTime(db, this.#task, TIME_SLICE_MS);
      this.#timeMs += moreMs;
      this.#unanswered = false;
      this.#refusedAtMs = moreMs === 0 ? aheadMs : null;
    } catch (error) {
      this.#unanswered = true;
      this.#askNotBeforeMs = clock.monotonicMs() + ASK_AGAIN_MS;
      onError('budget', error);
    } finally {
      this.#asking = false;
    }
  }
}
