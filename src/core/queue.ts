/** Queue position and start prediction. Pure. The order itself is (priority, arrival), kept by the store. */

/** What was known about a pool when a task was admitted; kept with the task so that its receipt can be given again. */
export interface StartBasis {
  readonly slotsTotal: number;
  readonly slotsFree: number;
  /** Mean time one task holds a slot, ms; 0 while nothing has been measured. */
  readonly serviceMs: number;
}

/** Expected wait until the task with `position` others ahead of it gets a slot, ms. */
export function predictStartMs(position: number, basis: StartBasis): number {
  if (position < basis.slotsFree) return 0;
  const rounds = Math.ceil((position - basis.slotsFree + 1) / Math.max(1, basis.slotsTotal));
  return Math.round(rounds * basis.serviceMs);
}

const SERVICE_TIME_WEIGHT = 0.2;

/** Exponentially weighted mean of service times; the first sample stands as it is. */
export function updateServiceMs(meanMs: number, sampleMs: number): number {
  return meanMs === 0 ? sampleMs : meanMs + SERVICE_TIME_WEIGHT * (sampleMs - meanMs);
}

/** How long a refused caller should wait, ms: one service time of the pool, within sane bounds. */
export function backoffMs(basis: StartBasis): number {
  return Math.min(30_000, Math.max(250, Math.round(basis.serviceMs)));
}
