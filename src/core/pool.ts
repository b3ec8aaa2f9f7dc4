/** What can be said of a pool from its replicas: is it ready, and if not, why and what to do. Pure. */
import type { ReplicaState } from './replica.js';

export interface Reason {
  readonly code: string;
  readonly message: string;
  readonly fix: string | null;
}

export interface ReplicaView {
  readonly id: string;
  readonly state: ReplicaState;
  readonly lastError: Reason | null;
}

const COMING: ReadonlySet<ReplicaState> = new Set(['ABSENT', 'PROVISIONING', 'STARTING', 'PRELOADING', 'SELF_TESTING']);

/** Empty when the pool is ready to take work; else every reason, the nearest to the cause first. */
export function notReadyBecause(pool: { readonly draining: boolean }, replicas: readonly ReplicaView[]): Reason[] {
  const reasons: Reason[] = [];
  if (pool.draining) {
    reasons.push({ code: 'DRAINING', message: 'The pool is draining.', fix: 'Wait for the operation, or resume it.' });
  }
  if (replicas.some((replica) => replica.state === 'READY')) return reasons;
  for (const replica of replicas) {
    if (replica.lastError !== null) reasons.push(replica.lastError);
  }
  const coming = replicas.filter((replica) => COMING.has(replica.state));
  if (coming.length > 0) {
    reasons.push({
      code: 'LOADING',
      message: `${coming.length} of ${replicas.length} replicas are starting: ${coming.map((r) => `${r.id} ${r.state}`).join(', ')}.`,
      fix: 'Wait until preload has passed.',
    });
  }
  if (reasons.length === 0) {
    reasons.push({
      code: 'NO_REPLICA',
      message: 'No replica of the pool is ready.',
      fix: 'Look at the replicas of the pool and their last errors.',
    });
  }
  return reasons;
}

/** At least one engine process of the pool is alive. */
export function isLive(replicas: readonly ReplicaView[]): boolean {
  return replicas.some(
    (replica) => !['ABSENT', 'PROVISIONING', 'BACKING_OFF', 'QUARANTINED', 'FAILED'].includes(replica.state),
  );
}
