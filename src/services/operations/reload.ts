/**
 * Gives a pool another model: with room for them, new engines beside those that serve (`reloadBeside`), else in their
 * place (`reloadInPlace`). Atomic either way: the pool's row is the commit point, and what fails leaves the old model.
 */
import type { Room } from '../supervision/room.js';
import type { PoolWorkDeps } from './drain.js';
import { reloadBeside } from './reloadBeside.js';
import { reloadInPlace } from './reloadInPlace.js';
import type { ReloadOrder } from './reloadOrder.js';
import { type OperationRun, type Outcome, reasonOf, StepFailure } from './run.js';

export async function reload(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<Outcome> {
  const { pool, correlationId } = order;
  const facts = { engine: pool.engine, poolId: pool.id, correlationId };
  const startedMs = deps.clock.monotonicMs();
  const ended = (reason: string | null) => deps.telemetry.reloaded(facts, deps.clock.monotonicMs() - startedMs, reason);
  try {
    const room = await checkModel(deps, run, order);
    if (room === null) {
      return { end: 'succeed', outcome: `already serving ${pool.modelRef}, nothing was done`, error: null };
    }
    if (room.kind === 'none') run.skip('start_beside', `no room beside: ${room.reason.message}`);
    const beside = room.kind === 'beside' ? await reloadBeside(deps, run, order) : null;
    const outcome = beside ?? (await reloadInPlace(deps, run, order));
    ended(outcome.error?.code ?? null);
    return outcome;
  } catch (error) {
    ended(reasonOf(error).code);
    throw error;
  }
}

/** @returns where the new engines can be; null when there is nothing to do. @throws StepFailure */
function checkModel(deps: PoolWorkDeps, run: OperationRun, order: ReloadOrder): Promise<Room | null> {
  const { pool, modelRef } = order;
  return run.step('check_model', async (say) => {
    if (modelRef === pool.modelRef) {
      say(`the pool serves ${modelRef} already; there is nothing to do`);
      return null;
    }
    const managed = deps.supervisor.pool(pool.id);
    const obstacle = managed.recipe.check(modelRef);
    if (obstacle !== null) throw new StepFailure(obstacle);
    const room = await managed.room(modelRef);
    if (room.kind === 'refused') throw new StepFailure(room.reason);
    say(`${modelRef} in place of ${pool.modelRef}`);
    return room;
  });
}
