/** What an operator does to pools, and what anybody may ask about them. */
import { randomUUID } from 'node:crypto';
import { conflict, type Engine, invalid, notFound, RefusalError } from '../core/errors.js';
import type { Reason } from '../core/pool.js';
import type { Clock } from '../runtime/clock.js';
import { pollUntil } from '../runtime/wait.js';
import type { Database } from '../store/database.js';
import { activeLeases } from '../store/leases.js';
import {
  beginOperation,
  type OperationKind,
  type OperationState,
  type OperationStep,
  updateOperation,
} from '../store/operations.js';
import { listPools, type PoolRow, setDraining, setPoolModel } from '../store/pools.js';
import { type LaneDepth, laneDepths } from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Dispatcher } from './dispatcher.js';
import type { PoolEvents } from './poolEvents.js';
import type { Supervisor } from './supervision/supervisor.js';

const DRAIN_LOOK_MS = 50;
const RELOAD_READY_DEADLINE_MS = 120_000;
export const DEFAULT_DRAIN_DEADLINE_MS = 30_000;
const MAX_DRAIN_DEADLINE_MS = 24 * 3600 * 1000;

export interface PoolsDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly dispatcher: Dispatcher;
  readonly supervisor: Supervisor;
  readonly events: PoolEvents;
  readonly telemetry: Telemetry;
}

export type Lane = LaneDepth;

export interface EngineCapability {
  readonly engine: Engine;
  readonly contextMax: number;
  readonly workloads: readonly string[];
  readonly concurrency: number;
}

interface Outcome {
  readonly state: OperationState;
  readonly outcome: string;
  readonly error: Reason | null;
}

