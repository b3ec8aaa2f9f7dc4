/**
 * The circuit breaker of a replica: whether work goes to it, and whether it is trusted. Pure.
 *
 *   CLOSED ─failure, stall─► OPEN ─backoff over, or an operator's resume─► HALF_OPEN ─stable run─► CLOSED
 *                             ▲                                               │
 *                             └────────────────── failure ────────────────────┘
 *
 * It has no state of its own: it follows from the replica's, so that the two can never disagree. Half open is a trial: the
 * gates of the preload, then a run that must last `RestartPolicy.stableMs`; the next failure opens it for longer.
 */
import type { ReplicaState } from './replica.js';

export const BREAKER_STATES = ['CLOSED', 'OPEN', 'HALF_OPEN'] as const;
export type BreakerState = (typeof BREAKER_STATES)[number];

export interface BreakerFacts {
  readonly state: ReplicaState;
  /** In a row, since the last stable run. */
  readonly failures: number;
  /** It gives no tokens, or its connection was lost and it has not answered since. */
  readonly suspect: boolean;
}

export function breakerOf({ state, failures, suspect }: BreakerFacts): BreakerState {
  switch (state) {
    case 'BACKING_OFF':
    case 'QUARANTINED':
    case 'FAILED':
      return 'OPEN';
    case 'READY':
    case 'DRAINING':
      if (suspect) return 'OPEN';
      break;
    default:
      break;
  }
  return failures > 0 ? 'HALF_OPEN' : 'CLOSED';
}
