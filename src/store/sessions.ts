/** Sessions: written by admission, read and deleted here. An expired session is one that does not exist. */
import type { Budget } from '../core/budget.js';
import type { Database, Statement } from './database.js';

export interface SessionRow {
  readonly id: string;
  readonly turns: number;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly ttlMsRemaining: number;
  /** Where its last task ran, and until when the cache there is taken to be its own. */
  readonly lastReplicaId: string | null;
  readonly lastSlot: number | null;
  readonly kvUntil: Date | null;
  readonly budget: Budget;
}

/** The cache of a slot that held a session which is gone. */
export interface Eviction {
  readonly id: string;
  readonly sessionId: string;
  readonly replicaId: string;
  readonly slot: number;
  /** When the session went. */
  readonly atMs: number;
}

/** Where a session's task ran, and when that task was admitted. */
export interface SessionPlace {
  readonly sessionId: string;
  readonly replicaId: string;
  readonly slot: number;
  readonly admittedAtMs: number;
}

function amounts(prefix: string): string {
  const columns = { tokens: 'tokens', timeMs: 'time_ms', costMicros: 'cost_micros' };
  const pairs = Object.entries(columns).map(([kind, column]) => `'${kind}', ${prefix}_${column}`);
  return `jsonb_build_object(${pairs.join(', ')})`;
}

const GET: Statement = {
  name: 'session_get',
  text: `
SELECT id, turns, created_at AS "createdAt", expires_at AS "expiresAt",
       (extract(epoch FROM expires_at - now()) * 1000)::bigint::float8 AS "ttlMsRemaining",
       last_replica_id AS "lastReplicaId", last_slot AS "lastSlot", kv_until AS "kvUntil",
       jsonb_build_object('limits', ${amounts('limit')}, 'spent', ${amounts('spent')}, 'reserved', ${amounts('reserved')})
         AS budget
FROM sessions WHERE id = $1 AND expires_at > now()`,
};

export async function getSession(db: Database, sessionId: string): Promise<SessionRow | null> {
  return (await db.query<SessionRow>(GET, [sessionId]))[0] ?? null;
}

const GONE = 'id, expires_at > now() AS live, last_replica_id, last_slot, kv_until';
const ASK_TO_EVICT = `INSERT INTO session_evictions (session_id, replica_id, slot)
  SELECT gone.id, gone.last_replica_id, gone.last_slot FROM gone WHERE gone.kv_until IS NOT NULL AND gone.last_slot IS NOT NULL`;

const DELETE: Statement = {
  name: 'session_delete',
  text: `
WITH gone AS (DELETE FROM sessions WHERE id = $1 RETURNING ${GONE}), asked AS (${ASK_TO_EVICT}) SELECT live FROM gone`,
};

/** @returns false when there was no live session of that id. */
export async function deleteSession(db: Database, sessionId: string): Promise<boolean> {
  return (await db.query<{ live: boolean }>(DELETE, [sessionId]))[0]?.live ?? false;
}

// A row that an admission has at this moment is prolonged by it.
const EXPIRE: Statement = {
  name: 'session_expire',
  text: `
WITH gone AS (
  DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
  ) RETURNING ${GONE}
), asked AS (${ASK_TO_EVICT})
SELECT 1 FROM gone`,
};

/** Deletes sessions that have expired, at most so many; their caches are asked for like those of deleted ones. */
export async function expireSessions(db: Database, limit: number): Promise<number> {
  return (await db.query(EXPIRE, [limit])).length;
}

const EVICTIONS: Statement = {
  name: 'session_evictions',
  text: `
SELECT id, session_id AS "sessionId", replica_id AS "replicaId", slot, (extract(epoch FROM at) * 1000)::float8 AS "atMs"
FROM session_evictions WHERE replica_id = ANY($1::text[]) OR at <= now() - $2 * interval '1 millisecond'`,
};

/** What the owner of these replicas is asked to drop, and what is older than `staleMs`, of whichever: nobody looks for that. */
export async function listEvictions(db: Database, replicaIds: readonly string[], staleMs: number): Promise<Eviction[]> {
  return db.query(EVICTIONS, [replicaIds, staleMs]);
}

const SETTLE_EVICTIONS: Statement = {
  name: 'session_settle_evictions',
  text: 'DELETE FROM session_evictions WHERE id = ANY($1::uuid[])',
};

export async function settleEvictions(db: Database, done: readonly Eviction[]): Promise<void> {
  await db.query(SETTLE_EVICTIONS, [done.map(({ id }) => id)]);
}

// Rows are locked in the order in which admission locks them, so that the two cannot wait for each other.
const PLACES: Statement = {
  name: 'session_places',
  text: `
WITH place AS (
  SELECT DISTINCT ON (p.id) * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::float8[])
    WITH ORDINALITY AS p(id, replica_id, slot, admitted_ms, n) ORDER BY p.id, p.n DESC
), locked AS (
  SELECT s.id FROM sessions s JOIN place USING (id) ORDER BY s.id FOR NO KEY UPDATE OF s
)
UPDATE sessions s SET last_replica_id = place.replica_id, last_slot = place.slot,
  kv_until = to_timestamp(place.admitted_ms / 1000.0) + $5 * interval '1 millisecond'
FROM place JOIN locked USING (id) WHERE s.id = place.id RETURNING s.id`,
};

/** @returns the sessions that are there still. */
export async function writePlaces(
  db: Database,
  places: readonly SessionPlace[],
  ttlMs: number,
): Promise<ReadonlySet<string>> {
  const rows = await db.relaxedQuery<{ id: string }>(PLACES, [
    places.map(({ sessionId }) => sessionId),
    places.map(({ replicaId }) => replicaId),
    places.map(({ slot }) => slot),
    places.map(({ admittedAtMs }) => admittedAtMs),
    ttlMs,
  ]);
  return new Set(rows.map(({ id }) => id));
}
