/** All replicas of this node: made from the configuration, started, watched, and ended together. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Config, PoolConfig } from '../../config/schema.js';
import type { PoolCandidate } from '../../core/placement.js';
import { isLive, notReadyBecause, type Reason } from '../../core/pool.js';
import { freeMemory } from '../../core/registry.js';
import type { EngineAdapter } from '../../engines/adapter.js';
import type { Gpu } from '../../host/gpus.js';
import { engineLogFile } from '../../host/logFile.js';
import { reapOrphan } from '../../host/process.js';
import { StartupError } from '../../host/startupError.js';
import type { Clock } from '../../runtime/clock.js';
import type { Database } from '../../store/database.js';
import { listReplicas, type PoolDesired, retireOthers, upsertPool, writeGpus } from '../../store/pools.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { Fleet, PoolLimits, Progress, ReadyReplica, Recycle, Sign } from '../fleet.js';
import type { EngineOnGpu, GpuNow } from '../gpus.js';
import type { PoolEvents } from '../poolEvents.js';
import type { Prepare } from '../provisioning/prepare.js';
import type { Crashes } from './crashes.js';
import type { Inherited } from './instance.js';
import type { Device } from './memory.js';
import { SELF_TEST_DEADLINE_MS } from './preload.js';
import { type Recipe, type RecipeEnvironment, recipeFor } from './recipe.js';
import { Replica } from './replica.js';
import { Reports } from './reports.js';
import type { VramLedger } from './vram.js';

const ORPHAN_GRACE_MS = 2_000;
const FATAL_OBSTACLES = new Set(['ENGINE_MISSING', 'MODEL_REF_INVALID', 'NOT_BUILT']);

export interface SupervisorDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly events: PoolEvents;
  readonly crashes: Crashes;
  readonly config: Config;
  readonly gpus: readonly Gpu[];
  readonly gpuNow: (uuid: string) => GpuNow;
  readonly vram: VramLedger;
  /** What stands in the way of every pool that needs a GPU; null when there are some. */
  readonly gpuObstacle: Reason | null;
  readonly nodeId: string;
  readonly homeDir: string;
  readonly recipeEnv: RecipeEnvironment;
  /** What brings engine and model of a pool here before a start. */
  readonly preparerOf: (pool: PoolConfig) => Prepare;
  readonly chance: () => number;
  readonly hash: (text: string) => string;
  /** A replica became ready, or stopped being so. */
  readonly onFleetChange: () => void;
}

function replicaIds({ id, replicas }: PoolConfig): string[] {
  return Array.from({ length: replicas }, (_, ordinal) => `${id}-${ordinal}`);
}

interface ManagedPool {
  readonly config: PoolConfig;
  readonly recipe: Recipe;
  readonly replicas: Replica[];
  modelRef: string;
  draining: boolean;
}

export class Supervisor implements Fleet {
  readonly #deps: SupervisorDeps;
  readonly #pools = new Map<string, ManagedPool>();
  readonly #reports = new Set<Reports>();
  /** Engines of an earlier start that may go on, by replica. */
  readonly #inherited = new Map<string, Inherited>();

  constructor(deps: SupervisorDeps) {
    this.#deps = deps;
  }

