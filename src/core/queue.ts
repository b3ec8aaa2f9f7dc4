/** The queue of a pool: who waits, who makes room, who is served next, and when one can expect to be. Pure. */
import type { Refusal, TaskFailure } from './errors.js';
import type { Priority } from './task.js';

/** What was known about a pool when a task was admitted; kept with the task so that its receipt can be given again. */
export interface StartBasis {
  /** That can be expected to serve: of the replicas that are ready, or of all while none is. */
  readonly slotsTotal: number;
  readonly slotsFree: number;
  /** Mean time one task holds a slot, ms; the configured default where too little has been measured. */
  readonly serviceMs: number;
  /** Standard deviation of that time, ms. What follows is left out where it is not known. */
  readonly deviationMs?: number;
  /** Services measured; the default counts as none. */
  readonly samples?: number;
  /** Slots of replicas that are ready; 0: nobody knows when there will be one. */
  readonly slotsReady?: number;
  /** How long each slot that is held has been, ms. */
  readonly heldMs?: readonly number[];
}

/**
 * The wait that `position` others ahead make certain as far as anything measured can, ms: the whole rounds of all slots that
 * they fill. Less than the prediction, which may be wrong either way; worth as much as the service time it rests on.
 */
export function leastStartMs(position: number, basis: StartBasis): number {
  const rounds = Math.floor(Math.max(0, position - basis.slotsFree) / Math.max(1, basis.slotsTotal));
  return Math.round(rounds * basis.serviceMs);
}

export const FULL_POLICIES = ['reject', 'drop-lru', 'shed-low-priority'] as const;
export type FullPolicy = (typeof FULL_POLICIES)[number];

export function isFullPolicy(label: string): label is FullPolicy {
  return FULL_POLICIES.some((policy) => policy === label);
}

/** A newcomer that met a full queue and may displace nobody. @param retryAfterMs when a place is expected to be free. */
export function refusedByFullQueue(poolId: string, policy: FullPolicy, retryAfterMs: number): Refusal {
  const full = `the queue of pool ${poolId} is full`;
  return {
    family: 'backpressure',
    code: policy === 'drop-lru' ? 'QUEUE_FULL_DROP_LRU' : 'ADMISSION_REJECT',
    message: policy === 'reject' ? full : `${full}, and holds no task that this one may displace`,
    retriable: true,
    retryAfterMs,
    policyLabel: policy,
  };
}

/** How a waiting task ends that made room for a newer one. Under every policy: no other code says that it was admitted. */
export function displacedFailure(poolId: string, policy: FullPolicy, retryAfterMs: number): TaskFailure {
  const message = `dropped from the full queue of pool ${poolId} for a newer task (policy ${policy})`;
  return { code: 'QUEUE_FULL_DROP_LRU', message, retriable: true, retryAfterMs };
}

/**
 * A batch task that has waited so long, ms, is overdue: while interactive tasks wait too, every `AGEING_TURN`-th task that
 * is served is an overdue one. So batch work goes on under any load, and costs interactive work at most that share.
 */
export const OVERDUE_AFTER_MS = 30_000;
export const AGEING_TURN = 4;

export interface QueueBounds {
  /** Of both lanes together. */
  readonly total: number;
  readonly interactive: number;
  readonly batch: number;
}

export type Offer =
  | { readonly outcome: 'admitted'; readonly position: number; readonly displaced: string | null }
  | { readonly outcome: 'full' };

/**
 * The rule that the SQL of store/queue and its migrations obeys; a model test drives both with the same commands.
 *
 * 1. Two bounded lanes, first come first served within each, interactive before batch but for the turn of the overdue.
 * 2. A full queue admits by displacing one waiting task, or refuses. drop-lru: the oldest batch task, else, for an
 *    interactive newcomer, the oldest interactive one. shed-low-priority: the newest batch task, for an interactive
 *    newcomer. A lane that is full itself can only make room in itself. So nobody is displaced by a lower priority.
 * 3. A task that ran already and came back (`requeue`) has its old place, and is never displaced; it may exceed a bound.
 * 4. Every step takes constant amortised time.
 */
export class TaskQueue {
  readonly #bounds: QueueBounds;
  readonly #policy: FullPolicy;
  readonly #lanes = { interactive: new Lane(), batch: new Lane() };
  #nextSeq = 1;
  /** Interactive tasks served while an overdue batch task waited, since one of those was served. */
  #passedOver = 0;

  constructor(bounds: QueueBounds, policy: FullPolicy) {
    this.#bounds = bounds;
    this.#policy = policy;
  }

  depth(priority: Priority): number {
    return this.#lanes[priority].size;
  }

