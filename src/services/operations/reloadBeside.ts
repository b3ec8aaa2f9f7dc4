/**
 * A reload that drops no stream: the new engines are started beside the old ones, take all new tasks from one moment on,
 * and the old ones end when their last task has. Until then the way back is to let the old ones serve again.
 */
import type { Reason } from '../../core/pool.js';
import { setPoolModel } from '../../store/pools.js';
import { changeDraining, forceStop, type PoolWorkDeps, waitForTasks, workOn } from './drain.js';
import { checkServed, failureOf, keepOldModel, type ReloadOrder, waitForOldTasks } from './reloadOrder.js';
import { type OperationRun, type Outcome, StepFailure } from './run.js';

/** The estimate said that there is room, and there was none: in place of the old engines there may be. */
const NO_ROOM: ReadonlySet<string> = new Set([
  'VRAM_INSUFFICIENT',
  'VRAM_OOM_LOAD',
  'KV_OOM',
  'VRAM_NOT_FREED',
  'HOST_MEMORY_INSUFFICIENT',
  'HOST_OOM',
]);

/** @returns null when there is no room beside after all; the old engines were not touched then. */
export async function reloadBeside(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<Outcome | null> {
  const { pool, modelRef, drainDeadlineMs } = order;
  let finished = 0;
  try {
    await startBeside(deps, run, order);
  } catch (error) {
    const failure = failureOf(deps, run, error);
    if (!NO_ROOM.has(failure.code)) return await rollBack(deps, run, order, failure);
    await stopBeside(deps, run, pool.id, () => {});
    return null;
  }
  try {
    await switchOver(deps, run, order);
    run.skip('refuse_new_leases', 'new tasks go to the new engines');
    finished = await waitForOldTasks(deps, run, workBeside(deps, pool.id), drainDeadlineMs);
    run.skip('swap_model', 'the new engines were started beside the old ones');
    await run.step('verify', async (say) => say(checkServed(deps, order)));
  } catch (error) {
    return await rollBack(deps, run, order, failureOf(deps, run, error));
  }
  await run.step('stop_old', (say) => stopBeside(deps, run, pool.id, say));
  run.skip('roll_back', 'the new model serves');
  await grantLeases(deps, run, order);
  return { end: 'succeed', outcome: `serving ${modelRef}`, error: null, facts: { finished } };
}

function startBeside(deps: PoolWorkDeps, run: OperationRun, { pool, modelRef }: ReloadOrder): Promise<void> {
  return run.step('start_beside', async (say) => {
    const managed = deps.supervisor.pool(pool.id);
    const options = { deadlineMs: managed.readyDeadlineMs, signal: run.signal };
    const obstacle = await managed.startBeside(modelRef, options);
    run.checkStop();
    if (obstacle !== null) throw new StepFailure(obstacle);
    say(`${managed.beside.map(({ facts }) => facts.id).join(', ')} ready with ${modelRef}`);
  });
}

/** The row is the commit point: a crash before it starts with the old model, one after it with the new. */
function switchOver(deps: PoolWorkDeps, run: OperationRun, { pool, modelRef }: ReloadOrder): Promise<void> {
  return run.step('switch_over', async (say) => {
    await setPoolModel(deps.db, pool.id, modelRef);
    deps.supervisor.pool(pool.id).switchOver();
    say(`new tasks go to ${modelRef}`);
  });
}

async function grantLeases(deps: PoolWorkDeps, run: OperationRun, { pool }: ReloadOrder): Promise<void> {
  if (!pool.draining) return run.skip('grant_leases', 'they were granted all the time');
  await run.step('grant_leases', () => run.insist('end of a reload', () => changeDraining(deps, pool.id, false)));
}

function workBeside(deps: PoolWorkDeps, poolId: string) {
  const ids = deps.supervisor.pool(poolId).beside.map(({ facts }) => facts.id);
  return workOn(deps, poolId, new Set(ids));
}

async function stopBeside(
  deps: PoolWorkDeps,
  run: OperationRun,
  poolId: string,
  say: (detail: string) => void,
): Promise<void> {
  const managed = deps.supervisor.pool(poolId);
  const names = managed.beside.map(({ facts }) => facts.id).join(', ');
  await run.insist('end of replicas', () => managed.stopBeside());
  run.checkStop();
  say(`${names} stopped`);
}

async function rollBack(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder, reason: Reason): Promise<Outcome> {
  const { pool } = order;
  let forceStopped = 0;
  await run.step('roll_back', async (say) => {
    const managed = deps.supervisor.pool(pool.id);
    await keepOldModel(deps, run, pool);
    const switched = managed.modelRef !== pool.modelRef;
    if (switched) {
      managed.switchOver();
      forceStopped = await endNewTasks(deps, run, order);
    }
    await stopBeside(deps, run, pool.id, () => {});
    say(switched ? `${pool.modelRef} serves again` : `${pool.modelRef} never stopped serving`);
  });
  run.skip('grant_leases', pool.draining ? 'the pool was drained before' : 'they were granted all the time');
  return { end: 'roll_back', outcome: `still serving ${pool.modelRef}`, error: reason, facts: { forceStopped } };
}

/** Tasks that the new engines took meanwhile end there. @returns how many were stopped at the deadline. */
async function endNewTasks(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<number> {
  const { pool, drainDeadlineMs } = order;
  const { left } = await waitForTasks(deps, run, workBeside(deps, pool.id), drainDeadlineMs);
  if (left.length === 0) return 0;
  for (const { task } of left) deps.telemetry.stoppedByReload({ engine: pool.engine, poolId: pool.id }, task.id);
  await forceStop(left, 'the model it runs on was taken back');
  return left.length;
}
