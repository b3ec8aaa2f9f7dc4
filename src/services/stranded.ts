/**
 * Tasks that name a model which their pool, meanwhile given another, does not serve any more: they go to another pool that
 * does and that their caller left open, or end. The pool's row is what counts, so a reload, its way back and a start with
 * another configuration are all the same.
 */
import type { ErrorEvent } from '../core/frame.js';
import type { PlacementExplanation, PoolCandidate } from '../core/placement.js';
import { replaced, strandedFailure } from '../core/stranded.js';
import type { Clock } from '../runtime/clock.js';
import { Reconciler } from '../runtime/reconciler.js';
import type { Database } from '../store/database.js';
import { AT_ONCE, moveTask, type StrandedRow, strandedTasks } from '../store/stranded.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Dispatcher } from './dispatcher.js';
import { endQueued } from './ending.js';
import type { Fleet } from './fleet.js';
import type { StreamHub } from './streams/hub.js';

const LOOK_EVERY_MS = 500;

export interface StrandedDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly hub: StreamHub;
  readonly fleet: Fleet;
  readonly dispatcher: Dispatcher;
  readonly telemetry: Telemetry;
}

export class Stranded {
  readonly #deps: StrandedDeps;
  readonly #loop: Reconciler;
  #enginesToo = true;

  constructor(deps: StrandedDeps) {
    this.#deps = deps;
    const onError = (name: string, error: unknown) => deps.telemetry.backgroundFailure(name, error);
    const run = (signal: AbortSignal) => this.#sweep(signal);
    this.#loop = new Reconciler({ name: 'stranded tasks', intervalMs: LOOK_EVERY_MS, run, onError });
  }

  start(): void {
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  async #sweep(signal: AbortSignal): Promise<void> {
    const { db, fleet } = this.#deps;
    const found = await strandedTasks(db, fleet.poolIds(), this.#enginesToo);
    for (const task of found) {
      if (signal.aborted) return;
      await this.#settle(task);
    }
    if (found.length === AT_ONCE) this.#loop.wake();
    else this.#enginesToo = false;
  }

  async #settle(task: StrandedRow): Promise<void> {
    const { db, hub, dispatcher, telemetry } = this.#deps;
    const explanation = replaced(task, this.#candidates(task));
    for (const poolId of inOrder(explanation)) {
      if (!(await moveTask(db, task, poolId, { ...explanation, chosen: poolId }))) continue;
      telemetry.movedToPool(task, poolId);
      hub.changed(task.id);
      dispatcher.queued(poolId, task.priority);
      return;
    }
    const error = strandedFailure(task, task.serves);
    const event: ErrorEvent = { kind: 'error', seq: task.tokensOut + 1, atMs: this.#deps.clock.nowMs(), error };
    await endQueued(this.#deps, task, { status: 'DROPPED', event, finishReason: 'reload', error });
  }

  #candidates(task: StrandedRow): PoolCandidate[] {
    const { fleet, dispatcher } = this.#deps;
    return fleet.candidates().map((pool) => ({
      ...pool,
      slotsFree: dispatcher.slotsFree(pool.id),
      queueDepth: dispatcher.queueDepth(pool.id),
      forecast: dispatcher.forecast(pool.id, task),
    }));
  }
}

/** The feasible pools, the best first. */
function inOrder({ candidates }: PlacementExplanation): string[] {
  const feasible = candidates.flatMap(({ poolId, rank }) => (rank === null ? [] : [{ poolId, rank }]));
  return feasible.sort((a, b) => a.rank - b.rank).map(({ poolId }) => poolId);
}
