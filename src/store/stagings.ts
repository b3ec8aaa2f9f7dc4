/** Models that are brought into the cache of a node: rows that tell how far each is, and take its cancel. */
import type { Reason } from '../core/pool.js';
import type { Database, Statement } from './database.js';
import { jsonbText } from './jsonb.js';
import { IS_GONE } from './nodes.js';

export type StagingState = 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'CANCELED';

const INSERT: Statement = {
  name: 'staging_insert',
  text: 'INSERT INTO model_stagings (id, model_id, node_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING id',
};

/** Of each model so many are remembered. */
const KEPT = 20;

const PRUNE: Statement = {
  name: 'staging_prune',
  text: `
DELETE FROM model_stagings WHERE state <> 'RUNNING' AND id IN (
  SELECT id FROM model_stagings WHERE model_id = $1 ORDER BY created_at DESC, id DESC OFFSET $2)`,
};

const UNDER_WAY: Statement = {
  name: 'staging_under_way',
  text: `SELECT id FROM model_stagings WHERE model_id = $1 AND node_id = $2 AND state = 'RUNNING'`,
};

/** @returns the id of the one that is under way for this model on this node; null: none is. */
export async function stagingUnderWay(db: Database, modelId: string, nodeId: string): Promise<string | null> {
  return (await db.query<{ id: string }>(UNDER_WAY, [modelId, nodeId]))[0]?.id ?? null;
}

/** @returns the id of the one that is under way for this model on this node, which may be an earlier one. */
export async function beginStaging(db: Database, id: string, modelId: string, nodeId: string): Promise<string> {
  if ((await db.query(INSERT, [id, modelId, nodeId])).length > 0) {
    await db.query(PRUNE, [modelId, KEPT]);
    return id;
  }
  // Or it ended between the two statements: the next attempt finds room.
  return (await stagingUnderWay(db, modelId, nodeId)) ?? beginStaging(db, id, modelId, nodeId);
}

const PROGRESS: Statement = {
  name: 'staging_progress',
  text: `
UPDATE model_stagings SET received_bytes = $2, total_bytes = $3, detail = $4 WHERE id = $1 AND state = 'RUNNING'
RETURNING cancel_requested_at IS NOT NULL AS "cancelRequested"`,
};

export interface StagingProgress {
  readonly receivedBytes: number;
  readonly totalBytes: number | null;
  readonly detail: string;
}

/** @returns whether it goes on being wanted: its row is there, and nobody asked to cancel it. */
export async function writeProgress(db: Database, id: string, progress: StagingProgress): Promise<boolean> {
  const { receivedBytes, totalBytes, detail } = progress;
  const rows = await db.query<{ cancelRequested: boolean }>(PROGRESS, [id, receivedBytes, totalBytes, detail]);
  return rows[0]?.cancelRequested === false;
}

const END: Statement = {
  name: 'staging_end',
  text: `
UPDATE model_stagings SET state = $2::staging_state, path = $3, error = $4::jsonb, detail = $5, ended_at = now(),
  received_bytes = coalesce($6, received_bytes), total_bytes = coalesce($6, total_bytes)
WHERE id = $1 AND state = 'RUNNING'`,
};

export async function endStaging(
  db: Database,
  id: string,
  end: {
    readonly state: Exclude<StagingState, 'RUNNING'>;
    readonly path: string | null;
    readonly error: Reason | null;
    readonly detail: string;
    /** Of what is there now; null: nothing new is. */
    readonly sizeBytes: number | null;
  },
): Promise<void> {
  const error = end.error === null ? null : jsonbText(end.error);
  await db.query(END, [id, end.state, end.path, error, end.detail, end.sizeBytes]);
}

const CANCEL: Statement = {
  name: 'staging_cancel',
  text: `
UPDATE model_stagings SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = $1
RETURNING node_id AS "nodeId", state`,
};

/** @returns null when there is none of that id. */
export async function requestCancel(
  db: Database,
  id: string,
): Promise<{ readonly nodeId: string; readonly state: StagingState } | null> {
  return (await db.query<{ nodeId: string; state: StagingState }>(CANCEL, [id]))[0] ?? null;
}

const RUNNING: Statement = {
  name: 'stagings_running',
  text: `SELECT id FROM model_stagings WHERE node_id = $1 AND state = 'RUNNING'`,
};

const CLOSE: Statement = {
  name: 'staging_close',
  text: `
UPDATE model_stagings s SET state = 'FAILED', ended_at = now(), error = $3::jsonb
WHERE s.state = 'RUNNING' AND (s.id = ANY($2::uuid[]) OR (
  s.node_id <> $1 AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = s.node_id AND NOT (${IS_GONE}))))`,
};

/**
 * Ends those of nodes that do not run any more, and those of this one that nobody carries out.
 * @param isOurs whether this node carries it out now; asked once its row was seen, which is never there before its run.
 */
export async function closeInterrupted(
  db: Database,
  nodeId: string,
  isOurs: (id: string) => boolean,
  reason: Reason,
): Promise<void> {
  const rows = await db.query<{ id: string }>(RUNNING, [nodeId]);
  const left = rows.map(({ id }) => id).filter((id) => !isOurs(id));
  await db.query(CLOSE, [nodeId, left, jsonbText(reason)]);
}