  /** A newcomer; its id must not be in the queue. */
  offer(id: string, priority: Priority, nowMs: number): Offer {
    const full = this.#isFull(priority);
    const displaced = full ? this.#victim(priority) : null;
    if (full && displaced === null) return { outcome: 'full' };
    if (displaced !== null) this.remove(displaced.id);
    const position = this.depth('interactive') + (priority === 'batch' ? this.depth('batch') : 0);
    this.#lanes[priority].push({ id, seq: this.#nextSeq, sinceMs: nowMs });
    this.#nextSeq += 1;
    return { outcome: 'admitted', position, displaced: displaced?.id ?? null };
  }

  /** Takes out the task that is served next; null when none waits. */
  grant(nowMs: number): Waiting | null {
    const { interactive, batch } = this.#lanes;
    const [urgent, other] = [interactive.first(), batch.first()];
    const overdue = other !== null && nowMs - other.sinceMs >= OVERDUE_AFTER_MS;
    const contested = urgent !== null && overdue;
    const turn = contested && this.#passedOver >= AGEING_TURN - 1;
    const next = turn ? other : (urgent ?? other);
    if (next === null) return null;
    if (contested) this.#passedOver = turn ? 0 : this.#passedOver + 1;
    this.remove(next.id);
    return next;
  }

  /** A granted task comes back, to the place it had. */
  requeue(task: Waiting, priority: Priority): void {
    this.#lanes[priority].putBack(task);
  }

  /** Cancel or expiry. @returns whether the task waited. */
  remove(id: string): boolean {
    return this.#lanes.interactive.remove(id) || this.#lanes.batch.remove(id);
  }

  #isLaneFull(priority: Priority): boolean {
    return this.depth(priority) >= this.#bounds[priority];
  }

  #isFull(priority: Priority): boolean {
    return this.#isLaneFull(priority) || this.depth('interactive') + this.depth('batch') >= this.#bounds.total;
  }

  #victim(newcomer: Priority): Waiting | null {
    const { interactive, batch } = this.#lanes;
    const urgent = newcomer === 'interactive';
    const batchMayHelp = !(urgent && this.#isLaneFull('interactive'));
    switch (this.#policy) {
      case 'reject':
        return null;
      case 'drop-lru':
        return (batchMayHelp ? batch.oldest() : null) ?? (urgent ? interactive.oldest() : null);
      case 'shed-low-priority':
        return urgent && batchMayHelp ? batch.newest() : null;
    }
  }
}

export interface Waiting {
  readonly id: string;
  readonly seq: number;
  readonly sinceMs: number;
}

/**
 * First in, first out, with removal from anywhere: what was removed leaves a hole, and each hole is passed once. Tasks
 * that came back wait in front, by their numbers: they were served before anything that is here, and are as few as slots.
 */
class Lane {
  readonly #present = new Map<string, Waiting>();
  #fresh: Waiting[] = [];
  #head = 0;
  readonly #returned: Waiting[] = [];

  get size(): number {
    return this.#present.size;
  }

  push(task: Waiting): void {
    this.#present.set(task.id, task);
    this.#fresh.push(task);
  }

  putBack(task: Waiting): void {
    const back = { ...task }; // Another object than the one that may still be in `#fresh`, which stays a hole.
    this.#present.set(back.id, back);
    const index = this.#returned.findIndex((other) => other.seq > back.seq);
    this.#returned.splice(index < 0 ? this.#returned.length : index, 0, back);
  }

  remove(id: string): boolean {
    const task = this.#present.get(id);
    const index = task === undefined ? -1 : this.#returned.indexOf(task);
    if (index >= 0) this.#returned.splice(index, 1);
    return this.#present.delete(id);
  }

  /** Of those that have not run. */
  oldest(): Waiting | null {
    while (this.#isHole(this.#fresh[this.#head])) this.#head += 1;
    if (this.#head > 32 && this.#head * 2 > this.#fresh.length) {
      this.#fresh = this.#fresh.slice(this.#head);
      this.#head = 0;
    }
    return this.#fresh[this.#head] ?? null;
  }

  /** Of those that have not run. */
  newest(): Waiting | null {
    while (this.#fresh.length > this.#head && this.#isHole(this.#fresh[this.#fresh.length - 1])) this.#fresh.pop();
    return this.#fresh.length > this.#head ? (this.#fresh[this.#fresh.length - 1] ?? null) : null;
  }

  first(): Waiting | null {
    const fresh = this.oldest();
    const returned = this.#returned[0] ?? null;
    if (fresh === null || returned === null) return fresh ?? returned;
    return returned.seq < fresh.seq ? returned : fresh;
  }

  #isHole(task: Waiting | undefined): boolean {
    return task !== undefined && this.#present.get(task.id) !== task;
  }
}
