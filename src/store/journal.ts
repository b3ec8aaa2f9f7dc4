/** Pool events: numbered under one row's lock, so that number order is commit order and a reader never skips one. */
import type { Database, Statement } from './database.js';

export interface NewPoolEvent {
  /** Made by who tells it: telling it twice writes it once. */
  readonly id: string;
  readonly poolId: string;
  readonly replicaId: string | null;
  readonly kind: string;
  readonly message: string;
  readonly detail: Readonly<Record<string, unknown>> | null;
}

export interface StoredPoolEvent extends NewPoolEvent {
  /** Decimal; the cursor of the event. */
  readonly seq: string;
  readonly at: Date;
}

// What was told already takes no number, and neither does a pool that is gone.
const APPEND: Statement = {
  name: 'journal_append',
  text: `
WITH next AS (
  UPDATE journal SET last_seq = last_seq + 1 WHERE id = 1 AND EXISTS (SELECT 1 FROM pools p WHERE p.id = $2)
    AND NOT EXISTS (SELECT 1 FROM pool_events e WHERE e.id = $1::uuid) RETURNING last_seq
)
INSERT INTO pool_events (seq, id, pool_id, replica_id, kind, message, detail)
SELECT next.last_seq, $1::uuid, $2, $3, $4, $5, $6::jsonb FROM next ON CONFLICT (id) DO NOTHING`,
};

export async function appendPoolEvent(db: Database, event: NewPoolEvent): Promise<void> {
  const detail = event.detail === null ? null : JSON.stringify(event.detail);
  await db.query(APPEND, [event.id, event.poolId, event.replicaId, event.kind, event.message, detail]);
}

// Ordered by the column: `seq` alone would be the text of the answer, and 10 stand before 9.
const READ: Statement = {
  name: 'journal_read',
  text: `
SELECT e.seq::text AS seq, e.id, e.pool_id AS "poolId", e.replica_id AS "replicaId", e.kind, e.message, e.detail, e.at
FROM pool_events e WHERE e.seq > $1::bigint AND ($2::text IS NULL OR e.pool_id = $2) ORDER BY e.seq LIMIT $3`,
};

export async function readPoolEvents(
  db: Database,
  page: { readonly after: string; readonly poolId: string | null; readonly limit: number },
): Promise<StoredPoolEvent[]> {
  return db.query(READ, [page.after, page.poolId, page.limit]);
}

const HEAD: Statement = { name: 'journal_head', text: 'SELECT last_seq::text AS seq FROM journal WHERE id = 1' };

/** The number of the newest event; where a reader that wants only what is to come begins. */
export async function journalHead(db: Database): Promise<string> {
  return (await db.query<{ seq: string }>(HEAD, []))[0]?.seq ?? '0';
}
