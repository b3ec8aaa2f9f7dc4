/** What an operator does to pools, and what anybody may ask about them. */
import { type Engine, invalid, notFound, RefusalError } from '../core/errors.js';
import { isLive, notReadyBecause } from '../core/pool.js';
import { leastCapability, type RegistryReplica, registryEntry } from '../core/registry.js';
import { offered, WORKLOADS, type Workload } from '../core/workload.js';
import type { Clock } from '../runtime/clock.js';
import { delay } from '../runtime/wait.js';
import type { Database } from '../store/database.js';
import type { OperationRecord } from '../store/operations.js';
import { listPools, type PoolRow } from '../store/pools.js';
import { registryReplicas } from '../store/registry.js';
import { type LaneDepth, laneDepths } from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Elsewhere } from './cluster/elsewhere.js';
import type { Membership } from './cluster/membership.js';
import { recallElsewhere } from './cluster/recall.js';
import type { Dispatcher } from './dispatcher.js';
import type { Fleet } from './fleet.js';

import type { Gpus } from './gpus.js';
import type { LeaseKeeper } from './leases.js';
import { changeDraining, drain } from './operations/drain.js';
import type { OperationReader } from './operations/feed.js';
import { Operations } from './operations/operations.js';
import { reload } from './operations/reload.js';
import { checkRestart, findReplica, restart } from './operations/restart.js';
import type { OperationRun, Outcome } from './operations/run.js';
import type { PoolEvents } from './poolEvents.js';
import type { RateLimit, RateLimits } from './rateLimits.js';
import type { Supervisor } from './supervision/supervisor.js';

export const DEFAULT_DRAIN_DEADLINE_MS = 30_000;
const MAX_DRAIN_DEADLINE_MS = 24 * 3600 * 1000;
const MAX_MODEL_REF_CHARS = 1024;
/** The answer to a drain is not held back longer than this. */
const REFUSES_WITHIN_MS = 2_000;

export interface PoolsDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly dispatcher: Dispatcher;
  readonly supervisor: Supervisor;
  /** The pools of all nodes. */
  readonly fleet: Fleet;
  readonly nodeId: string;
  readonly membership: Membership;
  readonly elsewhere: Elsewhere;
  readonly leases: LeaseKeeper;
  readonly gpus: Gpus;
  readonly rateLimits: RateLimits;
  readonly events: PoolEvents;
  readonly telemetry: Telemetry;
  /** The reference by which a pool's engine finds the model that a caller names. @throws RefusalError */
  readonly modelFor: (
    pool: { readonly id: string; readonly modelRef: string },
    ref: string,
    correlationId?: string,
  ) => Promise<string>;
}

export type Lane = LaneDepth;
export type Operation = OperationRecord;

export interface PoolCapability {
  readonly poolId: string;
  readonly workloads: readonly Workload[];
}

export interface EngineCapability {
  readonly engine: Engine;
  readonly contextMax: number;
  /** Of all its pools together. */
  readonly workloads: readonly Workload[];
  readonly pools: readonly PoolCapability[];
  readonly concurrency: number;
  /** Of its pools, for each caller; priorities without a limit are left out. */
  readonly rateLimits: readonly RateLimit[];
}

export class Pools {
  readonly #deps: PoolsDeps;
  readonly #operations: Operations;

  constructor(deps: PoolsDeps) {
    this.#deps = deps;
    this.#operations = new Operations(deps);
  }

  stop(): Promise<void> {
    return this.#operations.stop();
  }

