/**
 * Gives free slots to waiting tasks: reads which slots are free, offers them best first, and starts a run for every
 * task that took one. It takes no input; whatever might have changed something only wakes it.
 */
import { DrainRate } from '../core/drainRate.js';
import { LEASE_TTL_MS, trustedUntilMs } from '../core/lease.js';
import { type Forecast, slotOrder } from '../core/placement.js';
import { type QuoteOutcome, quoteStart } from '../core/prediction.js';
import { leastStartMs, OVERDUE_AFTER_MS, type StartBasis } from '../core/queue.js';
import type { Priority } from '../core/task.js';
import { Reconciler } from '../runtime/reconciler.js';
import { claimedSince, claimTasks } from '../store/queue.js';
import { type ClaimedTask, type LaneDepth, laneDepths } from '../store/tasks.js';
import { Attempt, type AttemptDeps } from './attempt.js';
import type { ReadyReplica } from './fleet.js';

const IDLE_LOOK_MS = 1_000;
const LANES_EVERY_MS = 500;
const MAX_CLAIM = 64;
/** A claim that was cut off is looked for so long: by then it is done, or the database has given it up. */
const LOST_CLAIM_MS = 5_000;

/** Claims that failed, and may have been done all the same. */
interface LostClaim {
  /** The newest lease before the first of them. */
  readonly newestId: string;
  /** Leases that were begun since. */
  readonly taken: Set<string>;
  /** When the last of them failed, monotonic ms. */
  readonly lastMs: number;
}

export class Dispatcher {
  readonly #deps: AttemptDeps;
  readonly #attempts = new Map<string, Attempt>();
  readonly #drainRates = new Map<string, DrainRate>();
  readonly #loop: Reconciler;
  readonly #laneLoop: Reconciler;
  #lanes: readonly LaneDepth[] = [];
  readonly #wakeUps = new Set<NodeJS.Timeout>();
  #claims: Promise<void> = Promise.resolve();
  readonly #tellOthers: () => void;
  #lostClaim: LostClaim | null = null;
  #closing = false;

  /** @param tellOthers that there may be something in a queue. */
  constructor(deps: Omit<AttemptDeps, 'onSettled' | 'queueDepth'>, tellOthers: () => void) {
    this.#tellOthers = tellOthers;
    this.#deps = {
      ...deps,
      queueDepth: (poolId) => this.queueDepth(poolId),
      onSettled: (attempt, heldMs) => this.#settled(attempt, heldMs),
    };
    const onError = (name: string, error: unknown) => deps.telemetry.backgroundFailure(name, error);
    const run = () => {
      this.#claims = this.#dispatch();
      return this.#claims;
    };
    this.#loop = new Reconciler({ name: 'dispatch', intervalMs: IDLE_LOOK_MS, run, onError });
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

  /** A task came into the queue of a pool, which may be another node's. */
  queued(poolId: string, priority: Priority): void {
    this.#lanesChanged(poolId, priority, 1);
    this.wake();
    this.#tellOthers();
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

  /** Resolves once every claim that is under way now shows in `attemptsOf`; never rejects. */
  claimsUnderWay(): Promise<void> {
    return this.#claims.catch(() => {});
  }

  /**
   * Waiting tasks of a pool; of those, as a rule, served before a newcomer's. What comes and is claimed here counts at once,
   * all else as of at most half a second ago.
   */
  queueDepth(poolId: string, newcomer: Priority = 'batch'): number {
    const counts = (lane: LaneDepth) => lane.poolId === poolId && (newcomer === 'batch' || lane.priority === newcomer);
    return this.#lanes.reduce((sum, lane) => (counts(lane) ? sum + lane.depth : sum), 0);
  }

  slotsFree(poolId: string): number {
    const { fleet, leases } = this.#deps;
    return fleet
      .ready(poolId)
      .reduce((sum, { id, slots }) => sum + slots - leases.takenSlots(id).size, fleet.slotsElsewhere(poolId).free);
  }

  /** What is known about a pool's speed now; the basis of a start prediction for a task of that priority. */
  startBasis(poolId: string, priority: Priority): StartBasis {
    const { fleet, quotes } = this.#deps;
    return quotes.basis(poolId, priority, {
      slotsTotal: fleet.limits(poolId).slotsTotal,
      slotsReady: this.#slotsReady(poolId),
      slotsFree: this.slotsFree(poolId),
      running: this.attemptsOf(poolId).map(({ task, heldMs }) => ({ priority: task.priority, heldMs })),
      waiting: this.#lanesAhead(poolId, priority),
    });
  }

  /** On all nodes. */
  #slotsReady(poolId: string): number {
    const { fleet } = this.#deps;
    return fleet.ready(poolId).reduce((sum, replica) => sum + replica.slots, fleet.slotsElsewhere(poolId).ready);
  }

