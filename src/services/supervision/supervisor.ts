/** All replicas of this node: made from the configuration, started, watched, and ended together. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Config, PoolConfig } from '../../config/schema.js';
import type { VersionedReplica } from '../../core/engineVersion.js';
import { replicaName } from '../../core/node.js';
import type { PoolCandidate } from '../../core/placement.js';
import { isLive, notReadyBecause, type Reason } from '../../core/pool.js';
import { freeMemory } from '../../core/registry.js';
import type { ReplicaState } from '../../core/replica.js';
import type { EngineAdapter } from '../../engines/adapter.js';
import type { Gpu } from '../../host/gpus.js';
import { engineLogFile } from '../../host/logFile.js';
import { StartupError } from '../../host/startupError.js';
import type { Clock } from '../../runtime/clock.js';
import type { Database } from '../../store/database.js';
import type { ServedVersion } from '../../store/nodes.js';
import { listReplicas, retireOthers, retireReplicas, writeGpus } from '../../store/pools.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { Membership } from '../cluster/membership.js';
import type { Fleet, PoolLimits, Progress, ReadyReplica, Recycle, Sign } from '../fleet.js';
import type { EngineOnGpu, GpuNow } from '../gpus.js';
import type { Outbox } from '../outbox.js';
import type { PoolEvents } from '../poolEvents.js';
import type { Prepare } from '../provisioning/prepare.js';
import type { Crashes } from './crashes.js';
import { desiredPool } from './desired.js';
import { type InheritedSeat, settleInheritance } from './inheritance.js';
import type { Device } from './memory.js';
import { PoolReplicas } from './poolReplicas.js';
import { type Recipe, type RecipeEnvironment, recipeFor } from './recipe.js';
import { Replica } from './replica.js';
import { Reports } from './reports.js';
import type { VramLedger } from './vram.js';

const FATAL_OBSTACLES = new Set(['ENGINE_MISSING', 'MODEL_REF_INVALID', 'NOT_BUILT']);

/** How long a reload waits for the rows of its replicas. */
const ROWS_DEADLINE_MS = 10_000;

export interface SupervisorDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly events: PoolEvents;
  readonly crashes: Crashes;
  readonly outbox: Outbox;
  readonly config: Config;
  readonly gpus: readonly Gpu[];
  readonly gpuNow: (uuid: string) => GpuNow;
  readonly vram: VramLedger;
  /** What stands in the way of every pool that needs a GPU; null when there are some. */
  readonly gpuObstacle: Reason | null;
  readonly nodeId: string;
  readonly membership: Membership;
  readonly homeDir: string;
  readonly recipeEnv: RecipeEnvironment;
  /** What brings engine and model of a pool here before a start. */
  readonly preparerOf: (pool: PoolConfig) => Prepare;
  /** The replicas of a pool that serve on other nodes that run. */
  readonly versionsElsewhere: (poolId: string) => readonly ServedVersion[];
  readonly chance: () => number;
  readonly hash: (text: string) => string;
  /** A replica became ready, or stopped being so. */
  readonly onFleetChange: () => void;
}

export class Supervisor implements Omit<Fleet, 'slotsElsewhere'> {
  readonly #deps: SupervisorDeps;
  readonly #pools = new Map<string, PoolReplicas>();
  /** What is to be known of a pool although it keeps none from serving. */
  readonly #notes = new Map<string, readonly Reason[]>();

  constructor(deps: SupervisorDeps) {
    this.#deps = deps;
  }

