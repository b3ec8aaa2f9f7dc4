/** Waiting before another try: exponential, capped, with full jitter. */

export interface BackoffPolicy {
  readonly baseMs: number;
  readonly capMs: number;
  /** Tries in all, the first included. */
  readonly attempts: number;
}

/** For calls to an engine that may be repeated (HTU-1002). */
export const ENGINE_RETRY: BackoffPolicy = { baseMs: 100, capMs: 2_000, attempts: 4 };

/**
 * Delay before try `attempt + 1`, given that `attempt` (from 1) failed; null when that was the last one.
 * @param chance uniform in [0, 1). @param atLeastMs what the other side asked for; it is never undercut.
 */
export function retryDelayMs(policy: BackoffPolicy, attempt: number, chance: number, atLeastMs = 0): number | null {
  if (attempt >= policy.attempts) return null;
  const ceilingMs = Math.min(policy.capMs, policy.baseMs * 2 ** (attempt - 1));
  return Math.max(atLeastMs, Math.floor(chance * ceilingMs));
}
