/** Pools and replicas: what should be (pools, lanes) and what was last observed (replicas, GPUs). */
import type { BreakerState } from '../core/breaker.js';
import type { Engine } from '../core/errors.js';
import type { ReplicaHealth } from '../core/health.js';
import type { QueueSettings } from '../core/node.js';
import type { Reason } from '../core/pool.js';
import type { ReplicaState } from '../core/replica.js';
import type { Workload } from '../core/workload.js';
import type { Database, Statement } from './database.js';
import { jsonbText } from './jsonb.js';

export interface PoolDesired {
  readonly id: string;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly contextLength: number;
  readonly deviceMask: string;
  /** null: not stated. */
  readonly quant: string | null;
  readonly samplerProfileVersion: string | null;
  readonly slotsPerReplica: number;
  readonly fullPolicy: 'reject' | 'drop-lru' | 'shed-low-priority';
  readonly simulated: boolean;
  readonly configHash: string;
  /** How many tasks may wait: in each lane, and in both together. */
  readonly capacity: { readonly interactive: number; readonly batch: number; readonly total: number };
}

export interface PoolRow {
  readonly id: string;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly contextLength: number;
  readonly deviceMask: string;
  readonly fullPolicy: 'reject' | 'drop-lru' | 'shed-low-priority';
  readonly draining: boolean;
  readonly generation: number;
}

// The file decides when it has changed since the row was made from it; otherwise a model that an operator reloaded at run
// time stands. A drain does not outlive the program: it may have been the first half of a reload that a crash cut short.
const UPSERT_POOL: Statement = {
  name: 'pool_upsert',
  text: `
INSERT INTO pools AS p (id, engine, model_ref, context_length, device_mask, sampler_profile_version, slots_per_replica,
  full_policy, simulated, config_hash, queue_capacity)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET
  engine = excluded.engine,
  model_ref = CASE WHEN p.config_hash = excluded.config_hash THEN p.model_ref ELSE excluded.model_ref END,
  context_length = excluded.context_length, device_mask = excluded.device_mask,
  sampler_profile_version = excluded.sampler_profile_version, slots_per_replica = excluded.slots_per_replica,
  full_policy = excluded.full_policy, queue_capacity = excluded.queue_capacity, simulated = excluded.simulated,
  draining = false,
  generation = p.generation + CASE WHEN p.config_hash = excluded.config_hash THEN 0 ELSE 1 END,
  config_hash = excluded.config_hash
RETURNING model_ref AS "modelRef"`,
};

const UPSERT_LANE: Statement = {
  name: 'lane_upsert',
  text: `
INSERT INTO queue_lanes (pool_id, priority, capacity) VALUES ($1, 'interactive', $2), ($1, 'batch', $3)
ON CONFLICT (pool_id, priority) DO UPDATE SET capacity = excluded.capacity`,
};

/** @returns the model the pool is to serve, which a reload may have changed since the file was written. */
export async function upsertPool(db: Database, pool: PoolDesired): Promise<string> {
  const rows = await db.query<{ modelRef: string }>(UPSERT_POOL, [
    pool.id,
    pool.engine,
    pool.modelRef,
    pool.contextLength,
    pool.deviceMask,
    pool.samplerProfileVersion,
    pool.slotsPerReplica,
    pool.fullPolicy,
    pool.simulated,
    pool.configHash,
    pool.capacity.total,
  ]);
  await db.query(UPSERT_LANE, [pool.id, pool.capacity.interactive, pool.capacity.batch]);
  return rows[0]?.modelRef ?? pool.modelRef;
}

const POOLS: Statement = {
  name: 'pool_list',
  text: `
SELECT id, engine, model_ref AS "modelRef", context_length AS "contextLength", device_mask AS "deviceMask",
       full_policy AS "fullPolicy", draining, generation
FROM pools ORDER BY id`,
};

export async function listPools(db: Database): Promise<PoolRow[]> {
  return db.query(POOLS, []);
}

const QUEUE: Statement = {
  name: 'pool_queue',
  text: `
SELECT p.full_policy AS "fullPolicy", p.queue_capacity AS total,
       max(l.capacity) FILTER (WHERE l.priority = 'interactive') AS interactive,
       max(l.capacity) FILTER (WHERE l.priority = 'batch') AS batch
FROM pools p JOIN queue_lanes l ON l.pool_id = p.id WHERE p.id = $1 GROUP BY p.id`,
};

/** As it is in force for all nodes; null: there is no such pool, or its first node is only making it. */
export async function poolQueue(db: Database, poolId: string): Promise<QueueSettings | null> {
  type Row = QueueSettings['capacity'] & Pick<QueueSettings, 'fullPolicy'>;
  const [row] = await db.query<Row>(QUEUE, [poolId]);
  if (row === undefined) return null;
  const { fullPolicy, ...capacity } = row;
  return { fullPolicy, capacity };
}