  /** Ends what an earlier life left running, writes down what should be, and starts every replica. */
  async start(): Promise<void> {
    const { db, config, gpus, nodeId, homeDir } = this.#deps;
    mkdirSync(join(homeDir, 'run', 'engines'), { recursive: true });
    mkdirSync(join(homeDir, 'logs'), { recursive: true });
    this.#preflight();
    await this.#sortOrphans();
    await writeGpus(
      db,
      nodeId,
      gpus.map((gpu) => ({ ...gpu, nodeId })),
    );
    for (const pool of config.pools) await this.#addPool(pool);
    const replicas = [...this.#pools.values()].flatMap((pool) => pool.replicas);
    await retireOthers(db, { pools: [...this.#pools.keys()], replicas: replicas.map((replica) => replica.facts.id) });
    for (const replica of replicas) replica.start();
  }

  /** Ends every engine, all at once; resolves when every process group is gone and every row says so. */
  async stop(): Promise<void> {
    const replicas = [...this.#pools.values()].flatMap((pool) => pool.replicas);
    await Promise.all(replicas.map((replica) => replica.stop()));
    await Promise.all([...this.#reports].map((reports) => reports.written()));
  }

  /** Ends every engine without grace. */
  async kill(): Promise<void> {
    const replicas = [...this.#pools.values()].flatMap((pool) => pool.replicas);
    await Promise.all(replicas.map((replica) => replica.kill()));
  }

  poolIds(): readonly string[] {
    return [...this.#pools.keys()];
  }

  candidates(): Omit<PoolCandidate, 'slotsFree' | 'queueDepth'>[] {
    return [...this.#pools].map(([id, pool]) => ({
      id,
      engine: pool.config.engine,
      modelRef: pool.modelRef,
      contextLength: pool.config.ctx,
      deviceMask: pool.config.devices.join(','),
      draining: pool.draining,
      ready: pool.replicas.some((replica) => replica.state === 'READY'),
      recoverable: pool.replicas.some((replica) => replica.state !== 'QUARANTINED' && replica.state !== 'FAILED'),
    }));
  }

  limits(poolId: string): PoolLimits {
    const { config } = this.#pool(poolId);
    return {
      wallMs: config.timeouts.wall_ms,
      slotsTotal: config.replicas * config.slots,
      fullPolicy: config.queue.full_policy,
    };
  }

  ready(poolId: string): readonly ReadyReplica[] {
    const pool = this.#pool(poolId);
    if (pool.draining) return [];
    return pool.replicas.flatMap((replica) => replica.ready() ?? []);
  }

  async recycle(replicaId: string, why: Recycle, only?: EngineAdapter): Promise<void> {
    await this.#replica(replicaId)?.recycle(why, only);
  }

  doubt(replicaId: string, sign: Sign): void {
    this.#replica(replicaId)?.doubt(sign);
  }

  progressed(replicaId: string, progress: Progress): void {
    this.#replica(replicaId)?.progressed(progress);
  }

  setDraining(poolId: string, draining: boolean): void {
    this.#pool(poolId).draining = draining;
    this.#deps.onFleetChange();
  }

  async retryQuarantined(poolId: string): Promise<void> {
    for (const replica of this.#pool(poolId).replicas) replica.retry();
  }

  /** Swaps the model of every replica of a pool. @returns null when all are ready, else the first thing that went wrong. */
  async setModel(
    poolId: string,
    modelRef: string,
    options: { deadlineMs: number; signal: AbortSignal },
  ): Promise<Reason | null> {
    const pool = this.#pool(poolId);
    const obstacle = pool.recipe.check(modelRef);
    if (obstacle !== null) return obstacle;
    const outcomes = await Promise.all(pool.replicas.map((replica) => replica.setModel(modelRef, options)));
    const failure = outcomes.find((outcome) => outcome !== null) ?? null;
    if (failure === null) pool.modelRef = modelRef;
    return failure;
  }

  /** What stands in the way of serving a model, found without disturbing anything. */
  checkModel(poolId: string, modelRef: string): Reason | null {
    return this.#pool(poolId).recipe.check(modelRef);
  }

  /** Longest the replicas of a pool may take from a start to ready, ms. */
  readyDeadlineMs(poolId: string): number {
    return this.#pool(poolId).recipe.readyDeadlineMs + SELF_TEST_DEADLINE_MS;
  }

  replicasOn(gpuUuid: string): EngineOnGpu[] {
    return [...this.#pools.values()]
      .flatMap(({ replicas }) => replicas)
      .filter(({ facts }) => facts.gpuUuids.includes(gpuUuid))
      .map((replica) => {
        const { id, poolId, engine } = replica.facts;
        return { id, poolId, engine, engineVersion: replica.engineVersion, heldBytes: replica.vramHeldOn(gpuUuid) };
      });
  }

  health(poolId: string) {
    const pool = this.#pools.get(poolId);
    const replicas = pool?.replicas ?? [];
    const views = replicas.map((replica) => ({
      id: replica.facts.id,
      state: replica.state,
      lastError: replica.lastError,
    }));
    const draining = pool?.draining ?? true;
    return {
      live: isLive(views),
      ready: !draining && views.some((view) => view.state === 'READY'),
      draining,
      reasons: notReadyBecause({ draining }, views),
      slotsTotal: replicas.reduce((sum, replica) => sum + replica.facts.slots, 0),
      engineVersion: replicas.find((replica) => replica.engineVersion !== null)?.engineVersion ?? null,
      lastHeartbeatMs: Math.max(0, ...replicas.map((replica) => replica.heartbeatMs ?? 0)),
    };
  }

  /** What waiting cannot mend stops the start: an engine that is not there, or one that we cannot drive. */
  #preflight(): void {
    for (const pool of this.#deps.config.pools) {
      const obstacle = recipeFor(pool, this.#deps.recipeEnv).check(pool.model);
      if (obstacle === null || !FATAL_OBSTACLES.has(obstacle.code)) continue;
      throw new StartupError(`Pool ${pool.id}: ${obstacle.message}.`, obstacle.fix ?? 'Correct the configuration.');
    }
  }

  /** What an earlier start left running: the engines that were ready go on if they can, the others are ended. */
  async #sortOrphans(): Promise<void> {
    const { db, nodeId, telemetry, config } = this.#deps;
    const wanted = new Set(config.pools.flatMap(replicaIds));
    for (const row of await listReplicas(db)) {
      if (row.pid === null || row.nodeId !== nodeId || row.mark === null) continue;
      const orphan = { pid: row.pid, startTimeTicks: Number(row.pidStartTicks ?? 0), mark: row.mark };
      if (row.state === 'READY' && wanted.has(row.id)) {
        this.#inherited.set(row.id, orphan);
        continue;
      }
      const fate = await reapOrphan({ ...orphan, graceMs: ORPHAN_GRACE_MS });
      telemetry.log.info(
        { replica_id: row.id, pid: row.pid, fate, human: `An engine of an earlier start was ${fate}.` },
        'orphan check',
      );
    }
  }

  async #addPool(config: PoolConfig): Promise<void> {
    const { db, hash, recipeEnv, gpuObstacle } = this.#deps;
    const made = recipeFor(config, recipeEnv);
    const needsGpu = made.spawns && !made.simulated && gpuObstacle !== null;
    const recipe = needsGpu ? { ...made, check: () => gpuObstacle } : made;
    const modelRef = await upsertPool(db, desiredPool(config, recipe, this.#deps.gpus, hash));
    const pool: ManagedPool = { config, recipe, replicas: [], modelRef, draining: false };
    this.#pools.set(config.id, pool);
    for (const [ordinal, id] of replicaIds(config).entries()) pool.replicas.push(this.#makeReplica(pool, id, ordinal));
  }

  #makeReplica(pool: ManagedPool, id: string, ordinal: number): Replica {
    const { config, recipe, modelRef } = pool;
    const { homeDir, nodeId, clock, chance } = this.#deps;
    const gpus = this.#gpusOf(config, ordinal);
    const identity = { id, poolId: config.id, engine: config.engine };
    const reports = new Reports(identity, this.#deps);
    this.#reports.add(reports);
    // A simulated GPU cannot be named to a real engine; it gets none.
    const visible = gpus.filter((gpu) => recipe.simulated || !gpu.simulated);
    const facts = {
      ...identity,
      ordinal,
      nodeId,
      slots: config.slots,
      deviceMask: gpus.map((gpu) => gpu.index).join(','),
      gpuUuids: visible.map((gpu) => gpu.uuid),
      gpuIndices: visible.map((gpu) => gpu.index),
      workDir: join(homeDir, 'run', 'engines'),
      logFile: engineLogFile(join(homeDir, 'logs'), id),
    };
    return new Replica(facts, modelRef, {
      clock,
      recipe,
      chance,
      devices: () => gpus.map((gpu) => this.#deviceOf(gpu)),
      vram: this.#deps.vram,
      contextLength: config.ctx,
      prepare: this.#deps.preparerOf(config),
      idleTimeoutMs: config.timeouts.idle_ms,
      canaryEveryMs: config.health.canary_every_ms,
      reports,
      inherited: this.#inherited.get(id) ?? null,
    });
  }

  /** A tensor split spans all devices of the pool; without one, replicas take the devices in turn. */
  #gpusOf(config: PoolConfig, ordinal: number): Gpu[] {
    const { devices } = config;
    const wanted =
      config.tensor_split === undefined && devices.length > 0 ? [devices[ordinal % devices.length]] : devices;
    return this.#deps.gpus.filter((gpu) => wanted.includes(gpu.index));
  }

  #deviceOf({ uuid, index, name, memoryTotalBytes }: Gpu): Device {
    const { vram, gpuNow } = this.#deps;
    const { freeBytes, obstacle } = gpuNow(uuid);
    const readFree = freeBytes === null ? null : freeBytes - vram.notTakenOn(uuid);
    return {
      ...{ uuid, label: `GPU ${index} (${name})`, obstacle },
      freeBytes: freeMemory(memoryTotalBytes, vram.heldOn(uuid), readFree),
    };
  }

  #pool(poolId: string): ManagedPool {
    const pool = this.#pools.get(poolId);
    if (pool === undefined) throw new Error(`this node does not manage pool ${poolId}`);
    return pool;
  }

  #replica(replicaId: string): Replica | undefined {
    for (const pool of this.#pools.values()) {
      const replica = pool.replicas.find((candidate) => candidate.facts.id === replicaId);
      if (replica !== undefined) return replica;
    }
    return undefined;
  }
}

function desiredPool(
  config: PoolConfig,
  recipe: Recipe,
  gpus: readonly Gpu[],
  hash: (text: string) => string,
): PoolDesired {
  const capacityOf = (name: 'interactive' | 'batch') =>
    config.admission.priorities?.find((priority) => priority.name === name)?.queue_capacity ?? config.queue.capacity;
  const simulatedGpu = gpus.some((gpu) => gpu.simulated && config.devices.includes(gpu.index));
  return {
    id: config.id,
    engine: config.engine,
    modelRef: config.model,
    contextLength: config.ctx,
    deviceMask: config.devices.join(','),
    samplerProfileVersion: config.sampler_profile_version ?? null,
    slotsPerReplica: config.slots,
    fullPolicy: config.queue.full_policy,
    simulated: recipe.simulated || simulatedGpu,
    configHash: hash(JSON.stringify(config)),
    capacity: {
      interactive: capacityOf('interactive'),
      batch: capacityOf('batch'),
      total: config.queue.capacity,
    },
  };
}
