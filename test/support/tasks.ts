/** Rows for tests of the store and the services. */
import { randomUUID } from 'node:crypto';
import { NO_LIMITS } from '../../src/core/budget.js';
import { displacedFailure, type FullPolicy } from '../../src/core/queue.js';
import type { Database } from '../../src/store/database.js';
import { upsertPool, writeReplica } from '../../src/store/pools.js';
import type { NewTask } from '../../src/store/queue.js';

export async function seedPool(
  db: Database,
  options: {
    id?: string;
    capacity?: number;
    lanes?: { interactive: number; batch: number };
    policy?: FullPolicy;
    replicas?: number;
    slots?: number;
  } = {},
): Promise<{ poolId: string; replicaIds: string[] }> {
  const { id = 'p', capacity = 100, policy = 'reject', replicas = 1, slots = 4 } = options;
  const lanes = options.lanes ?? { interactive: capacity, batch: capacity };
  await upsertPool(db, {
    id,
    engine: 'llamacpp',
    modelRef: 'm',
    contextLength: 4096,
    deviceMask: '0',
    samplerProfileVersion: null,
    quant: null,
    slotsPerReplica: slots,
    fullPolicy: policy,
    simulated: true,
    configHash: 'h',
    capacity: { ...lanes, total: capacity },
  });
  const replicaIds = Array.from({ length: replicas }, (_, ordinal) => `${id}-${ordinal}`);
  for (const [ordinal, replicaId] of replicaIds.entries()) {
    await writeReplica(db, {
      id: replicaId,
      poolId: id,
      ordinal,
      state: 'READY',
      slotsTotal: slots,
      deviceMask: '0',
      gpuUuids: [],
      vramBytes: 0,
      nodeId: randomUUID(),
      endpoint: null,
      pid: null,
      pidStartTicks: null,
      mark: null,
      engineVersion: null,
      modelId: null,
      restartCount: 0,
      backoffUntilMs: null,
      lastError: null,
      lastHeartbeatMs: null,
      tokensPerSecond: null,
      firstTokenMs: null,
      modelRef: 'm',
      health: 'READY',
      breaker: 'CLOSED',
      preload: [],
      kvUsage: null,
      workloads: ['completion'],
    });
  }
  return { poolId: id, replicaIds };
}

/** What the replicas of such a pool serve. */
export const SERVES = { engine: 'llamacpp', modelRef: 'm' } as const;

/** A test may send as many tasks in a session as it likes. */
export const SUBMIT = {
  sessions: { ttlMs: 600_000, maxTurns: 1_000, limits: NO_LIMITS },
  priceMicros: 0,
  displaced: displacedFailure('p', 'drop-lru', 500),
};

export function newTask(overrides: Partial<NewTask> = {}): NewTask {
  return {
    taskId: randomUUID(),
    sessionId: randomUUID(),
    workload: 'completion',
    modelRef: 'm',
    engine: 'llamacpp',
    ctx: 1024,
    priority: 'interactive',
    seed: 7n,
    determinism: 'strict',
    samplerProfileVersion: null,
    prompt: 'hello',
    promptTokens: 13,
    inputs: [],
    maxTokens: 16,
    deadlineMs: 60_000,
    kvHint: null,
    followsPool: false,
    disconnectGraceMs: null,
    correlationId: 'c',
    requestHash: 'hash',
    explanation: { candidates: [], chosen: 'p', rule: 'test' },
    startBasis: { slotsTotal: 4, slotsFree: 4, serviceMs: 0 },
    ...overrides,
  };
}
