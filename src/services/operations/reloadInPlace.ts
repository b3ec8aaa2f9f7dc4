/** A reload without room for a second engine: the pool is emptied, its engines are started anew with the other model. */
import type { Reason } from '../../core/pool.js';
import { type PoolRow, setPoolModel } from '../../store/pools.js';
import { changeDraining, type PoolWorkDeps, workOf } from './drain.js';
import { checkServed, failureOf, keepOldModel, type ReloadOrder, waitForOldTasks } from './reloadOrder.js';
import { type OperationRun, type Outcome, reasonOf, StepFailure } from './run.js';

export async function reloadInPlace(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<Outcome> {
  const { pool } = order;
  run.skip('switch_over', 'the engines are swapped in place');
  const outcome = await drainAndSwap(deps, run, order);
  if (outcome.end === 'roll_back' && pool.draining) run.skip('grant_leases', 'the pool was drained before');
  else await run.step('grant_leases', () => run.insist('end of a reload', () => changeDraining(deps, pool.id, false)));
  return outcome;
}

async function drainAndSwap(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<Outcome> {
  const { pool, modelRef, drainDeadlineMs } = order;
  let swapped = false;
  try {
    await run.step('refuse_new_leases', () => changeDraining(deps, pool.id, true));
    const finished = await waitForOldTasks(deps, run, workOf(deps, pool.id), drainDeadlineMs);
    swapped = true;
    await run.step('swap_model', (say) => setModel(deps, run, pool.id, modelRef, say));
    await run.step('verify', async (say) => {
      const detail = checkServed(deps, order);
      // Before leases are granted: a crash from here on starts with the new model.
      await setPoolModel(deps.db, pool.id, modelRef);
      deps.supervisor.pool(pool.id).serves(modelRef);
      say(detail);
    });
    run.skip('stop_old', 'they made room for the new ones');
    run.skip('roll_back', 'the new model is ready');
    return { end: 'succeed', outcome: `serving ${modelRef}`, error: null, facts: { finished } };
  } catch (error) {
    return await rollBack(deps, run, pool, { reason: failureOf(deps, run, error), swapped });
  }
}

async function rollBack(
  deps: PoolWorkDeps,
  run: OperationRun,
  pool: PoolRow,
  { reason, swapped }: { readonly reason: Reason; readonly swapped: boolean },
): Promise<Outcome> {
  try {
    await run.step('roll_back', async (say) => {
      if (!swapped) return say(`${pool.modelRef} was not touched`);
      await keepOldModel(deps, run, pool);
      await setModel(deps, run, pool.id, pool.modelRef, say);
    });
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
  const managed = deps.supervisor.pool(poolId);
  const options = { deadlineMs: managed.readyDeadlineMs, signal: run.signal };
  const obstacle = await managed.setModel(modelRef, options);
  run.checkStop();
  if (obstacle !== null) throw new StepFailure(obstacle);
  say(`every replica was started with ${modelRef} and is ready`);
}
