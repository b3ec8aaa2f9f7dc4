/**
 * Where tasks that end with their readers are read: one row per task and node, written by that node alone. So no two nodes
 * have to agree on anything, and what a node that is gone had written ends with its heartbeat.
 */
import { NODE_TTL_MS } from '../core/node.js';
import type { Database, Statement } from './database.js';
import { IS_GONE } from './nodes.js';

const IS_ACTIVE = `t.status IN ('QUEUED', 'LEASED', 'STREAMING')`;

const WATCH: Statement = {
  name: 'readers_watch',
  text: `UPDATE tasks t SET disconnect_grace_ms = $2 WHERE t.id = $1 AND ${IS_ACTIVE}`,
};

/** From now on the task ends with its readers; one that has ended is left alone. The last word counts. */
export async function endWithReaders(db: Database, taskId: string, graceMs: number): Promise<void> {
  await db.query(WATCH, [taskId, graceMs]);
}

const WRITE: Statement = {
  name: 'readers_write',
  text: `
WITH here AS (
  INSERT INTO task_readers (task_id, node_id)
  SELECT t.id, $1::uuid FROM unnest($2::uuid[]) AS i(id) JOIN tasks t ON t.id = i.id
  WHERE t.disconnect_grace_ms IS NOT NULL AND ${IS_ACTIVE}
  ON CONFLICT (task_id, node_id) DO UPDATE SET gone_at = NULL
)
UPDATE task_readers SET gone_at = now() WHERE node_id = $1::uuid AND task_id = ANY($3::uuid[]) AND gone_at IS NULL`,
};

/** Tasks that this node has readers of now, and tasks whose last reader here went. One id is in one of the two. */
export async function writeReaders(
  db: Database,
  nodeId: string,
  tasks: { readonly here: readonly string[]; readonly gone: readonly string[] },
): Promise<void> {
  await db.query(WRITE, [nodeId, tasks.here, tasks.gone]);
}

const BEGIN: Statement = {
  name: 'readers_begin',
  text: 'UPDATE task_readers SET gone_at = now() WHERE node_id = $1',
};

/** The readers of an earlier life of this node are gone; they are given the whole grace to come back to this one. */
export async function beginReaders(db: Database, nodeId: string): Promise<void> {
  await db.query(BEGIN, [nodeId]);
}

const ELSEWHERE: Statement = {
  name: 'readers_elsewhere',
  text: `
SELECT DISTINCT r.task_id AS id FROM task_readers r
WHERE r.node_id <> $1 AND NOT EXISTS (
  SELECT 1 FROM task_readers o WHERE o.task_id = r.task_id AND o.node_id = $1 AND o.gone_at IS NULL)`,
};

/** Tasks that end with their readers, as far as others have any and this node has not said that it has. */
export async function readElsewhere(db: Database, nodeId: string): Promise<string[]> {
  return (await db.query<{ id: string }>(ELSEWHERE, [nodeId])).map(({ id }) => id);
}

// A node that was killed had its readers until it was missed.
const LEFT: Statement = {
  name: 'readers_left',
  text: `
SELECT r.task_id AS id FROM task_readers r JOIN nodes n ON n.id = r.node_id JOIN tasks t ON t.id = r.task_id
WHERE t.disconnect_grace_ms IS NOT NULL AND ${IS_ACTIVE}
GROUP BY r.task_id, t.disconnect_grace_ms
HAVING max(coalesce(r.gone_at, n.stopped_at, CASE WHEN $1 AND ${IS_GONE}
    THEN n.seen_at + interval '${NODE_TTL_MS} milliseconds' ELSE 'infinity' END))
  <= now() - t.disconnect_grace_ms * interval '1 millisecond'
LIMIT 100`,
};

/**
 * Tasks that were read once, and whose last reader anywhere has been gone for their grace period.
 * @param knowsOthers whether a node that has not said so for long can be taken for gone.
 */
export async function leftTasks(db: Database, knowsOthers: boolean): Promise<string[]> {
  return (await db.query<{ id: string }>(LEFT, [knowsOthers])).map(({ id }) => id);
}

const FORGET: Statement = {
  name: 'readers_forget',
  text: `
DELETE FROM task_readers WHERE (task_id, node_id) IN (
  SELECT r.task_id, r.node_id FROM task_readers r JOIN tasks t ON t.id = r.task_id WHERE NOT ${IS_ACTIVE}
  LIMIT 1000 FOR UPDATE OF r SKIP LOCKED)`,
};

/** Of tasks that have ended. */
export async function forgetReaders(db: Database): Promise<void> {
  await db.query(FORGET, []);
}
