/** When a task ends with its readers: its last one has been gone for a grace period, on every node. */
import { invalid, type Refusal } from './errors.js';

export const DEFAULT_DISCONNECT_GRACE_MS = 5_000;
/** Shorter than what a reader needs to come back, and other nodes to hear of it, would end tasks that are still read. */
const LEAST_GRACE_MS = 1_000;
const MOST_GRACE_MS = 24 * 3600 * 1000;

/** @param given `true`: the default; `false`: the task outlives its readers; a number: ms. */
export function disconnectGrace(given: unknown): number | null | 'invalid' {
  if (given === true) return DEFAULT_DISCONNECT_GRACE_MS;
  if (given === false) return null;
  return typeof given === 'number' && Number.isInteger(given) ? given : 'invalid';
}

export function checkDisconnectGrace(graceMs: number | null): Refusal | null {
  if (graceMs === null || (graceMs >= LEAST_GRACE_MS && graceMs <= MOST_GRACE_MS)) return null;
  return invalid(
    'cancel_on_disconnect',
    `must be true, false, or from ${LEAST_GRACE_MS} to ${MOST_GRACE_MS} ms, got ${graceMs}`,
  );
}
