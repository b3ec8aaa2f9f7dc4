/** What the registry says of a pool: its replicas and devices, put together. */
import { type RegistryReplica, registryEntry } from '../core/registry.js';
import type { ReplicaState } from '../store/generated/prisma/enums.js';
import { builder } from './builder.js';
import type { GraphQLContext } from './context.js';
import { OF_POOL } from './pool.js';
import { Reason, storedReason } from './reason.js';
import { activeLeases } from './shared.js';

const REGISTRY_VIEW = {
  draining: true,
  replicas: {
    ...OF_POOL,
    select: {
      id: true,
      state: true,
      slotsTotal: true,
      engineVersion: true,
      lastError: true,
      lastHeartbeatAt: true,
      tokensPerSecond: true,
      firstTokenMs: true,
    },
  },
} as const;

interface StoredReplica extends Omit<RegistryReplica, 'lastError' | 'lastHeartbeatMs'> {
  readonly state: ReplicaState;
  readonly lastError: unknown;
  readonly lastHeartbeatAt: Date | null;
}

interface PoolView {
  readonly draining: boolean;
  readonly replicas: readonly StoredReplica[];
}

const NOBODY_ASKED: ReadonlyMap<string, number> = new Map();

function entryOf(pool: PoolView, held = NOBODY_ASKED) {
  const replicas = pool.replicas.map(({ lastError, lastHeartbeatAt, ...replica }) => ({
    ...replica,
    lastError: storedReason(lastError),
    lastHeartbeatMs: lastHeartbeatAt?.getTime() ?? null,
  }));
  return registryEntry(pool, replicas, held);
}

async function slotsFree(pool: PoolView, context: GraphQLContext): Promise<number> {
  return entryOf(pool, await activeLeases(context)).slotsFree;
}

builder.prismaObjectFields('Pool', (t) => ({
  deviceMask: t.exposeString('deviceMask', { description: 'The devices that its replicas may use, by index.' }),
  engineVersion: t.string({
    nullable: true,
    description: 'As the first of its engines that was asked reports it.',
    select: REGISTRY_VIEW,
    resolve: (pool) => entryOf(pool).engineVersion,
  }),
  slotsTotal: t.int({
    description: 'How many tasks its replicas run at once.',
    select: REGISTRY_VIEW,
    resolve: (pool) => entryOf(pool).slotsTotal,
  }),
  slotsFree: t.int({
    description: 'How many more it would take now; 0 unless it is ready.',
    complexity: 2,
    select: REGISTRY_VIEW,
    resolve: (pool, _args, context) => slotsFree(pool, context),
  }),
  lastError: t.field({
    type: Reason,
    nullable: true,
    description: 'The last thing that went wrong with one of its replicas and is not mended.',
    select: REGISTRY_VIEW,
    resolve: (pool) => entryOf(pool).lastError,
  }),
  lastHeartbeatAt: t.field({
    type: 'DateTime',
    nullable: true,
    description: 'When one of its engines last showed that it is alive.',
    select: REGISTRY_VIEW,
    resolve: (pool) => {
      const { lastHeartbeatMs } = entryOf(pool);
      return lastHeartbeatMs === null ? null : new Date(lastHeartbeatMs);
    },
  }),
  tokensPerSecond: t.float({
    nullable: true,
    description: 'Of one task; moving average, mean of its replicas.',
    select: REGISTRY_VIEW,
    resolve: (pool) => entryOf(pool).tokensPerSecond,
  }),
  firstTokenMs: t.float({
    nullable: true,
    description: 'Time to the first token of a task, ms; moving average, mean of its replicas.',
    select: REGISTRY_VIEW,
    resolve: (pool) => entryOf(pool).firstTokenMs,
  }),
}));
