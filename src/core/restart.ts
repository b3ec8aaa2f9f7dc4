/** The restart policy: given what happened, what comes next and after how long. Pure: time and chance come in. */

export interface RestartPolicy {
  readonly baseMs: number;
  readonly capMs: number;
  /** A run at least this long resets the count of failures. */
  readonly stableMs: number;
  /** After this many failures in a row the replica is quarantined until an operator resumes it. */
  readonly maxFailures: number;
}

export const DEFAULT_RESTART_POLICY: RestartPolicy = { baseMs: 250, capMs: 30_000, stableMs: 60_000, maxFailures: 8 };

export type RestartDecision =
  | { readonly next: 'restart'; readonly delayMs: number; readonly failures: number }
  | { readonly next: 'quarantine'; readonly failures: number };

/** @param chance uniform in [0, 1): half of the delay is fixed, half is jitter, so that replicas do not restart together. */
export function afterExit(
  policy: RestartPolicy,
  run: { readonly failuresBefore: number; readonly readyForMs: number },
  chance: number,
): RestartDecision {
  const failures = (run.readyForMs >= policy.stableMs ? 0 : run.failuresBefore) + 1;
  if (failures >= policy.maxFailures) return { next: 'quarantine', failures };
  return { next: 'restart', delayMs: backoffMs(policy, failures, chance), failures };
}

/**
 * How long to wait before the nth start in a row, ms. Also for one that was refused before a process was started: that
 * costs nothing, so it is tried for as long as it takes.
 */
export function backoffMs(policy: RestartPolicy, nth: number, chance: number): number {
  const ceilingMs = Math.min(policy.capMs, policy.baseMs * 2 ** Math.min(nth - 1, 32));
  return Math.round(ceilingMs / 2 + (ceilingMs / 2) * chance);
}
