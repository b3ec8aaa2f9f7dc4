/** Operations on pools (drain, resume, reload, restart): rows that outlive the process that carries them out. */
import type { Reason } from '../core/pool.js';
import type { Database, Statement } from './database.js';

export type OperationKind = 'DRAIN' | 'RESUME' | 'RELOAD' | 'RESTART';
export type OperationState = 'PENDING' | 'RUNNING' | 'SUCCEEDED' | 'ROLLED_BACK' | 'FAILED' | 'CANCELED';

export interface OperationStep {
  readonly name: string;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
}

// The partial unique index makes it one at a time per pool: a second one inserts nothing.
const BEGIN: Statement = {
  name: 'operation_begin',
  text: `
INSERT INTO operations (id, pool_id, kind, state, steps, input)
VALUES ($1, $2, $3::operation_kind, 'RUNNING', '[]', $4::jsonb) ON CONFLICT DO NOTHING RETURNING id`,
};

export async function beginOperation(
  db: Database,
  operation: { id: string; poolId: string; kind: OperationKind; input: Readonly<Record<string, unknown>> },
): Promise<boolean> {
  const values = [operation.id, operation.poolId, operation.kind, JSON.stringify(operation.input)];
  return (await db.query(BEGIN, values)).length > 0;
}

const UPDATE: Statement = {
  name: 'operation_update',
  text: `
UPDATE operations SET state = $2::operation_state, progress = $3, steps = $4::jsonb, outcome = $5, error = $6::jsonb,
  ended_at = CASE WHEN $2::operation_state IN ('PENDING', 'RUNNING') THEN NULL ELSE now() END
WHERE id = $1 AND state IN ('PENDING', 'RUNNING')`,
};

export async function updateOperation(
  db: Database,
  operation: {
    readonly id: string;
    readonly state: OperationState;
    readonly progress: number;
    readonly steps: readonly OperationStep[];
    readonly outcome: string | null;
    readonly error: Reason | null;
  },
): Promise<void> {
  const error = operation.error === null ? null : JSON.stringify(operation.error);
  await db.query(UPDATE, [
    operation.id,
    operation.state,
    operation.progress,
    JSON.stringify(operation.steps),
    operation.outcome,
    error,
  ]);
}

const ABANDON: Statement = {
  name: 'operation_abandon',
  text: `
UPDATE operations SET state = 'FAILED', ended_at = now(), outcome = 'interrupted', error = jsonb_build_object(
  'code', 'INTERRUPTED', 'message', 'The control plane stopped while this was running.', 'fix', 'Start it again.')
WHERE state IN ('PENDING', 'RUNNING')`,
};

/** At start: what an earlier life of this node left running will never be finished by anybody. */
export async function abandonOperations(db: Database): Promise<void> {
  await db.query(ABANDON, []);
}
