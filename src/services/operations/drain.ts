/** Empties a pool: no new leases, running tasks finish, and what is left at the deadline is stopped. */
import type { Engine } from '../../core/errors.js';
import type { Clock } from '../../runtime/clock.js';
import { delay, pollUntil } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { activeLeases } from '../../store/leases.js';
import { setDraining } from '../../store/pools.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { Attempt } from '../attempt.js';
import type { Dispatcher } from '../dispatcher.js';
import type { Supervisor } from '../supervision/supervisor.js';
import type { OperationRun, Outcome } from './run.js';

const LOOK_EVERY_MS = 50;
/** A stopped run tells its engine and writes down what it has; what is slower than this ends by itself. */
const FORCE_STOP_DEADLINE_MS = 30_000;

export interface PoolWorkDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly dispatcher: Dispatcher;
  readonly supervisor: Supervisor;
  readonly telemetry: Telemetry;
}

export interface PoolName {
  readonly id: string;
  readonly engine: Engine;
}

/** How many tasks ran when the drain began: those that ended by themselves, and those that were stopped. */
export interface DrainReport {
  readonly finished: number;
  readonly forceStopped: number;
}

export async function drain(
  deps: PoolWorkDeps,
  run: OperationRun,
  order: { readonly pool: PoolName; readonly deadlineMs: number },
): Promise<Outcome> {
  const report = await drainPool(deps, run, order);
  const { finished, forceStopped } = report;
  const outcome = `drained: ${tasks(finished)} finished, ${forceStopped} force-stopped`;
  return { end: 'succeed', outcome, error: null, facts: { finished, forceStopped } };
}

/** The three steps of a drain, for a reload as well. */
export async function drainPool(
  deps: PoolWorkDeps,
  run: OperationRun,
  order: { readonly pool: PoolName; readonly deadlineMs: number },
): Promise<DrainReport> {
  const { pool, deadlineMs } = order;
  const startedMs = deps.clock.monotonicMs();
  await run.step('refuse_new_leases', () => changeDraining(deps, pool.id, true));
  const seen = new Set<Attempt>();
  const left = await run.step('wait_for_running_tasks', async (say) => {
    const idle = await waitUntilIdle(deps, run, pool.id, deadlineMs, seen);
    run.checkStop();
    const running = idle ? [] : deps.dispatcher.attemptsOf(pool.id);
    const late = running.length === 0 ? '' : `; ${running.length} ran on at the deadline of ${deadlineMs} ms`;
    say(seen.size === 0 ? 'no task was running' : `${tasks(finishedOf(seen, running))} finished${late}`);
    return running;
  });
  if (left.length === 0) run.skip('force_stop', 'no task was left to stop');
  else await run.step('force_stop', (say) => forceStop(deps, run, pool, left, say));
  const report = { finished: finishedOf(seen, left), forceStopped: left.length };
  deps.telemetry.drained({ engine: pool.engine, poolId: pool.id }, deps.clock.monotonicMs() - startedMs, report);
  return report;
}

export async function changeDraining(deps: PoolWorkDeps, poolId: string, draining: boolean): Promise<void> {
  await setDraining(deps.db, poolId, draining);
  deps.supervisor.setDraining(poolId, draining);
  deps.dispatcher.wake();
}

/** Whoever lost its engine meanwhile waits in the queue again, and did not finish. */
function finishedOf(seen: ReadonlySet<Attempt>, left: readonly Attempt[]): number {
  return [...seen].filter((attempt) => !left.includes(attempt) && attempt.claimableInMs === null).length;
}

async function waitUntilIdle(
  deps: PoolWorkDeps,
  run: OperationRun,
  poolId: string,
  deadlineMs: number,
  seen: Set<Attempt>,
): Promise<boolean> {
  let idleLooks = 0;
  const look = async () => {
    const running = deps.dispatcher.attemptsOf(poolId);
    for (const attempt of running) seen.add(attempt);
    const held = await holdsLeases(deps, poolId);
    idleLooks = running.length === 0 && !held ? idleLooks + 1 : 0;
    // Twice: a claim that was under way when the drain began shows only once it is committed.
    return idleLooks >= 2;
  };
  return pollUntil(look, { everyMs: LOOK_EVERY_MS, deadlineMs, signal: run.signal });
}

/** A database that does not answer now is asked again at the next look. */
async function holdsLeases({ db, telemetry }: PoolWorkDeps, poolId: string): Promise<boolean> {
  try {
    return (await activeLeases(db)).some((lease) => lease.poolId === poolId);
  } catch (error) {
    telemetry.backgroundFailure('drain', error);
    return true;
  }
}

async function forceStop(
  deps: PoolWorkDeps,
  run: OperationRun,
  pool: PoolName,
  left: readonly Attempt[],
  say: (detail: string) => void,
): Promise<void> {
  if (run.facts.kind === 'RELOAD') {
    for (const { task } of left) deps.telemetry.stoppedByReload({ engine: pool.engine, poolId: pool.id }, task.id);
  }
  const over = new AbortController();
  const stopped = Promise.all(left.map((attempt) => attempt.interrupt('the pool was drained')));
  try {
    await Promise.race([stopped, delay(FORCE_STOP_DEADLINE_MS, over.signal)]);
  } finally {
    over.abort();
  }
  const again = left.filter((attempt) => attempt.claimableInMs !== null).length;
  say(`${left.length} force-stopped, ${again} of them run again when the pool takes work`);
}

function tasks(count: number): string {
  return count === 1 ? '1 task' : `${count} tasks`;
}
