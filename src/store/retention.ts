/**
 * Removal of what is old. Each statement takes a few rows, the oldest first, and leaves out those that another node has just
 * taken. Bounds on numbers are turned into a moment first: nothing that is written meanwhile can make it too late.
 */
import type { Bounds, Retained } from '../core/retention.js';
import type { Database, Statement } from './database.js';

interface Rules {
  /** Time of the newest row that is more than so many ($1) from the newest, or more bytes; both where there is such a bound. */
  readonly count?: Statement;
  readonly bytes?: Statement;
  /** Up to a moment ($1, ms), at most so many rows ($2). */
  readonly prune: Statement;
}

const BEYOND = '(extract(epoch FROM b.at) * 1000)::float8 AS "atMs"';

function newestBeyond(name: string, rows: string, order: string): Statement {
  return { name, text: `SELECT ${BEYOND} FROM (SELECT ${rows} ORDER BY ${order} OFFSET $1 LIMIT 1) b` };
}

// A task that runs has no end. What is being verified is needed for the verdict, and $3 is read by somebody now.
const TASKS: Rules = {
  count: newestBeyond(
    'retention_tasks_count',
    'ended_at AS at FROM tasks WHERE ended_at IS NOT NULL',
    'ended_at DESC, id DESC',
  ),
  prune: {
    name: 'retention_tasks',
    text: `
WITH due AS MATERIALIZED (
  SELECT t.id FROM tasks t
  WHERE t.ended_at <= to_timestamp($1 / 1000.0) AND t.status NOT IN ('QUEUED', 'LEASED', 'STREAMING')
    AND NOT (t.id = ANY($3::uuid[]))
    AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.task_id = t.id AND l.released_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM task_verifications v WHERE v.task_id = t.id AND v.verdict IS NULL)
    AND NOT EXISTS (SELECT 1 FROM task_verifications v WHERE v.rerun_id = t.id AND v.verdict IS NULL)
  ORDER BY t.ended_at, t.id LIMIT $2 FOR UPDATE SKIP LOCKED
), chunks AS (
  DELETE FROM stream_chunks c USING due WHERE c.task_id = due.id
), checks AS (
  DELETE FROM task_verifications v USING due WHERE v.task_id = due.id
), held AS (
  DELETE FROM leases l USING due WHERE l.task_id = due.id
)
DELETE FROM tasks t USING due WHERE t.id = due.id RETURNING 1`,
  },
};

// What a task names stays as long as the task does, and a parent as long as a child. Asked row by row, from the oldest on:
// as NOT EXISTS it would be joined, and read whole tables for a few rows.
const ARTIFACTS: Rules = {
  count: newestBeyond('retention_artifacts_count', 'created_at AS at FROM artifacts', 'created_at DESC, id DESC'),
  bytes: {
    name: 'retention_artifacts_bytes',
    text: `
SELECT ${BEYOND} FROM (
  SELECT created_at AS at, sum(size_bytes) OVER (ORDER BY created_at DESC, id DESC) AS total FROM artifacts
) b WHERE b.total > $1 ORDER BY b.at DESC LIMIT 1`,
  },
  prune: {
    name: 'retention_artifacts',
    text: `
WITH due AS MATERIALIZED (
  SELECT a.id FROM artifacts a
  WHERE a.created_at <= to_timestamp($1 / 1000.0)
    AND (SELECT c.id FROM artifacts c WHERE c.parent = a.id LIMIT 1) IS NULL
    AND (SELECT t.id FROM tasks t WHERE t.transcript_id = a.id LIMIT 1) IS NULL
    AND (SELECT t.id FROM tasks t WHERE t.result_id = a.id LIMIT 1) IS NULL
  ORDER BY a.created_at, a.id LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM artifacts a USING due WHERE a.id = due.id RETURNING 1`,
  },
};

const POOL_EVENTS: Rules = {
  count: newestBeyond('retention_pool_events_count', 'at FROM pool_events', 'seq DESC'),
  prune: {
    name: 'retention_pool_events',
    text: `
WITH due AS MATERIALIZED (
  SELECT e.seq FROM pool_events e WHERE e.at <= to_timestamp($1 / 1000.0) ORDER BY e.seq LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM pool_events e USING due WHERE e.seq = due.seq RETURNING 1`,
  },
};

/** Of rows that nothing points to. */
function byAge(table: string, key: string, at: string, also = ''): Rules {
  return {
    count: newestBeyond(
      `retention_${table}_count`,
      `${at} AS at FROM ${table} r WHERE ${at} IS NOT NULL`,
      `${at} DESC`,
    ),
    prune: {
      name: `retention_${table}`,
      text: `
WITH due AS MATERIALIZED (
  SELECT r.${key} AS key FROM ${table} r WHERE r.${at} <= to_timestamp($1 / 1000.0)${also}
  ORDER BY r.${at} LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM ${table} r USING due WHERE r.${key} = due.key RETURNING 1`,
    },
  };
}

// The last lease of a task goes with it.
const OF_THE_PAST = ' AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.lease_id = r.id)';

const RULES: Readonly<Record<Retained, Rules>> = {
  tasks: TASKS,
  artifacts: ARTIFACTS,
  pool_events: POOL_EVENTS,
  quote_grades: byAge('quote_grades', 'task_id', 'at'),
  leases: byAge('leases', 'id', 'released_at', OF_THE_PAST),
  crash_records: byAge('crash_records', 'id', 'at'),
};

/** For each bound on numbers that there is, the time of the newest row beyond it, ms; null: none is. */
export async function newestBeyondBounds(db: Database, what: Retained, bounds: Bounds): Promise<(number | null)[]> {
  const { count, bytes } = RULES[what];
  const asked: [Statement | undefined, number | null][] = [
    [count, bounds.maxCount],
    [bytes, bounds.maxBytes],
  ];
  const found: (number | null)[] = [];
  for (const [statement, bound] of asked) {
    if (statement === undefined || bound === null) continue;
    const [row] = await db.query<{ atMs: number }>(statement, [bound]);
    found.push(row?.atMs ?? null);
  }
  return found;
}

/** @param inUse tasks that are left alone. @returns how many rows went. */
export async function prune(
  db: Database,
  what: Retained,
  order: { readonly upToMs: number; readonly limit: number; readonly inUse: readonly string[] },
): Promise<number> {
  const { upToMs, limit, inUse } = order;
  const values = what === 'tasks' ? [upToMs, limit, inUse] : [upToMs, limit];
  return (await db.query(RULES[what].prune, values)).length;
}
