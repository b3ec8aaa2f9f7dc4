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
  if (failures > policy.maxFailures) return { next: 'quarantine', failures };
  const ceilingMs = Math.min(policy.capMs, policy.baseMs * 2 ** (failures - 1));
  return { next: 'restart', delayMs: Math.round(ceilingMs / 2 + (ceilingMs / 2) * chance), failures };
}
