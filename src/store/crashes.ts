/** Crash records: why engine processes ended without having been asked to, the newest of each replica. */
import type { FlagChange } from '../core/flags.js';
import type { Database, Statement } from './database.js';

export interface CrashRow {
  readonly id: string;
  readonly poolId: string;
  readonly replicaId: string;
  readonly atMs: number;
  readonly modelRef: string;
  readonly engineVersion: string | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly fault: string;
  readonly message: string;
  readonly fix: string | null;
  readonly lastLines: readonly string[];
  readonly launchArgs: readonly string[] | null;
  readonly flagChanges: readonly FlagChange[];
  readonly ranForMs: number;
  readonly readyForMs: number | null;
}

// A pool that another node took out of the configuration has no crashes any more.
const INSERT: Statement = {
  name: 'crash_insert',
  text: `
INSERT INTO crash_records (id, pool_id, replica_id, at, model_ref, engine_version, exit_code, signal, fault, message, fix,
  last_lines, launch_args, flag_changes, ran_for_ms, ready_for_ms)
SELECT $1::uuid, p.id, $3, to_timestamp($4 / 1000.0), $5, $6, $7, $8, $9, $10, $11, $12::jsonb, $13::jsonb, $14::jsonb, $15, $16
FROM pools p WHERE p.id = $2
ON CONFLICT (id) DO NOTHING`,
};

/** Again with the same id, e.g. when the answer was lost, it changes nothing. */
export async function insertCrash(db: Database, crash: CrashRow): Promise<void> {
  await db.query(INSERT, [
    crash.id,
    crash.poolId,
    crash.replicaId,
    crash.atMs,
    crash.modelRef,
    crash.engineVersion,
    crash.exitCode,
    crash.signal,
    crash.fault,
    crash.message,
    crash.fix,
    JSON.stringify(crash.lastLines),
    crash.launchArgs === null ? null : JSON.stringify(crash.launchArgs),
    JSON.stringify(crash.flagChanges),
    crash.ranForMs,
    crash.readyForMs,
  ]);
}

const PRUNE: Statement = {
  name: 'crash_prune',
  text: `
DELETE FROM crash_records WHERE id IN (
  SELECT id FROM crash_records WHERE replica_id = $1 ORDER BY at DESC, id DESC OFFSET $2)`,
};

/** Keeps the newest `kept` of a replica. */
export async function pruneCrashes(db: Database, replicaId: string, kept: number): Promise<void> {
  await db.query(PRUNE, [replicaId, kept]);
}

const WRITE_GOOD_ARGS: Statement = {
  name: 'replica_good_args',
  text: 'UPDATE replicas SET good_launch_args = $2::jsonb WHERE id = $1 RETURNING id',
};

/** @returns false when the replica has no row, or none yet. */
export async function writeGoodLaunchArgs(db: Database, replicaId: string, args: readonly string[]): Promise<boolean> {
  return (await db.query(WRITE_GOOD_ARGS, [replicaId, JSON.stringify(args)])).length > 0;
}

const READ_GOOD_ARGS: Statement = {
  name: 'replica_good_args_read',
  text: 'SELECT good_launch_args AS args FROM replicas WHERE id = $1',
};

/** Null: no start of the replica became ready, or not one of ours. */
export async function readGoodLaunchArgs(db: Database, replicaId: string): Promise<readonly string[] | null> {
  const [row] = await db.query<{ args: readonly string[] | null }>(READ_GOOD_ARGS, [replicaId]);
  return row?.args ?? null;
}