const SET_DRAINING: Statement = {
  name: 'pool_draining',
  text: 'UPDATE pools SET draining = $2, generation = generation + 1 WHERE id = $1 AND draining <> $2 RETURNING id',
};

/** @returns whether anything changed. */
export async function setDraining(db: Database, poolId: string, draining: boolean): Promise<boolean> {
  return (await db.query(SET_DRAINING, [poolId, draining])).length > 0;
}

const SET_MODEL: Statement = {
  name: 'pool_model',
  text: 'UPDATE pools SET model_ref = $2, generation = generation + 1 WHERE id = $1',
};

export async function setPoolModel(db: Database, poolId: string, modelRef: string): Promise<void> {
  await db.query(SET_MODEL, [poolId, modelRef]);
}

export interface ReplicaRow {
  readonly id: string;
  readonly poolId: string;
  readonly ordinal: number;
  readonly deviceMask: string;
  /** What it was started to serve. */
  readonly modelRef: string | null;
  readonly state: ReplicaState;
  readonly slotsTotal: number;
  readonly pid: number | null;
  readonly pidStartTicks: string | null;
  readonly mark: string | null;
  readonly lastError: Reason | null;
  readonly nodeId: string | null;
}

const REPLICAS: Statement = {
  name: 'replica_list',
  text: `
SELECT id, pool_id AS "poolId", ordinal, device_mask AS "deviceMask", model_ref AS "modelRef", state,
       slots_total AS "slotsTotal", pid, pid_start_ticks AS "pidStartTicks", mark, last_error AS "lastError",
       node_id AS "nodeId"
FROM replicas WHERE NOT retired ORDER BY id`,
};

/** The replicas that pools have now; of those that are no more, only leases of the past tell. */
export async function listReplicas(db: Database): Promise<ReplicaRow[]> {
  return db.query(REPLICAS, []);
}

/** Everything that is known of a replica at one moment; written whole, so that a row never mixes two moments. */
export interface ReplicaObserved {
  readonly id: string;
  readonly poolId: string;
  readonly ordinal: number;
  readonly state: ReplicaState;
  readonly slotsTotal: number;
  readonly deviceMask: string;
  readonly gpuUuids: readonly string[];
  readonly vramBytes: number;
  readonly nodeId: string;
  readonly endpoint: string | null;
  readonly pid: number | null;
  readonly pidStartTicks: string | null;
  readonly mark: string | null;
  readonly engineVersion: string | null;
  readonly modelId: string | null;
  readonly restartCount: number;
  readonly backoffUntilMs: number | null;
  readonly lastError: Reason | null;
  readonly lastHeartbeatMs: number | null;
  readonly tokensPerSecond: number | null;
  readonly firstTokenMs: number | null;
  /** What it was started to serve; another one than its pool's while a reload is under way. */
  readonly modelRef: string;
  readonly health: ReplicaHealth;
  readonly breaker: BreakerState;
  /** Steps of its present or last way to Ready, each with its times. */
  readonly preload: readonly object[];
  /** 0 … 1; null: the engine does not tell. */
  readonly kvUsage: number | null;
  /** What it takes, or may take as long as that has not been tried. */
  readonly workloads: readonly Workload[];
}

const UPSERT_REPLICA: Statement = {
  name: 'replica_upsert',
  text: `
INSERT INTO replicas (id, pool_id, ordinal, state, slots_total, device_mask, gpu_uuids, vram_bytes, node_id, endpoint,
  pid, pid_start_ticks, mark, engine_version, model_id, restart_count, backoff_until, last_error, last_heartbeat_at,
  tokens_per_second, first_token_ms, model_ref, health, breaker, preload, kv_usage, workloads)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, to_timestamp($17 / 1000.0), $18,
  to_timestamp($19 / 1000.0), $20, $21, $22, $23, $24, $25, $26, $27)
ON CONFLICT (id) DO UPDATE SET
  pool_id = excluded.pool_id, ordinal = excluded.ordinal, state = excluded.state, slots_total = excluded.slots_total,
  device_mask = excluded.device_mask, gpu_uuids = excluded.gpu_uuids, vram_bytes = excluded.vram_bytes,
  node_id = excluded.node_id, endpoint = excluded.endpoint, pid = excluded.pid,
  pid_start_ticks = excluded.pid_start_ticks, mark = excluded.mark, engine_version = excluded.engine_version,
  model_id = excluded.model_id, restart_count = excluded.restart_count, backoff_until = excluded.backoff_until,
  last_error = excluded.last_error, last_heartbeat_at = excluded.last_heartbeat_at,
  tokens_per_second = excluded.tokens_per_second, first_token_ms = excluded.first_token_ms,
  model_ref = excluded.model_ref, health = excluded.health, breaker = excluded.breaker, preload = excluded.preload,
  kv_usage = excluded.kv_usage, workloads = excluded.workloads, retired = false`,
};