  /** Ends what an earlier life left running, writes down what should be, and starts every pool. */
  async start(): Promise<void> {
    const { db, config, gpus, nodeId, homeDir } = this.#deps;
    mkdirSync(join(homeDir, 'logs'), { recursive: true });
    this.#preflight();
    await writeGpus(
      db,
      nodeId,
      gpus.map((gpu) => ({ ...gpu, nodeId })),
    );
    for (const pool of config.pools) await this.#addPool(pool);
    await this.#makeReplicas();
    const replicas = this.#all();
    const keep = { pools: [...this.#pools.keys()], replicas: replicas.map((replica) => replica.facts.id) };
    await retireOthers(db, nodeId, keep);
    for (const pool of this.#pools.values()) pool.begin();
  }

  /** Ends every engine, all at once; resolves when every process group is gone. */
  async stop(): Promise<void> {
    await Promise.all(this.#all().map((replica) => replica.stop()));
  }

  /** Ends every engine without grace. */
  async kill(): Promise<void> {
    await Promise.all(this.#all().map((replica) => replica.kill()));
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
      ...outlookOf(pool.replicas),
      offers: pool.offers,
    }));
  }

  limits(poolId: string): PoolLimits {
    const { config } = this.pool(poolId);
    return {
      wallMs: config.timeouts.wall_ms,
      slotsTotal: config.replicas * config.slots,
      fullPolicy: config.queue.full_policy,
    };
  }

  ready(poolId: string): readonly ReadyReplica[] {
    const pool = this.pool(poolId);
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

  pools(): PoolReplicas[] {
    return [...this.#pools.values()];
  }

  /** The replicas of a pool, for the operations on it. */
  pool(poolId: string): PoolReplicas {
    const pool = this.#pools.get(poolId);
    if (pool === undefined) throw new Error(`this node does not manage pool ${poolId}`);
    return pool;
  }

  replicasOn(gpuUuid: string): EngineOnGpu[] {
    return this.#all()
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
      reasons: [...notReadyBecause({ draining }, views), ...(this.#notes.get(poolId) ?? [])],
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

  async #addPool(config: PoolConfig): Promise<void> {
    const { membership, hash, recipeEnv, gpuObstacle, gpus, onFleetChange } = this.#deps;
    const made = recipeFor(config, recipeEnv);
    const needsGpu = made.spawns && !made.simulated && gpuObstacle !== null;
    const recipe = needsGpu ? { ...made, check: () => gpuObstacle } : made;
    const desired = desiredPool(config, { gpus, simulatedEngine: recipe.simulated, hash });
    const { modelRef, notes } = await membership.enter(desired, config.timeouts.wall_ms);
    this.#notes.set(config.id, notes);
    const pool = new PoolReplicas(config, recipe, modelRef, {
      make: (seat, model) => this.#makeReplica({ config, recipe }, seat, model),
      devicesAt: (place) => this.#devicesAt(config, place),
      written: () => this.#deps.outbox.settled(ROWS_DEADLINE_MS),
      retire: (replicas) => this.#retire(replicas),
      onChange: onFleetChange,
    });
    this.#pools.set(config.id, pool);
  }

  /** Of every pool; what an earlier life of this node left running goes on where it is still wanted, and is ended else. */
  async #makeReplicas(): Promise<void> {
    const { db, nodeId, telemetry } = this.#deps;
    const pools = [...this.#pools].map(([id, { config, modelRef }]) => {
      const masks = Array.from({ length: config.replicas }, (_, place) => maskOf(this.#gpusAt(config, place)));
      return { id, modelRef, masks };
    });
    const seats = await settleInheritance(pools, await listReplicas(db), { id: nodeId, telemetry });
    for (const [id, own] of seats) this.pool(id).make(own);
  }

  async #retire(replicas: readonly Replica[]): Promise<void> {
    const { db, telemetry } = this.#deps;
    await retireReplicas(
      db,
      replicas.map(({ facts }) => facts.id),
    );
    for (const { facts } of replicas) telemetry.replicaGone(facts);
  }

  #makeReplica(
    { config, recipe }: { readonly config: PoolConfig; readonly recipe: Recipe },
    { place, ordinal, inherited }: InheritedSeat,
    modelRef: string,
  ): Replica {
    const { homeDir, nodeId, membership, clock, chance } = this.#deps;
    const gpus = this.#gpusAt(config, place);
    const id = replicaName(config.id, ordinal, membership.number);
    const identity = { id, poolId: config.id, engine: config.engine };
    const reports = new Reports(identity, this.#deps);
    // A simulated GPU cannot be named to a real engine; it gets none.
    const visible = gpus.filter((gpu) => recipe.simulated || !gpu.simulated);
    // Of its own: engines that leave files where they run do not find those of others there.
    const workDir = join(homeDir, 'run', 'engines', id);
    mkdirSync(workDir, { recursive: true });
    const facts = {
      ...identity,
      ordinal,
      nodeId,
      slots: config.slots,
      deviceMask: maskOf(gpus),
      gpuUuids: visible.map((gpu) => gpu.uuid),
      gpuIndices: visible.map((gpu) => gpu.index),
      workDir,
      logFile: engineLogFile(join(homeDir, 'logs'), id),
    };
    return new Replica(facts, modelRef, {
      clock,
      recipe,
      chance,
      devices: () => this.#devicesAt(config, place),
      vram: this.#deps.vram,
      contextLength: config.ctx,
      prepare: this.#deps.preparerOf(config),
      idleTimeoutMs: config.timeouts.idle_ms,
      canaryEveryMs: config.health.canary_every_ms,
      reports,
      versions: {
        required: config.require_same_engine_version,
        others: (model) => this.#versionsBeside(config.id, id, model),
      },
      inherited,
    });
  }

  #versionsBeside(poolId: string, replicaId: string, modelRef: string): readonly VersionedReplica[] {
    const here = this.pool(poolId)
      .standingWith(replicaId)
      .flatMap(({ facts, heldVersion }) =>
        heldVersion === null ? [] : [{ id: facts.id, engineVersion: heldVersion }],
      );
    return [...here, ...this.#deps.versionsElsewhere(poolId).filter((other) => other.modelRef === modelRef)];
  }

  /** A tensor split spans all devices of the pool; without one, replicas take the devices in turn. */
  #gpusAt(config: PoolConfig, place: number): Gpu[] {
    const { devices } = config;
    const wanted =
      config.tensor_split === undefined && devices.length > 0 ? [devices[place % devices.length]] : devices;
    return this.#deps.gpus.filter((gpu) => wanted.includes(gpu.index));
  }

  #devicesAt(config: PoolConfig, place: number): Device[] {
    return this.#gpusAt(config, place).map((gpu) => this.#deviceOf(gpu));
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

  #replica(replicaId: string): Replica | undefined {
    return this.#all().find((replica) => replica.facts.id === replicaId);
  }

  #all(): Replica[] {
    return [...this.#pools.values()].flatMap((pool) => pool.all);
  }
}

function maskOf(gpus: readonly Gpu[]): string {
  return gpus.map((gpu) => gpu.index).join(',');
}

/** Tried again and again, and yet nothing but an operator can bring what is not there (ORCH-3091). */
const MISSING = new Set(['ENGINE_MISSING', 'MODEL_MISSING', 'TOOL_MISSING']);
const BEFORE_A_PROCESS: ReadonlySet<ReplicaState> = new Set(['ABSENT', 'PROVISIONING', 'BACKING_OFF']);

function outlookOf(
  replicas: readonly Pick<Replica, 'state' | 'lastError'>[],
): Pick<PoolCandidate, 'recoverable' | 'lacks'> {
  const lackOf = ({ state, lastError }: Pick<Replica, 'state' | 'lastError'>) =>
    BEFORE_A_PROCESS.has(state) && lastError !== null && MISSING.has(lastError.code) ? lastError : null;
  const isUp = (replica: Pick<Replica, 'state' | 'lastError'>) =>
    replica.state !== 'QUARANTINED' && replica.state !== 'FAILED' && lackOf(replica) === null;
  if (replicas.some(isUp)) return { recoverable: true };
  const [lack] = replicas.flatMap((replica) => lackOf(replica) ?? []);
  return { recoverable: false, ...(lack !== undefined && { lacks: `${lack.message} ${lack.fix ?? ''}`.trim() }) };
}
