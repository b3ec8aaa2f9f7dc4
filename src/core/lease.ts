/**
 * A lease is a replica's slot held by a task. Its id is the fencing token: every write of a holder names it, and a write
 * that finds another lease changes nothing. Postgres' clock alone decides expiry; a holder keeps a monotonic deadline
 * beside it and stops itself before that.
 */

export const LEASE_TTL_MS = 15_000;
export const LEASE_RENEW_EVERY_MS = 5_000;
export const LEASE_SWEEP_EVERY_MS = 2_000;
/** A holder that has not renewed by TTL minus this stops its own work, whatever the database says later. */
const LEASE_MARGIN_MS = 3_000;

/** Until when a holder may act, on its own monotonic clock: anchored at the start of the renewal, not at its answer. */
export function trustedUntilMs(renewalStartedMs: number): number {
  return renewalStartedMs + LEASE_TTL_MS - LEASE_MARGIN_MS;
}
