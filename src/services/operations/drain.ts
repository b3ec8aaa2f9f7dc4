/** Empties a pool: no new leases, running tasks finish, and what is left at the deadline is stopped. */
import type { Engine } from '../../core/errors.js';
import type { Clock } from '../../runtime/clock.js';
import { delay, pollUntil } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { type ActiveLease, activeLeases } from '../../store/leases.js';
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

export async function drain(
  deps: PoolWorkDeps,
  run: OperationRun,
  order: {
    readonly pool: PoolName;
    readonly deadlineMs: number;
    readonly onRefusing: () => void;
    readonly correlationId: string | undefined;
  },
): Promise<Outcome> {
  const { pool, deadlineMs, onRefusing, correlationId } = order;
  const startedMs = deps.clock.monotonicMs();
  await run.step('refuse_new_leases', () => changeDraining(deps, pool.id, true));
  onRefusing();
  const { finished, left } = await run.step('wait_for_running_tasks', async (say) => {
    const waited = await waitForTasks(deps, run, workOf(deps, pool.id), deadlineMs);
    say(waited.detail);
    return waited;
  });
  if (left.length === 0) run.skip('force_stop', 'no task was left to stop');
  else await run.step('force_stop', async (say) => say(await forceStop(left, 'the pool was drained')));
  const report = { finished, forceStopped: left.length };
  const facts = { engine: pool.engine, poolId: pool.id, correlationId };
  deps.telemetry.drained(facts, deps.clock.monotonicMs() - startedMs, report);
  const outcome = `drained: ${tasks(finished)} finished, ${left.length} force-stopped`;
  return { end: 'succeed', outcome, error: null, facts: report };
}

export async function changeDraining(deps: PoolWorkDeps, poolId: string, draining: boolean): Promise<void> {
  await setDraining(deps.db, poolId, draining);
  deps.supervisor.pool(poolId).setDraining(draining);
}

/** Tasks whose end is waited for: those of a pool, or of some of its replicas. */
export interface Work {
  /** That run here now. */
  readonly running: () => readonly Attempt[];
  /** Whether a slot is held for one of them. */
  readonly holds: (lease: ActiveLease) => boolean;
}

export function workOf({ dispatcher }: PoolWorkDeps, poolId: string): Work {
  return { running: () => dispatcher.attemptsOf(poolId), holds: (lease) => lease.poolId === poolId };
}

export function workOn({ dispatcher }: PoolWorkDeps, poolId: string, replicaIds: ReadonlySet<string>): Work {
  return {
    running: () => dispatcher.attemptsOf(poolId).filter(({ replica }) => replicaIds.has(replica.id)),
    holds: ({ replicaId }) => replicaIds.has(replicaId),
  };
}

export interface Waited {
  /** Of the tasks that ran when the wait began, those that ended by themselves. */
  readonly finished: number;
  readonly left: readonly Attempt[];
  readonly detail: string;
}

/** Waits for the end of tasks; no new ones may come any more. @throws StepFailure when the control plane stops. */
export async function waitForTasks(
  deps: PoolWorkDeps,
  run: OperationRun,
  work: Work,
  deadlineMs: number,
): Promise<Waited> {
  const seen = new Set<Attempt>();
  const idle = await waitUntilIdle(deps, run, work, deadlineMs, seen);
  run.checkStop();
  const left = idle ? [] : work.running();
  const finished = finishedOf(seen, left);
  const late = left.length === 0 ? '' : `; ${left.length} ran on at the deadline of ${deadlineMs} ms`;
  const detail = seen.size === 0 ? 'no task was running' : `${tasks(finished)} finished${late}`;
  return { finished, left, detail };
}

/** Whoever lost its engine meanwhile waits in the queue again, and did not finish. */
function finishedOf(seen: ReadonlySet<Attempt>, left: readonly Attempt[]): number {
  return [...seen].filter((attempt) => !left.includes(attempt) && attempt.claimableInMs === null).length;
}

async function waitUntilIdle(
  deps: PoolWorkDeps,
  run: OperationRun,
  work: Work,
  deadlineMs: number,
  seen: Set<Attempt>,
): Promise<boolean> {
  let claimsAreKnown = false;
  const claims = deps.dispatcher.claimsUnderWay().then(() => {
    claimsAreKnown = true;
  });
  const look = async (signal: AbortSignal) => {
    // A claim that was under way when new leases were refused shows only once it is committed.
    await Promise.race([claims, delay(LOOK_EVERY_MS, signal)]);
    const running = work.running();
    for (const attempt of running) seen.add(attempt);
    return claimsAreKnown && running.length === 0 && !(await holdsLeases(deps, work));
  };
  return pollUntil(look, { everyMs: LOOK_EVERY_MS, deadlineMs, signal: run.signal });
}

/** A database that does not answer now is asked again at the next look. */
async function holdsLeases({ db, telemetry }: PoolWorkDeps, { holds }: Work): Promise<boolean> {
  try {
    return (await activeLeases(db)).some(holds);
  } catch (error) {
    telemetry.backgroundFailure('drain', error);
    return true;
  }
}

/** @returns what came of it, in words. */
export async function forceStop(left: readonly Attempt[], cause: string): Promise<string> {
  const over = new AbortController();
  const stopped = Promise.all(left.map((attempt) => attempt.interrupt(cause)));
  try {
    await Promise.race([stopped, delay(FORCE_STOP_DEADLINE_MS, over.signal)]);
  } finally {
    over.abort();
  }
  const again = left.filter((attempt) => attempt.claimableInMs !== null).length;
  return `${left.length} force-stopped, ${again} of them run again when the pool takes work`;
}

export function tasks(count: number): string {
  return count === 1 ? '1 task' : `${count} tasks`;
}
