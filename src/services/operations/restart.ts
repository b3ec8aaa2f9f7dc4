/** Starts the engine of one replica anew. Its tasks lose their engine, as in a crash: they run again where that is honest. */
import { conflict, RefusalError } from '../../core/errors.js';
import type { Reason } from '../../core/pool.js';
import { pollUntil } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { listReplicas, type ReplicaRow } from '../../store/pools.js';
import type { PoolWorkDeps } from './drain.js';
import { type OperationRun, type Outcome, StepFailure } from './run.js';

const LOOK_EVERY_MS = 100;

export async function findReplica(db: Database, replicaId: string): Promise<ReplicaRow | null> {
  return (await listReplicas(db)).find((row) => row.id === replicaId) ?? null;
}

/** @throws RefusalError when there is no process of ours to end. */
export function checkRestart(replica: ReplicaRow): void {
  if (replica.pid !== null) return;
  const fix = replica.state === 'QUARANTINED' ? '; resume its pool to start it' : '';
  const message = `replica ${replica.id} is ${replica.state} and has no engine process of ours${fix}`;
  throw new RefusalError(conflict('replica', message));
}

export async function restart(deps: PoolWorkDeps, run: OperationRun, replica: ReplicaRow): Promise<Outcome> {
  await run.step('stop_engine', async (say) => {
    const reason = { code: 'RESTARTED', message: 'restarted by an operator', fix: null };
    await deps.supervisor.recycle(replica.id, { reason, blame: false });
    say(`process ${replica.pid} is gone`);
  });
  await run.step('verify', async (say) => {
    const last: { row: ReplicaRow | null } = { row: null };
    const look = async () => {
      // A database that does not answer now is asked again at the next look.
      last.row = await findReplica(deps.db, replica.id).catch(() => null);
      return isReadyAnew(last.row, replica) || isGivenUp(last.row);
    };
    const deadlineMs = deps.supervisor.pool(replica.poolId).readyDeadlineMs;
    await pollUntil(look, { everyMs: LOOK_EVERY_MS, deadlineMs, signal: run.signal });
    run.checkStop();
    if (!isReadyAnew(last.row, replica)) throw new StepFailure(notReady(replica.id, last.row, deadlineMs));
    say(`${replica.id} is ready again`);
  });
  return { end: 'succeed', outcome: `${replica.id} was restarted`, error: null, facts: { replica: replica.id } };
}

/** By its pid: the row may still speak of the process that is gone. */
function isReadyAnew(row: ReplicaRow | null, before: ReplicaRow): boolean {
  return row?.state === 'READY' && row.pid !== before.pid;
}

/** It is not started again by itself; a resume would, and must not wait for this. */
function isGivenUp(row: ReplicaRow | null): boolean {
  return row?.state === 'QUARANTINED' || row?.state === 'FAILED';
}

function notReady(replicaId: string, row: ReplicaRow | null, deadlineMs: number): Reason {
  const message = `${replicaId} was not ready within ${deadlineMs} ms`;
  return row?.lastError ?? { code: 'START_TIMEOUT', message, fix: 'Look at its log.' };
}
