/** What both ways of a reload share: what is asked for, how they wait, and what stands in their way. */
import type { Reason } from '../../core/pool.js';
import { type PoolRow, setPoolModel } from '../../store/pools.js';
import { type PoolWorkDeps, type Work, waitForTasks } from './drain.js';
import { type OperationRun, reasonOf, StepFailure } from './run.js';

export interface ReloadOrder {
  /** As it is before. */
  readonly pool: PoolRow;
  readonly modelRef: string;
  readonly drainDeadlineMs: number;
  /** Of the request that asked for it. */
  readonly correlationId: string | undefined;
}

/** @returns how many tasks of the old model ended. @throws StepFailure when some still run at the deadline; they are left alone. */
export function waitForOldTasks(
  deps: PoolWorkDeps,
  run: OperationRun,
  work: Work,
  deadlineMs: number,
): Promise<number> {
  return run.step('wait_for_running_tasks', async (say) => {
    const waited = await waitForTasks(deps, run, work, deadlineMs);
    if (waited.left.length > 0) throw new StepFailure(drainTimeout(waited.detail));
    say(waited.detail);
    return waited.finished;
  });
}

function drainTimeout(message: string): Reason {
  const fix = 'Reload with a longer drain deadline, or cancel these tasks first.';
  return { code: 'DRAIN_TIMEOUT', message, fix };
}

/** The engines of the new model are still well, so that the old ones need not come back. @throws StepFailure */
export function checkServed(deps: PoolWorkDeps, { pool, modelRef }: ReloadOrder): string {
  const { replicas } = deps.supervisor.pool(pool.id);
  if (replicas.some(({ state }) => state === 'READY' || state === 'DRAINING')) {
    return `ready with ${modelRef}, engine ${deps.supervisor.health(pool.id).engineVersion ?? 'of unknown version'}`;
  }
  throw new StepFailure({
    code: 'VERIFY_FAILED',
    message: `no replica of ${pool.id} is ready with ${modelRef} although all of them were`,
    fix: 'Look at the logs of its replicas.',
  });
}

/** A write that failed may have been carried out all the same: the old model is written again until that is sure. */
export function keepOldModel(deps: PoolWorkDeps, run: OperationRun, pool: PoolRow): Promise<void> {
  return run.insist('roll back of a reload', () => setPoolModel(deps.db, pool.id, pool.modelRef));
}

/** What went wrong in a step; the log gets what nobody foresaw. @throws StepFailure when the control plane stops */
export function failureOf(deps: PoolWorkDeps, run: OperationRun, error: unknown): Reason {
  run.checkStop();
  const reason = reasonOf(error);
  if (reason.code === 'INTERNAL') deps.telemetry.backgroundFailure('reload', error);
  return reason;
}
