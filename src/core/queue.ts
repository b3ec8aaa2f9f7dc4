/** What is known about a pool's speed, and how long a refused caller should wait. The order itself is kept by the store. */

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

/** How long a refused caller should wait, ms: one service time of the pool, within sane bounds. */
export function backoffMs(basis: StartBasis): number {
  return Math.min(30_000, Math.max(250, Math.round(basis.serviceMs)));
}