  lanes(): Promise<Lane[]> {
    return laneDepths(this.#deps.db);
  }

  capabilities(): EngineCapability[] {
    const byEngine = new Map<string, EngineCapability>();
    for (const pool of this.#deps.fleet.candidates()) {
      const known = byEngine.get(pool.engine);
      const own = pool.offers === undefined ? [] : offered(pool.offers);
      byEngine.set(pool.engine, {
        engine: pool.engine,
        contextMax: Math.max(known?.contextMax ?? 0, pool.contextLength),
        workloads: WORKLOADS.filter((workload) => [...(known?.workloads ?? []), ...own].includes(workload)),
        pools: [...(known?.pools ?? []), { poolId: pool.id, workloads: own }],
        concurrency: (known?.concurrency ?? 0) + this.#deps.fleet.limits(pool.id).slotsTotal,
        rateLimits: [...(known?.rateLimits ?? []), ...this.#deps.rateLimits.ofPool(pool.id)],
      });
    }
    return [...byEngine.values()];
  }

  /** Live facts of one pool for the health endpoints. @throws RefusalError not_found */
  async health(poolId: string) {
    const pool = await this.#get(poolId);
    const replicas = await registryReplicas(this.#deps.db, poolId);
    const now = this.#healthNow(pool, replicas);
    const held = new Map(replicas.map(({ id, slotsHeld }) => [id, slotsHeld]));
    return {
      pool,
      ...registryEntry(now, replicas, held),
      // Younger than the rows, which are written after the fact.
      ...now,
      lastHeartbeatMs: now.lastHeartbeatMs === 0 ? null : now.lastHeartbeatMs,
      ...this.#devices(replicas.flatMap(({ gpuUuids }) => gpuUuids)),
    };
  }

  /** Of a pool that other nodes serve, what the rows tell. */
  #healthNow(pool: PoolRow, replicas: readonly RegistryReplica[]) {
    const { supervisor, elsewhere } = this.#deps;
    if (elsewhere.pool(pool.id) === null) return supervisor.health(pool.id);
    const { draining } = pool;
    return {
      live: isLive(replicas),
      ready: !draining && replicas.some(({ state }) => state === 'READY'),
      draining,
      reasons: notReadyBecause(pool, replicas),
      slotsTotal: replicas.reduce((sum, { slotsTotal }) => sum + slotsTotal, 0),
      engineVersion: replicas.find(({ engineVersion }) => engineVersion !== null)?.engineVersion ?? null,
      lastHeartbeatMs: Math.max(0, ...replicas.map(({ lastHeartbeatMs }) => lastHeartbeatMs ?? 0)),
    };
  }

  /** Of the devices of a pool that this host reads, together. */
  #devices(uuids: readonly string[]) {
    const devices = [...new Set(uuids)].flatMap((uuid) => this.#deps.gpus.device(uuid) ?? []);
    return {
      vramTotalBytes: devices.reduce((sum, { totalBytes }) => sum + totalBytes, 0),
      vramFreeBytes: devices.reduce((sum, { freeBytes }) => sum + freeBytes, 0),
      computeCapability: leastCapability(devices.map(({ computeCapability }) => computeCapability)),
    };
  }

  /** @throws RefusalError not_found */
  operation(id: string): Promise<Operation> {
    return this.#operations.read(id);
  }

  /** The present state of an operation, then every change, to the terminal one. @throws RefusalError not_found */
  followOperation(id: string): Promise<OperationReader> {
    return this.#operations.open(id);
  }

  /**
   * Refuses new leases at once; running tasks finish, or are stopped at the deadline and run again where that is honest.
   * The pool stays drained until it is resumed or reloaded. @returns the id of the operation, which goes on by itself.
   */
  async drain(poolId: string, deadlineMs: number, correlationId?: string): Promise<string> {
    checkDeadline('deadline_ms', deadlineMs);
    const pool = await this.#managed(poolId);
    const refusing = new AbortController();
    const onRefusing = () => refusing.abort();
    const work = (run: OperationRun) =>
      drain(this.#deps, run, { pool, deadlineMs, onRefusing, correlationId })
        .then((outcome) => recallElsewhere(this.#deps, run, outcome))
        .finally(onRefusing);
    const id = await this.#operations.begin(poolId, 'DRAIN', { deadlineMs }, work);
    // Whoever was told that it drains may count on it: from then on it takes nothing.
    await delay(REFUSES_WITHIN_MS, refusing.signal);
    return id;
  }

  /** Takes work again. */
  async resume(poolId: string): Promise<string> {
    await this.#managed(poolId);
    return this.#operations.begin(poolId, 'RESUME', {}, (run) => this.#resumeNow(poolId, run));
  }

  /**
   * Gives a pool another model: beside the engines that serve where there is room, else in their place. Whatever fails, and
   * also when tasks still run at the deadline, the old model serves on.
   */
  async reload(poolId: string, newModelRef: string, drainDeadlineMs: number, correlationId?: string): Promise<string> {
    checkDeadline('drain_deadline_ms', drainDeadlineMs);
    checkModelRef(newModelRef);
    const { membership } = this.#deps;
    const serving = await this.#managed(poolId);
    await membership.checkAlone(poolId, 'a reload');
    const modelRef = await this.#deps.modelFor(serving, newModelRef, correlationId);
    return this.#operations.begin(poolId, 'RELOAD', { newModelRef, drainDeadlineMs }, async (run) => {
      // Read only now: another reload may have ended, or a node come in, between the question and this one's beginning.
      await membership.checkAlone(poolId, 'a reload');
      const pool = await this.#get(poolId);
      return reload(this.#deps, run, { pool, modelRef, drainDeadlineMs, correlationId });
    });
  }

  /** Ends the engine of a replica and starts it anew; its tasks lose it, and run again where that is honest. */
  async restartReplica(replicaId: string): Promise<string> {
    const replica = await findReplica(this.#deps.db, replicaId);
    if (replica === null) throw new RefusalError(notFound('replica', `replica ${replicaId} not found`));
    if (replica.nodeId !== this.#deps.nodeId) await this.#deps.membership.refuseForeignReplica(replica);
    await this.#managed(replica.poolId);
    checkRestart(replica);
    const work = (run: OperationRun) => restart(this.#deps, run, replica);
    return this.#operations.begin(replica.poolId, 'RESTART', { replica: replicaId }, work);
  }

  async #resumeNow(poolId: string, run: OperationRun): Promise<Outcome> {
    await run.step('grant_leases', () => changeDraining(this.#deps, poolId, false));
    await run.step('retry_quarantined', async () => this.#deps.supervisor.pool(poolId).retryQuarantined());
    return { end: 'succeed', outcome: 'resumed', error: null };
  }

  async #get(poolId: string): Promise<PoolRow> {
    const pool = (await listPools(this.#deps.db)).find((row) => row.id === poolId);
    if (pool === undefined) throw new RefusalError(notFound('pool', `pool ${poolId} not found`));
    return pool;
  }

  /** Rows of pools that the configuration no longer names stay, as history; nothing can be done to them. */
  async #managed(poolId: string): Promise<PoolRow> {
    const pool = await this.#get(poolId);
    if (this.#deps.supervisor.poolIds().includes(poolId)) return pool;
    return this.#deps.membership.refuseForeign(poolId);
  }
}

function checkDeadline(field: string, deadlineMs: number): void {
  if (Number.isInteger(deadlineMs) && deadlineMs > 0 && deadlineMs <= MAX_DRAIN_DEADLINE_MS) return;
  throw new RefusalError(
    invalid(field, `must be a positive integer of at most ${MAX_DRAIN_DEADLINE_MS} ms, got ${deadlineMs}`),
  );
}

/** It becomes an argument of a process and a text in the database: neither can hold a NUL. */
function checkModelRef(modelRef: string): void {
  if (modelRef.length === 0) throw new RefusalError(invalid('new_model_ref', 'must not be empty'));
  if (modelRef.length > MAX_MODEL_REF_CHARS || /\p{Cc}/u.test(modelRef)) {
    const message = `must be at most ${MAX_MODEL_REF_CHARS} characters, without control characters`;
    throw new RefusalError(invalid('new_model_ref', message));
  }
}
