/**
 * Gives free slots to waiting tasks: reads which slots are free, offers them best first, and starts a run for every
 * task that took one. It takes no input; whatever might have changed something only wakes it.
 */
import { LEASE_TTL_MS } from '../core/lease.js';
import { type Forecast, slotOrder } from '../core/placement.js';
import { type QuoteOutcome, quoteStart } from '../core/prediction.js';
import type { StartBasis } from '../core/queue.js';
import type { Priority } from '../core/task.js';
import { Reconciler } from '../runtime/reconciler.js';
import { claimTasks, type LaneDepth, laneDepths } from '../store/tasks.js';
import { Attempt, type AttemptDeps } from './attempt.js';
import type { ReadyReplica } from './fleet.js';

const IDLE_LOOK_MS = 1_000;
const LANES_EVERY_MS = 500;
const MAX_CLAIM = 64;

export class Dispatcher {
  readonly #deps: AttemptDeps;
  readonly #attempts = new Map<string, Attempt>();
  readonly #loop: Reconciler;
  readonly #laneLoop: Reconciler;
  #lanes: readonly LaneDepth[] = [];
  readonly #wakeUps = new Set<NodeJS.Timeout>();
  #closing = false;

  constructor(deps: Omit<AttemptDeps, 'onSettled' | 'queueDepth'>) {
    this.#deps = {
      ...deps,
      queueDepth: (poolId) => this.queueDepth(poolId),
      onSettled: (attempt, heldMs) => this.#settled(attempt, heldMs),
    };
    const onError = (name: string, error: unknown) => deps.telemetry.backgroundFailure(name, error);
    this.#loop = new Reconciler({ name: 'dispatch', intervalMs: IDLE_LOOK_MS, run: () => this.#dispatch(), onError });
    this.#laneLoop = new Reconciler({
      name: 'queue depth',
      intervalMs: LANES_EVERY_MS,
      run: () => this.#readLanes(),
      onError,
    });
  }

  start(): void {
    this.#loop.start();
    this.#laneLoop.start();
  }

  wake(): void {
    this.#loop.wake();
  }

  /** Takes no more tasks; the ones that run are stopped, and go back to their queue where that is honest. */
  async stop(): Promise<void> {
    this.#closing = true;
    for (const timer of this.#wakeUps) clearTimeout(timer);
    await Promise.all([this.#loop.stop(), this.#laneLoop.stop()]);
    await Promise.all(
      [...this.#attempts.values()].map((attempt) => attempt.interrupt('the control plane was stopped')),
    );
  }

  attempt(taskId: string): Attempt | undefined {
    return this.#attempts.get(taskId);
  }

  attemptsOf(poolId: string): Attempt[] {
    return [...this.#attempts.values()].filter((attempt) => attempt.task.poolId === poolId);
  }

  /** Waiting tasks of a pool, as of at most half a second ago. */
  queueDepth(poolId: string): number {
    return this.#lanes.reduce((sum, lane) => (lane.poolId === poolId ? sum + lane.depth : sum), 0);
  }

  slotsFree(poolId: string): number {
    return this.#deps.fleet
      .ready(poolId)
      .reduce((sum, replica) => sum + replica.slots - this.#deps.leases.takenSlots(replica.id).size, 0);
  }

  /** What is known about a pool's speed now; the basis of a start prediction for a task of that priority. */
  startBasis(poolId: string, priority: Priority): StartBasis {
    const { fleet, quotes } = this.#deps;
    return quotes.basis(poolId, priority, {
      slotsTotal: fleet.limits(poolId).slotsTotal,
      slotsReady: fleet.ready(poolId).reduce((sum, replica) => sum + replica.slots, 0),
      slotsFree: this.slotsFree(poolId),
      running: this.attemptsOf(poolId).map(({ task, heldMs }) => ({ priority: task.priority, heldMs })),
      waiting: this.#lanesAhead(poolId, priority),
    });
  }

  /** The start of a task of that priority if it were sent now. */
  quote(poolId: string, priority: Priority): QuoteOutcome {
    const ahead = this.#lanesAhead(poolId, priority).reduce((sum, lane) => sum + lane.depth, 0);
    return quoteStart(ahead, this.startBasis(poolId, priority));
  }

  /** Start and end of such a task if it were sent now, as far as they can be told. */
  forecast(poolId: string, task: { readonly priority: Priority; readonly maxTokens: number }): Forecast {
    const startMs = this.quote(poolId, task.priority).quote?.p50Ms ?? null;
    const replicaIds = this.#deps.fleet.ready(poolId).map(({ id }) => id);
    const runMs = this.#deps.quotes.runMs(replicaIds, task.maxTokens);
    return { startMs, endMs: startMs === null || runMs === null ? null : Math.round(startMs + runMs) };
  }

  #lanesAhead(poolId: string, priority: Priority): LaneDepth[] {
    const isAhead = (lane: LaneDepth) => lane.priority === 'interactive' || priority === 'batch';
    return this.#lanes.filter((lane) => lane.poolId === poolId && isAhead(lane));
  }

  async #dispatch(): Promise<void> {
    for (const poolId of this.#deps.fleet.poolIds()) {
      if (this.#closing) return;
      await this.#dispatchPool(poolId);
    }
  }

  async #dispatchPool(poolId: string): Promise<void> {
    const { fleet, leases, db, clock } = this.#deps;
    const ready = new Map(fleet.ready(poolId).map((replica) => [replica.id, replica]));
    const slots = slotOrder([...ready.values()].map((replica) => this.#slotsOf(replica))).slice(0, MAX_CLAIM);
    if (slots.length === 0) return;
    const claimStartedMs = clock.monotonicMs();
    const claimed = await claimTasks(db, { poolId, holder: leases.holder, slots, ttlMs: LEASE_TTL_MS });
    for (const task of claimed) {
      const replica = ready.get(task.replicaId);
      if (replica === undefined) throw new Error(`claimed a slot of ${task.replicaId}, which was not offered`);
      const attempt = new Attempt(this.#deps, task, replica);
      const lease = { id: task.leaseId, replicaId: task.replicaId, slot: task.slot, onFenced: () => attempt.fence() };
      leases.hold(lease, claimStartedMs);
      this.#attempts.set(task.id, attempt);
      attempt.start();
      this.#deps.quotes.started(task);
    }
  }

  #slotsOf(replica: ReadyReplica) {
    const taken = this.#deps.leases.takenSlots(replica.id);
    const freeSlots = Array.from({ length: replica.slots }, (_, slot) => slot).filter((slot) => !taken.has(slot));
    return { replicaId: replica.id, vramFreeBytes: replica.vramFreeBytes, freeSlots, activeSlots: taken.size };
  }

  #settled(attempt: Attempt, heldMs: number): void {
    const { id, poolId, priority } = attempt.task;
    if (this.#attempts.get(id) === attempt) this.#attempts.delete(id);
    // A run that was broken off says nothing about how long one takes.
    if (attempt.claimableInMs === null) this.#deps.quotes.served(poolId, priority, heldMs);
    this.wake();
    if (attempt.claimableInMs !== null && attempt.claimableInMs > 0) this.#wakeIn(attempt.claimableInMs);
  }

  #wakeIn(delayMs: number): void {
    if (this.#closing) return;
    const timer = setTimeout(() => {
      this.#wakeUps.delete(timer);
      this.wake();
    }, delayMs + 1); // the database counts in its own milliseconds
    this.#wakeUps.add(timer);
  }

  async #readLanes(): Promise<void> {
    this.#lanes = await laneDepths(this.#deps.db);
    const engines = new Map(this.#deps.fleet.candidates().map((pool) => [pool.id, pool.engine]));
    for (const { poolId, priority, depth } of this.#lanes) {
      const engine = engines.get(poolId);
      if (engine === undefined) continue;
      this.#deps.telemetry.metrics.queueDepth.set({ engine, engine_version: '', pool_id: poolId, priority }, depth);
    }
    this.#deps.telemetry.metrics.activeLeases.set(this.#deps.leases.count);
    this.#deps.telemetry.metrics.streamReaders.set(this.#deps.hub.readerCount);
  }
}
