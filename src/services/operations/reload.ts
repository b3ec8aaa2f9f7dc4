/** Swaps the model of a pool: drained, swapped on every replica, verified, and put back when that failed. */
import type { Reason } from '../../core/pool.js';
import { type PoolRow, setPoolModel } from '../../store/pools.js';
import { changeDraining, drainPool, type PoolWorkDeps } from './drain.js';
import { type OperationRun, type Outcome, reasonOf, StepFailure } from './run.js';

export interface ReloadOrder {
  readonly pool: PoolRow;
  readonly modelRef: string;
  readonly drainDeadlineMs: number;
}

export async function reload(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<Outcome> {
  const { pool } = order;
  const facts = { engine: pool.engine, poolId: pool.id };
  const startedMs = deps.clock.monotonicMs();
  const ended = (reason: string | null) => deps.telemetry.reloaded(facts, deps.clock.monotonicMs() - startedMs, reason);
  try {
    if (!(await checkModel(deps, run, order))) {
      return { end: 'succeed', outcome: `already serving ${pool.modelRef}, nothing was done`, error: null };
    }
    const outcome = await drainAndSwap(deps, run, order);
    ended(outcome.error?.code ?? null);
    return outcome;
  } catch (error) {
    ended(reasonOf(error).code);
    throw error;
  }
}

/** @returns whether there is anything to do. @throws StepFailure */
function checkModel(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<boolean> {
  const { pool, modelRef } = order;
  return run.step('check_model', async (say) => {
    if (modelRef === pool.modelRef) {
      say(`the pool serves ${modelRef} already; there is nothing to do`);
      return false;
    }
    const obstacle = deps.supervisor.checkModel(pool.id, modelRef);
    if (obstacle !== null) throw new StepFailure(obstacle);
    say(`${modelRef} in place of ${pool.modelRef}`);
    return true;
  });
}

async function drainAndSwap(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<Outcome> {
  const { pool, modelRef, drainDeadlineMs } = order;
  try {
    const report = await drainPool(deps, run, { pool, deadlineMs: drainDeadlineMs });
    const facts = { finished: report.finished, forceStopped: report.forceStopped };
    const reason = await swap(deps, run, order);
    if (reason !== null) return { ...(await rollBack(deps, run, pool, reason)), facts };
    run.skip('roll_back', 'the new model is ready');
    return { end: 'succeed', outcome: `serving ${modelRef}`, error: null, facts };
  } finally {
    // After a stop the next start opens every pool.
    if (!run.signal.aborted) {
      await run.step('grant_leases', () => run.insist('end of a reload', () => changeDraining(deps, pool.id, false)));
    }
  }
}

/** @returns null when every replica is ready with the new model, else what went wrong. */
async function swap(deps: PoolWorkDeps, run: OperationRun, { pool, modelRef }: ReloadOrder): Promise<Reason | null> {
  try {
    await run.step('swap_model', (say) => setModel(deps, run, pool.id, modelRef, say));
    await run.step('verify', async (say) => {
      const served = deps.supervisor.candidates().find((candidate) => candidate.id === pool.id);
      if (served?.ready !== true || served.modelRef !== modelRef) {
        throw new StepFailure({
          code: 'VERIFY_FAILED',
          message: `${pool.id} does not serve ${modelRef} although its replicas were ready with it`,
          fix: 'Look at the logs of its replicas.',
        });
      }
      // Before leases are granted: a crash from here on starts with the new model.
      await setPoolModel(deps.db, pool.id, modelRef);
      say(`ready with ${modelRef}, engine ${deps.supervisor.health(pool.id).engineVersion ?? 'of unknown version'}`);
    });
    return null;
  } catch (error) {
    run.checkStop();
    const reason = reasonOf(error);
    if (reason.code === 'INTERNAL') deps.telemetry.backgroundFailure('reload', error);
    return reason;
  }
}

async function rollBack(deps: PoolWorkDeps, run: OperationRun, pool: PoolRow, reason: Reason): Promise<Outcome> {
  try {
    await run.step('roll_back', (say) => setModel(deps, run, pool.id, pool.modelRef, say));
    return { end: 'roll_back', outcome: `still serving ${pool.modelRef}`, error: reason };
  } catch (error) {
    run.checkStop();
    const message = `${reason.message} Then ${pool.modelRef} did not come back: ${reasonOf(error).message}`;
    return { end: 'fail', outcome: 'neither model is ready', error: { ...reason, message } };
  }
}

async function setModel(
  deps: PoolWorkDeps,
  run: OperationRun,
  poolId: string,
  modelRef: string,
  say: (detail: string) => void,
): Promise<void> {
  const options = { deadlineMs: deps.supervisor.readyDeadlineMs(poolId), signal: run.signal };
  const obstacle = await deps.supervisor.setModel(poolId, modelRef, options);
  run.checkStop();
  if (obstacle !== null) throw new StepFailure(obstacle);
  say(`every replica was started with ${modelRef} and is ready`);
}
