/** Sessions: written by admission, read and deleted here. An expired session is one that does not exist. */
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
}

/** Where a session's task ran, and when that task was admitted. */
export interface SessionPlace {
  readonly sessionId: string;
  readonly replicaId: string;
  readonly slot: number;
  readonly admittedAtMs: number;
}

const GET: Statement = {
  name: 'session_get',
  text: `
SELECT id, turns, created_at AS "createdAt", expires_at AS "expiresAt",
       (extract(epoch FROM expires_at - now()) * 1000)::bigint::float8 AS "ttlMsRemaining",
       last_replica_id AS "lastReplicaId", last_slot AS "lastSlot", kv_until AS "kvUntil"
FROM sessions WHERE id = $1 AND expires_at > now()`,
};

export async function getSession(db: Database, sessionId: string): Promise<SessionRow | null> {
  return (await db.query<SessionRow>(GET, [sessionId]))[0] ?? null;
}

const DELETE: Statement = {
  name: 'session_delete',
  text: 'DELETE FROM sessions WHERE id = $1 RETURNING expires_at > now() AS live',
};

/** @returns false when there was no live session of that id. */
export async function deleteSession(db: Database, sessionId: string): Promise<boolean> {
  return (await db.query<{ live: boolean }>(DELETE, [sessionId]))[0]?.live ?? false;
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
