/** Pools and their queues. */
import { isLive, notReadyBecause, type ReplicaView } from '../core/pool.js';
import type { Lane } from '../services/pools.js';
import type { FullPolicy as FullPolicyValue, ReplicaState } from '../store/generated/prisma/enums.js';
import { builder } from './builder.js';
import { Engine, FullPolicy, Priority } from './enums.js';
import { Reason, storedReason } from './reason.js';
import { activeLeases, lanes } from './shared.js';

interface QueueShape {
  readonly poolId: string;
  readonly policy: FullPolicyValue;
  readonly capacity: number;
}

export const QueueLane = builder.objectRef<Lane>('QueueLane').implement({
  description: 'The waiting tasks of one priority.',
  fields: (t) => ({
    priority: t.field({ type: Priority, description: 'Of the tasks in it.', resolve: (lane) => lane.priority }),
    depth: t.exposeInt('depth', { description: 'How many tasks wait.' }),
    capacity: t.exposeInt('capacity', { description: 'How many may wait.' }),
    oldestAgeMs: t.exposeInt('oldestAgeMs', {
      nullable: true,
      description: 'How long the oldest of them has waited, ms; null when none waits.',
    }),
  }),
});

const Queue = builder.objectRef<QueueShape>('Queue').implement({
  description: 'The bounded queue of a pool.',
  fields: (t) => ({
    capacity: t.exposeInt('capacity', { description: 'How many tasks may wait, in all lanes together.' }),
    policy: t.field({
      type: FullPolicy,
      description: 'What happens to one more task when a lane is full.',
      resolve: (queue) => queue.policy,
    }),
    depth: t.int({
      description: 'How many tasks wait, in all lanes.',
      resolve: async (queue, _args, context) => sum(await lanesOf(queue.poolId, lanes(context)), (lane) => lane.depth),
    }),
    lanes: t.field({
      type: [QueueLane],
      description: 'One per priority, the first served first.',
      complexity: { field: 1, multiplier: 2 },
      resolve: (queue, _args, context) => lanesOf(queue.poolId, lanes(context)),
    }),
  }),
});

async function lanesOf(poolId: string, all: Promise<readonly Lane[]>): Promise<Lane[]> {
  const own = (await all).filter((lane) => lane.poolId === poolId);
  return own.sort((a, b) => Number(a.priority === 'batch') - Number(b.priority === 'batch'));
}

function sum<Item>(items: readonly Item[], of: (item: Item) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

/** The replicas that a pool has now, as the field `replicas` reads them, so that one read serves all fields. */
export const OF_POOL = { where: { retired: false }, orderBy: { ordinal: 'asc' } } as const;
export const POOL_VIEW = {
  draining: true,
  replicas: { ...OF_POOL, select: { id: true, state: true, lastError: true } },
} as const;

interface PoolView {
  readonly draining: boolean;
  readonly replicas: readonly { readonly id: string; readonly state: ReplicaState; readonly lastError: unknown }[];
}

export function replicaViews(pool: PoolView): ReplicaView[] {
  return pool.replicas.map(({ id, state, lastError }) => ({ id, state, lastError: storedReason(lastError) }));
}

builder.prismaNode('Pool', {
  id: { field: 'id' },
  nullable: true,
  description: 'Replicas of one engine with one model, behind one queue.',
  select: { id: true },
  fields: (t) => ({
    name: t.exposeString('id', {
      description: 'The name in the configuration; the pool_id of REST and of the metrics.',
    }),
    engine: t.field({
      type: Engine,
      description: 'What its replicas run.',
      select: { engine: true },
      resolve: (pool) => pool.engine,
    }),
    modelRef: t.exposeString('modelRef', { description: 'The model it serves.' }),
    contextLength: t.exposeInt('contextLength', { description: 'The longest context of one task, in tokens.' }),
    samplerProfileVersion: t.exposeString('samplerProfileVersion', {
      nullable: true,
      description: 'Version of the sampler settings its engines run with.',
    }),
    simulated: t.exposeBoolean('simulated', { description: 'Whether any engine or GPU under it is simulated.' }),
    draining: t.exposeBoolean('draining', { description: 'Whether it refuses new work.' }),
    generation: t.exposeInt('generation', { description: 'Rises with every change of what the pool should be.' }),
    live: t.boolean({
      description: 'At least one engine process is up.',
      select: POOL_VIEW,
      resolve: (pool) => isLive(replicaViews(pool)),
    }),
    ready: t.boolean({
      description: 'It takes and serves work now.',
      select: POOL_VIEW,
      resolve: (pool) => notReadyBecause(pool, replicaViews(pool)).length === 0,
    }),
    notReadyBecause: t.field({
      type: [Reason],
      description: 'Empty when ready; else every reason, the nearest to the cause first.',
      complexity: { field: 1, multiplier: 3 },
      select: POOL_VIEW,
      resolve: (pool) => notReadyBecause(pool, replicaViews(pool)),
    }),
    queue: t.field({
      type: Queue,
      description: 'Its waiting tasks.',
      select: { fullPolicy: true, queueCapacity: true },
      resolve: (pool) => ({ poolId: pool.id, policy: pool.fullPolicy, capacity: pool.queueCapacity }),
    }),
    replicas: t.relation('replicas', {
      description: 'Its replicas, in the order of their numbers.',
      complexity: { field: 2, multiplier: 4 },
      query: OF_POOL,
    }),
    activeLeases: t.int({
      description: 'How many slots are held now.',
      complexity: 2,
      select: { replicas: { ...OF_POOL, select: { id: true } } },
      resolve: async (pool, _args, context) => {
        const held = await activeLeases(context);
        return sum(pool.replicas, (replica) => held.get(replica.id) ?? 0);
      },
    }),
  }),
});

builder.queryFields((t) => ({
  pool: t.prismaField({
    type: 'Pool',
    nullable: true,
    description: 'The pool of that name; null when there is none.',
    args: { name: t.arg.string({ required: true, description: 'The name in the configuration.' }) },
    resolve: (query, _root, { name }, { prisma }) => prisma.pool.findUnique({ ...query, where: { id: name } }),
  }),
  pools: t.prismaField({
    type: ['Pool'],
    description: 'Every pool, by name.',
    complexity: { field: 2, multiplier: 5 },
    resolve: (query, _root, _args, { prisma }) => prisma.pool.findMany({ ...query, orderBy: { id: 'asc' } }),
  }),
}));
