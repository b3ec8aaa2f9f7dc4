/** Leases after the claim: renewed together, released one by one. Both use the connections reserved for leases. */
import type { CancelReason } from '../core/task.js';
import type { Database, Statement } from './database.js';

const RENEW: Statement = {
  name: 'lease_renew',
  text: `
UPDATE leases SET renewed_at = now(), expires_at = now() + $3 * interval '1 millisecond'
WHERE id = ANY($1::bigint[]) AND holder = $2::uuid AND released_at IS NULL AND expires_at > now()
RETURNING id::text AS id`,
};

/** @returns the ids that are still ours; a holder stops the work of every other one. */
export async function renewLeases(
  db: Database,
  renewal: { readonly ids: readonly string[]; readonly holder: string; readonly ttlMs: number },
): Promise<Set<string>> {
  const rows = await db.leaseQuery<{ id: string }>(RENEW, [renewal.ids, renewal.holder, renewal.ttlMs]);
  return new Set(rows.map((row) => row.id));
}

const RELEASE: Statement = {
  name: 'lease_release',
  text: 'UPDATE leases SET released_at = now(), release_reason = $2 WHERE id = $1 AND released_at IS NULL',
};

export async function releaseLease(db: Database, leaseId: string, reason: string): Promise<void> {
  await db.leaseQuery(RELEASE, [leaseId, reason]);
}

const REASON: Statement = {
  name: 'lease_reason',
  text: 'SELECT release_reason AS reason FROM leases WHERE id = $1::bigint',
};

/** Why it ended; null while it is held. */
export async function releaseReason(db: Database, leaseId: string): Promise<string | null> {
  return (await db.leaseQuery<{ reason: string | null }>(REASON, [leaseId]))[0]?.reason ?? null;
}

// A lease can outlive its task: a cancelled one is held until the engine is seen to be free, and its holder may die first.
const RELEASE_DEAD: Statement = {
  name: 'lease_release_dead',
  text: `
UPDATE leases l SET released_at = now(), release_reason = 'expired'
WHERE l.released_at IS NULL AND (l.expires_at <= now() OR l.holder = ANY($1::uuid[]))
  AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.lease_id = l.id AND t.status IN ('LEASED', 'STREAMING'))`,
};

/** Releases what no task stands behind any more. Leases of live tasks are released by the task's own recovery. */
export async function releaseDeadLeases(db: Database, deadHolders: readonly string[]): Promise<void> {
  await db.leaseQuery(RELEASE_DEAD, [deadHolders]);
}

const ACTIVE: Statement = {
  name: 'lease_active',
  text: `
SELECT r.pool_id AS "poolId", l.replica_id AS "replicaId", l.slot, l.task_id AS "taskId", l.holder
FROM leases l JOIN replicas r ON r.id = l.replica_id WHERE l.released_at IS NULL`,
};

export interface ActiveLease {
  readonly poolId: string;
  readonly replicaId: string;
  readonly slot: number;
  readonly taskId: string;
  readonly holder: string;
}

/** Bounded by the slots of all replicas, since a slot has one holder at most. */
export async function activeLeases(db: Database): Promise<ActiveLease[]> {
  return db.query(ACTIVE, []);
}

const RECALL: Statement = {
  name: 'lease_recall',
  text: `
UPDATE leases l SET recalled_at = now() FROM replicas r
WHERE r.id = l.replica_id AND r.pool_id = $1 AND l.holder <> $2::uuid AND l.released_at IS NULL AND l.recalled_at IS NULL
RETURNING l.id`,
};

/** Asks the other holders of a pool's slots to stop what runs there. @returns how many were asked. */
export async function recallLeases(db: Database, poolId: string, ownHolder: string): Promise<number> {
  return (await db.query(RECALL, [poolId, ownHolder])).length;
}

const ASKED: Statement = {
  name: 'lease_asked',
  text: `
SELECT l.task_id AS "taskId",
       CASE WHEN t.cancel_requested_at IS NOT NULL THEN coalesce(t.cancel_reason, 'client') END AS canceled
FROM leases l JOIN tasks t ON t.lease_id = l.id
WHERE l.holder = $1::uuid AND l.released_at IS NULL AND t.status IN ('LEASED', 'STREAMING')
  AND (t.cancel_requested_at IS NOT NULL OR l.recalled_at IS NOT NULL)`,
};

export interface AskedToStop {
  readonly taskId: string;
  /** Why it is cancelled; null: its lease was recalled. */
  readonly canceled: CancelReason | null;
}

/** What a holder was asked to stop, by whichever node. */
export async function askedToStop(db: Database, holder: string): Promise<AskedToStop[]> {
  return db.query(ASKED, [holder]);
}
