/** One load for all fields that ask in the same moment. Forgotten as soon as it answers: subscriptions keep their context. */
import type { GraphQLContext } from './context.js';

export function shared<Value>(
  load: (context: GraphQLContext) => Promise<Value>,
): (context: GraphQLContext) => Promise<Value> {
  const loading = new WeakMap<GraphQLContext, Promise<Value>>();
  return (context) => {
    const known = loading.get(context);
    if (known !== undefined) return known;
    const value = load(context).finally(() => loading.delete(context));
    loading.set(context, value);
    return value;
  };
}

/** One replica, or none; reads of the same moment are one statement. */
export function findReplica<Query extends object>(prisma: GraphQLContext['prisma'], query: Query, id: string | null) {
  return id === null ? null : prisma.replica.findUnique({ ...query, where: { id } });
}

/** Slots held now, per replica; bounded by the slots there are. */
export const activeLeases = shared(async ({ prisma }) => {
  const rows = await prisma.lease.groupBy({ by: ['replicaId'], where: { releasedAt: null }, _count: true });
  return new Map(rows.map((row) => [row.replicaId, row._count]));
});

/** How quotes did, of every lane. */
export const calibrations = shared(({ services }) => services.quotes.calibration());

export const lanes = shared(({ services }) => services.pools.lanes());

/** All GPUs; there are as many as the hosts have. */
export const gpus = shared(({ prisma }) => prisma.gpu.findMany({ orderBy: [{ nodeId: 'asc' }, { index: 'asc' }] }));

const PROCESS_UP = ['STARTING', 'PRELOADING', 'SELF_TESTING', 'READY', 'DRAINING', 'STOPPING'] as const;

/** What the engine processes that are up take of the memory of each GPU. */
export const memoryUsed = shared(async ({ prisma }) => {
  const replicas = await prisma.replica.findMany({
    where: { state: { in: [...PROCESS_UP] } },
    select: { gpuUuids: true, vramBytes: true },
  });
  const used = new Map<string, bigint>();
  for (const { gpuUuids, vramBytes } of replicas) {
    for (const uuid of gpuUuids) used.set(uuid, (used.get(uuid) ?? 0n) + vramBytes);
  }
  return used;
});