export class Pools {
  readonly #deps: PoolsDeps;
  readonly #running = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor(deps: PoolsDeps) {
    this.#deps = deps;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
  }

  lanes(): Promise<Lane[]> {
    return laneDepths(this.#deps.db);
  }

  capabilities(): EngineCapability[] {
    const byEngine = new Map<string, EngineCapability>();
    for (const pool of this.#deps.supervisor.candidates()) {
      const known = byEngine.get(pool.engine);
      byEngine.set(pool.engine, {
        engine: pool.engine,
        contextMax: Math.max(known?.contextMax ?? 0, pool.contextLength),
        workloads: ['completion'],
        concurrency: (known?.concurrency ?? 0) + this.#deps.supervisor.limits(pool.id).slotsTotal,
      });
    }
    return [...byEngine.values()];
  }

  /** Live facts of one pool for the health endpoints. @throws RefusalError not_found */
  async health(poolId: string) {
    const pool = await this.#get(poolId);
    const leases = await activeLeases(this.#deps.db);
    return {
      pool,
      ...this.#deps.supervisor.health(poolId),
      activeLeases: leases.filter((lease) => lease.poolId === poolId).length,
    };
  }

  /**
   * Refuses new leases at once; running tasks finish, or are stopped at the deadline and run again where that is honest.
   * The pool stays drained until it is resumed or reloaded. @returns the id of the operation, which goes on by itself.
   */
  async drain(poolId: string, deadlineMs: number): Promise<string> {
    checkDeadline('deadline_ms', deadlineMs);
    await this.#get(poolId);
    return this.#begin(poolId, 'DRAIN', { deadlineMs }, async (step) => {
      const forced = await this.#drainNow(poolId, deadlineMs, step);
      return {
        state: 'SUCCEEDED',
        outcome: forced === 0 ? 'drained' : `drained, ${forced} stopped at the deadline`,
        error: null,
      };
    });
  }

  /** Takes work again. */
  async resume(poolId: string): Promise<string> {
    await this.#get(poolId);
    return this.#begin(poolId, 'RESUME', {}, async (step) => {
      await step('resume');
      await this.#setDraining(poolId, false);
      await this.#deps.supervisor.retryQuarantined(poolId);
      return { state: 'SUCCEEDED', outcome: 'resumed', error: null };
    });
  }

  /** Drains, swaps the model on every replica, and puts the old one back when the new one does not become ready. */
  async reload(poolId: string, newModelRef: string, drainDeadlineMs: number): Promise<string> {
    checkDeadline('drain_deadline_ms', drainDeadlineMs);
    if (newModelRef.length === 0) throw new RefusalError(invalid('new_model_ref', 'must not be empty'));
    const pool = await this.#get(poolId);
    return this.#begin(poolId, 'RELOAD', { newModelRef, drainDeadlineMs }, async (step) => {
      if (newModelRef === pool.modelRef)
        return { state: 'SUCCEEDED', outcome: 'same model, nothing to do', error: null };
      return this.#reloadNow(pool, newModelRef, drainDeadlineMs, step);
    });
  }

  async #reloadNow(pool: PoolRow, newModelRef: string, drainDeadlineMs: number, step: Step): Promise<Outcome> {
    const { supervisor, db } = this.#deps;
    await this.#drainNow(pool.id, drainDeadlineMs, step);
    try {
      await step('swap');
      const ready = await supervisor.setModel(pool.id, newModelRef, {
        deadlineMs: RELOAD_READY_DEADLINE_MS,
        signal: this.#stop.signal,
      });
      if (ready === null) {
        await setPoolModel(db, pool.id, newModelRef);
        return { state: 'SUCCEEDED', outcome: `serving ${newModelRef}`, error: null };
      }
      await step('roll back');
      await supervisor.setModel(pool.id, pool.modelRef, {
        deadlineMs: RELOAD_READY_DEADLINE_MS,
        signal: this.#stop.signal,
      });
      return { state: 'ROLLED_BACK', outcome: `still serving ${pool.modelRef}`, error: ready };
    } finally {
      await this.#setDraining(pool.id, false);
    }
  }

  async #drainNow(poolId: string, deadlineMs: number, step: Step): Promise<number> {
    await step('refuse new leases');
    await this.#setDraining(poolId, true);
    await step('wait for running tasks');
    const idle = await pollUntil(async () => this.#deps.dispatcher.attemptsOf(poolId).length === 0, {
      everyMs: DRAIN_LOOK_MS,
      deadlineMs,
      signal: this.#stop.signal,
    });
    if (idle) return 0;
    const left = this.#deps.dispatcher.attemptsOf(poolId);
    await step(`stop ${left.length} at the deadline`);
    await Promise.all(left.map((attempt) => attempt.interrupt('the pool was drained')));
    return left.length;
  }

  async #setDraining(poolId: string, draining: boolean): Promise<void> {
    await setDraining(this.#deps.db, poolId, draining);
    this.#deps.supervisor.setDraining(poolId, draining);
    this.#deps.dispatcher.wake();
  }

  async #get(poolId: string): Promise<PoolRow> {
    const pool = (await listPools(this.#deps.db)).find((row) => row.id === poolId);
    if (pool === undefined) throw new RefusalError(notFound('pool', `pool ${poolId} not found`));
    return pool;
  }

  /** Starts an operation, one at a time per pool, and carries it out in the background. */
  async #begin(
    poolId: string,
    kind: OperationKind,
    input: Readonly<Record<string, unknown>>,
    work: (step: Step) => Promise<Outcome>,
  ): Promise<string> {
    const id = randomUUID();
    if (!(await beginOperation(this.#deps.db, { id, poolId, kind, input }))) {
      throw new RefusalError(conflict('pool', `another operation on pool ${poolId} is running`));
    }
    const run = this.#carryOut({ id, poolId, kind }, work).finally(() => this.#running.delete(run));
    this.#running.add(run);
    return id;
  }

  async #carryOut(
    operation: { id: string; poolId: string; kind: OperationKind },
    work: (step: Step) => Promise<Outcome>,
  ): Promise<void> {
    const { db, clock, events, telemetry } = this.#deps;
    const steps: OperationStep[] = [];
    const closeLast = () => {
      const last = steps.pop();
      if (last !== undefined) steps.push({ ...last, endedAtMs: last.endedAtMs ?? clock.nowMs() });
    };
    const step: Step = async (name) => {
      closeLast();
      steps.push({ name, startedAtMs: clock.nowMs(), endedAtMs: null });
      const progress = 1 - 1 / (steps.length + 1);
      await updateOperation(db, { id: operation.id, state: 'RUNNING', progress, steps, outcome: null, error: null });
    };
    const label = operation.kind.toLowerCase();
    try {
      await events.record({
        poolId: operation.poolId,
        replicaId: null,
        kind: `${label}_started`,
        message: `${label} started`,
        detail: { operation: operation.id },
      });
      const outcome = await work(step);
      closeLast();
      await updateOperation(db, { id: operation.id, progress: 1, steps, ...outcome });
      await events.record({
        poolId: operation.poolId,
        replicaId: null,
        kind: `${label}_ended`,
        message: `${label}: ${outcome.outcome}`,
        detail: { operation: operation.id, state: outcome.state },
      });
    } catch (error) {
      telemetry.backgroundFailure(label, error);
      closeLast();
      const reason = {
        code: 'INTERNAL',
        message: `the ${label} failed inside the control plane`,
        fix: 'Look at the log; start it again.',
      };
      await updateOperation(db, {
        id: operation.id,
        state: 'FAILED',
        progress: 1,
        steps,
        outcome: 'failed',
        error: reason,
      }).catch((cause: unknown) => telemetry.backgroundFailure(label, cause));
    }
  }
}

type Step = (name: string) => Promise<void>;

function checkDeadline(field: string, deadlineMs: number): void {
  if (Number.isInteger(deadlineMs) && deadlineMs > 0 && deadlineMs <= MAX_DRAIN_DEADLINE_MS) return;
  throw new RefusalError(
    invalid(field, `must be a positive integer of at most ${MAX_DRAIN_DEADLINE_MS} ms, got ${deadlineMs}`),
  );
}