export async function writeReplica(db: Database, replica: ReplicaObserved): Promise<void> {
  await db.query(UPSERT_REPLICA, [
    replica.id,
    replica.poolId,
    replica.ordinal,
    replica.state,
    replica.slotsTotal,
    replica.deviceMask,
    replica.gpuUuids,
    replica.vramBytes,
    replica.nodeId,
    replica.endpoint,
    replica.pid,
    replica.pidStartTicks,
    replica.mark,
    replica.engineVersion,
    replica.modelId,
    replica.restartCount,
    replica.backoffUntilMs,
    replica.lastError === null ? null : jsonbText(replica.lastError),
    replica.lastHeartbeatMs,
    replica.tokensPerSecond,
    replica.firstTokenMs,
    replica.modelRef,
    replica.health,
    replica.breaker,
    jsonbText(replica.preload),
    replica.kvUsage,
    replica.workloads,
  ]);
}

// Rows that a lease still points to stay, as history; nothing lists them. A row that one statement deletes and updates
// is only updated.
export const RETIRE_REPLICAS = `
  DELETE FROM replicas r WHERE r.id IN (SELECT id FROM over)
    AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.replica_id = r.id)
), parked AS (
  UPDATE replicas r SET retired = true, state = 'ABSENT', pid = NULL, endpoint = NULL
  WHERE r.id IN (SELECT id FROM over) AND EXISTS (SELECT 1 FROM leases l WHERE l.replica_id = r.id)
)`;

const RETIRE: Statement = {
  name: 'replica_retire',
  text: `WITH over AS (SELECT unnest($1::text[]) AS id), gone AS (${RETIRE_REPLICAS} SELECT 1`,
};

/** Their engines are gone, and others have taken their place. */
export async function retireReplicas(db: Database, ids: readonly string[]): Promise<void> {
  await db.query(RETIRE, [ids]);
}

// Pools that no node has in its configuration any more; those with tasks stay, as history, and take no new ones.
export const RETIRE_POOLS = `
  SELECT p.id, EXISTS (SELECT 1 FROM tasks t WHERE t.pool_id = p.id) AS used FROM pools p
  WHERE p.id IN (SELECT pool_id FROM given_up)
    AND NOT EXISTS (SELECT 1 FROM pool_members m WHERE (m.pool_id, m.node_id) NOT IN (SELECT pool_id, node_id FROM given_up)
      AND m.pool_id = p.id)
), empty AS (
  DELETE FROM pools p USING nobodys n WHERE p.id = n.id AND NOT n.used
), closed AS (
  UPDATE pools p SET draining = true FROM nobodys n WHERE p.id = n.id AND n.used
)`;

// What the file of this node no longer names, and what a reload that a crash cut short left behind. Pools that it never
// had are not its concern: another node may be about to make one.
const RETIRE_OTHERS: Statement = {
  name: 'pool_retire',
  text: `
WITH over AS (
  SELECT id FROM replicas WHERE (node_id = $3 OR node_id IS NULL) AND NOT (id = ANY($2::text[]))
), gone AS (${RETIRE_REPLICAS}, given_up AS (
  DELETE FROM pool_members WHERE node_id = $3 AND NOT (pool_id = ANY($1::text[])) RETURNING pool_id, node_id
), nobodys AS (${RETIRE_POOLS}
SELECT 1`,
};

export async function retireOthers(
  db: Database,
  nodeId: string,
  keep: { pools: readonly string[]; replicas: readonly string[] },
): Promise<void> {
  await db.query(RETIRE_OTHERS, [keep.pools, keep.replicas, nodeId]);
}

export interface GpuObserved {
  readonly uuid: string;
  readonly nodeId: string;
  readonly index: number;
  readonly name: string;
  readonly memoryTotalBytes: number;
  readonly simulated: boolean;
}

const UPSERT_GPU: Statement = {
  name: 'gpu_upsert',
  text: `
INSERT INTO gpus (uuid, node_id, index, name, memory_total_bytes, simulated, seen_at)
VALUES ($1, $2, $3, $4, $5, $6, now())
ON CONFLICT (uuid) DO UPDATE SET node_id = excluded.node_id, index = excluded.index, name = excluded.name,
  memory_total_bytes = excluded.memory_total_bytes, simulated = excluded.simulated, seen_at = excluded.seen_at`,
};

const FORGET_GPUS: Statement = {
  name: 'gpu_forget',
  text: 'DELETE FROM gpus WHERE node_id = $1 AND NOT (uuid = ANY($2::text[]))',
};

/** The GPUs of one node, as its inventory sees them now; others of that node are forgotten. */
export async function writeGpus(db: Database, nodeId: string, gpus: readonly GpuObserved[]): Promise<void> {
  await db.query(FORGET_GPUS, [nodeId, gpus.map((gpu) => gpu.uuid)]);
  for (const gpu of gpus) {
    await db.query(UPSERT_GPU, [gpu.uuid, gpu.nodeId, gpu.index, gpu.name, gpu.memoryTotalBytes, gpu.simulated]);
  }
}
