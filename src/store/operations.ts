/** Operations on pools (drain, resume, reload, restart): rows that outlive the process that carries them out. */
import type { OperationKind, OperationState, OperationStep } from '../core/operation.js';
import type { Reason } from '../core/pool.js';
import type { Database, Statement } from './database.js';
import { jsonbText } from './jsonb.js';
import { IS_GONE } from './nodes.js';

export interface OperationRecord {
  readonly id: string;
  readonly poolId: string;
  /** The node that carries it out; null: one of a version that did not write it down. */
  readonly nodeId: string | null;
  readonly kind: OperationKind;
  readonly state: OperationState;
  readonly progress: number;
  readonly steps: readonly OperationStep[];
  readonly input: Readonly<Record<string, unknown>>;
  readonly outcome: string | null;
  readonly error: Reason | null;
  /** Rises with every change. */
  readonly revision: number;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
}

const COLUMNS = `id, pool_id AS "poolId", node_id AS "nodeId", kind, state, progress, steps, input, outcome, error, revision,
  created_at AS "createdAt", started_at AS "startedAt", ended_at AS "endedAt"`;

// The partial unique index makes it one at a time per pool: a second one inserts nothing.
const INSERT: Statement = {
  name: 'operation_insert',
  text: `
INSERT INTO operations (id, pool_id, kind, state, steps, input, created_at, node_id)
VALUES ($1, $2, $3::operation_kind, 'PENDING', $4::jsonb, $5::jsonb, to_timestamp($6 / 1000.0), $7)
ON CONFLICT DO NOTHING RETURNING id`,
};

export interface NewOperation extends Pick<OperationRecord, 'id' | 'poolId' | 'kind' | 'steps' | 'input'> {
  readonly createdAtMs: number;
  readonly nodeId: string;
}

/** @returns false when an operation on the pool is under way: another, or this one, if it was written before. */
export async function insertOperation(db: Database, operation: NewOperation): Promise<boolean> {
  const { id, poolId, kind, steps, input, createdAtMs, nodeId } = operation;
  const values = [id, poolId, kind, jsonbText(steps), jsonbText(input), createdAtMs, nodeId];
  return (await db.query(INSERT, values)).length > 0;
}

const UPDATE: Statement = {
  name: 'operation_update',
  text: `
UPDATE operations SET state = $2::operation_state, progress = $3, steps = $4::jsonb, outcome = $5, error = $6::jsonb,
  revision = $7, started_at = to_timestamp($8 / 1000.0), ended_at = to_timestamp($9 / 1000.0)
WHERE id = $1 AND state IN ('PENDING', 'RUNNING') AND revision < $7
RETURNING ${COLUMNS}`,
};

export interface OperationChange {
  readonly id: string;
  readonly state: OperationState;
  readonly progress: number;
  readonly steps: readonly OperationStep[];
  readonly outcome: string | null;
  readonly error: Reason | null;
  readonly revision: number;
  readonly startedAtMs: number | null;
  readonly endedAtMs: number | null;
}

/** @returns the row as it is now; null when it had ended, or a later revision was written. */
export async function updateOperation(db: Database, change: OperationChange): Promise<OperationRecord | null> {
  const rows = await db.query<OperationRecord>(UPDATE, [
    change.id,
    change.state,
    change.progress,
    jsonbText(change.steps),
    change.outcome?.replaceAll('\0', '\uFFFD') ?? null,
    change.error === null ? null : jsonbText(change.error),
    change.revision,
    change.startedAtMs,
    change.endedAtMs,
  ]);
  return rows[0] ?? null;
}

const READ: Statement = { name: 'operation_read', text: `SELECT ${COLUMNS} FROM operations WHERE id = $1::uuid` };

export async function readOperation(db: Database, id: string): Promise<OperationRecord | null> {
  return (await db.query<OperationRecord>(READ, [id]))[0] ?? null;
}

const UNDER_WAY: Statement = {
  name: 'operation_under_way',
  text: `SELECT ${COLUMNS} FROM operations WHERE pool_id = $1 AND state IN ('PENDING', 'RUNNING')`,
};

export async function operationUnderWay(db: Database, poolId: string): Promise<OperationRecord | null> {
  return (await db.query<OperationRecord>(UNDER_WAY, [poolId]))[0] ?? null;
}

// The same closing of steps as core/operation does, for rows whose writer is gone.
const close = (which: string) => `
UPDATE operations SET state = 'FAILED', progress = 1, revision = revision + 1, ended_at = now(), outcome = 'interrupted',
  error = jsonb_build_object('code', 'INTERRUPTED', 'message', 'The control plane stopped while this was running.',
    'fix', 'Start it again.'),
  steps = (SELECT coalesce(jsonb_agg(CASE s.step ->> 'state'
      WHEN 'RUNNING' THEN s.step || jsonb_build_object('state', 'FAILED',
        'endedAtMs', floor(extract(epoch FROM now()) * 1000)::bigint, 'detail', 'the control plane stopped here')
      WHEN 'PENDING' THEN s.step || '{"state": "SKIPPED"}'
      ELSE s.step END ORDER BY s.place), '[]')
    FROM jsonb_array_elements(steps) WITH ORDINALITY AS s(step, place))
WHERE state IN ('PENDING', 'RUNNING') AND ${which}`;

const ABANDON: Statement = {
  name: 'operation_abandon',
  text: close(`CASE WHEN node_id IS NULL OR node_id = $1 THEN $2
  ELSE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = node_id AND NOT ${IS_GONE}) END`),
};

/**
 * What a node that is gone left running will never be finished by anybody.
 * @param which also, at a start, what an earlier life of this node left.
 */
export async function abandonOperations(
  db: Database,
  nodeId: string,
  which: 'of nodes that are gone' | 'and ours',
): Promise<void> {
  await db.query(ABANDON, [nodeId, which === 'and ours']);
}

const CLOSE: Statement = { name: 'operation_close', text: close('id = $1::uuid') };

/** Nobody carries it out: the answer to its insert was lost, and its caller was told that nothing was begun. */
export async function closeLeftBehind(db: Database, id: string): Promise<void> {
  await db.query(CLOSE, [id]);
}