  /** The start of a task of that priority if it were sent now. */
  quote(poolId: string, priority: Priority): QuoteOutcome {
    return quoteStart(this.queueDepth(poolId, priority), this.startBasis(poolId, priority));
  }

  /** Start and end of such a task if it were sent now, as far as they can be told. */
  forecast(poolId: string, task: { readonly priority: Priority; readonly maxTokens: number }): Forecast {
    const position = this.queueDepth(poolId, task.priority);
    const basis = this.startBasis(poolId, task.priority);
    const startMs = quoteStart(position, basis).quote?.p50Ms ?? null;
    const earliestMs = startMs === null ? null : leastStartMs(position, basis);
    const replicaIds = this.#deps.fleet.ready(poolId).map(({ id }) => id);
    const runMs = this.#deps.quotes.runMs(replicaIds, task.maxTokens);
    return { earliestMs, startMs, endMs: startMs === null || runMs === null ? null : Math.round(startMs + runMs) };
  }

  #lanesAhead(poolId: string, priority: Priority): LaneDepth[] {
    const isAhead = (lane: LaneDepth) => lane.priority === 'interactive' || priority === 'batch';
    return this.#lanes.filter((lane) => lane.poolId === poolId && isAhead(lane));
  }

  /** When a caller that a full queue refuses should come back, by the measured rate at which the pool serves, ms. */
  sendAway(poolId: string): number {
    return this.#drainRate(poolId).sendAway(this.#deps.clock.monotonicMs());
  }

  /** The same without expecting anybody back. */
  retryAfterMs(poolId: string): number {
    return this.#drainRate(poolId).retryAfterMs(this.#deps.clock.monotonicMs());
  }

  /** Other nodes served so many tasks of a pool since this was last told: while tasks wait, others have taken their slots. */
  servedElsewhere(poolId: string, served: number): void {
    const offered = this.queueDepth(poolId) > 0 ? served : served + 1;
    this.#drainRate(poolId).granted(offered, served, this.#deps.clock.monotonicMs());
  }

  #drainRate(poolId: string): DrainRate {
    const known = this.#drainRates.get(poolId) ?? new DrainRate();
    this.#drainRates.set(poolId, known);
    return known;
  }

  /** As of at most half a second ago, like every depth. */
  #hasOverdue(poolId: string): boolean {
    return this.#lanes.some(
      (lane) => lane.poolId === poolId && lane.priority === 'batch' && (lane.oldestAgeMs ?? 0) >= OVERDUE_AFTER_MS,
    );
  }

  async #dispatch(): Promise<void> {
    await this.#takeUpLostClaim();
    for (const poolId of this.#deps.fleet.poolIds()) {
      if (this.#closing) return;
      await this.#dispatchPool(poolId);
    }
  }

  async #dispatchPool(poolId: string): Promise<void> {
    const { fleet, leases, db, clock } = this.#deps;
    const [first, ...others] = fleet.ready(poolId);
    if (first === undefined) return;
    const { engine, modelRef } = first;
    // One claim asks for the tasks of one model; a set of replicas that serves together has one.
    const alike = [first, ...others.filter((replica) => replica.modelRef === modelRef)];
    const ready = new Map(alike.map((replica) => [replica.id, replica]));
    const slots = slotOrder([...ready.values()].map((replica) => this.#slotsOf(replica))).slice(0, MAX_CLAIM);
    if (slots.length === 0) return;
    const claimStartedMs = clock.monotonicMs();
    const ageing = this.#hasOverdue(poolId);
    const serves = { engine, modelRef };
    const claim = { poolId, holder: leases.holder, slots, ttlMs: LEASE_TTL_MS, serves, ageing };
    const claimed = await claimTasks(db, claim).catch((error: unknown) => {
      const { newestId, taken } = this.#lostClaim ?? { newestId: leases.newestId, taken: new Set() };
      this.#lostClaim = { newestId, taken, lastMs: clock.monotonicMs() };
      throw error;
    });
    this.#drainRate(poolId).granted(slots.length, claimed.length, claimStartedMs);
    for (const task of claimed) {
      this.#lanesChanged(poolId, task.priority, -1);
      const replica = ready.get(task.replicaId);
      if (replica === undefined) throw new Error(`claimed a slot of ${task.replicaId}, which was not offered`);
      this.#begin(task, replica, claimStartedMs);
    }
  }

  #begin(task: ClaimedTask, replica: ReadyReplica, claimStartedMs: number): void {
    const attempt = new Attempt(this.#deps, task, replica);
    const lease = { id: task.leaseId, replicaId: task.replicaId, slot: task.slot, onFenced: () => attempt.fence() };
    this.#deps.leases.hold(lease, claimStartedMs);
    this.#lostClaim?.taken.add(task.leaseId);
    this.#attempts.set(task.id, attempt);
    attempt.start();
    this.#deps.quotes.started(task);
  }

  /** What a claim took whose answer was lost is ours, and nobody else looks after it. */
  async #takeUpLostClaim(): Promise<void> {
    const { db, leases, fleet, clock } = this.#deps;
    const lost = this.#lostClaim;
    if (lost === null) return;
    const askedMs = clock.monotonicMs();
    for (const task of await claimedSince(db, leases.holder, lost.newestId)) {
      if (lost.taken.has(task.leaseId)) continue;
      const replica = fleet
        .ready(task.poolId)
        .find(({ id, modelRef }) => id === task.replicaId && modelRef === task.modelRef);
      const claimedMs = askedMs - task.ageMs;
      // Of a replica that is gone meanwhile, and where there is no time left, the lease runs out.
      if (replica !== undefined && askedMs < trustedUntilMs(claimedMs)) this.#begin(task, replica, claimedMs);
    }
    // Another one may have failed while this one asked.
    if (askedMs - (this.#lostClaim?.lastMs ?? 0) > LOST_CLAIM_MS) this.#lostClaim = null;
  }

  #slotsOf(replica: ReadyReplica) {
    const taken = this.#deps.leases.takenSlots(replica.id);
    const freeSlots = Array.from({ length: replica.slots }, (_, slot) => slot).filter((slot) => !taken.has(slot));
    return { replicaId: replica.id, vramFreeBytes: replica.vramFreeBytes, freeSlots, activeSlots: taken.size };
  }

  #settled(attempt: Attempt, heldMs: number): void {
    const { id, poolId, priority } = attempt.task;
    if (this.#attempts.get(id) === attempt) this.#attempts.delete(id);
    // A run that was broken off, or whose lease was lost, says nothing about how long one takes.
    if (attempt.hasEnded) this.#deps.quotes.served(poolId, priority, heldMs);
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

  /** Until they are read again. */
  #lanesChanged(poolId: string, priority: Priority, by: 1 | -1): void {
    this.#lanes = this.#lanes.map((lane) => {
      const isIt = lane.poolId === poolId && lane.priority === priority;
      return isIt ? { ...lane, depth: Math.max(0, lane.depth + by) } : lane;
    });
  }

  async #readLanes(): Promise<void> {
    this.#lanes = await laneDepths(this.#deps.db);
    const engines = new Map(this.#deps.fleet.candidates().map((pool) => [pool.id, pool.engine]));
    for (const { poolId, priority, depth } of this.#lanes) {
      const engine = engines.get(poolId);
      if (engine === undefined) continue;
      this.#deps.telemetry.laneRead({ engine, poolId, priority }, depth);
    }
    const { telemetry, leases, hub, db } = this.#deps;
    telemetry.nodeRead({ leases: leases.count, streamReaders: hub.readerCount, connections: db.connections });
  }
}
