/** GPUs, and what runs on them. */
import { builder } from './builder.js';
import type { GraphQLContext } from './context.js';
import { BY_ORDINAL } from './pool.js';
import { gpus, memoryUsed } from './shared.js';

const GpuHealth = builder.enumType('GpuHealth', {
  description: 'How a GPU is.',
  values: {
    OK: { value: 'ok', description: 'Nothing is known against it.' },
    DEGRADED: { value: 'degraded', description: 'It answers, but needs a reset or repair.' },
    LOST: { value: 'lost', description: 'It does not answer, or is not listed any more.' },
  } as const,
});

/** Of this host; what runs on others is read there. */
function readingOf({ services }: GraphQLContext, uuid: string) {
  return services.gpus.readings().find(({ gpu }) => gpu.uuid === uuid);
}

const Gpu = builder.prismaNode('Gpu', {
  id: { field: 'uuid' },
  nullable: true,
  description: 'A GPU of a host, real or simulated.',
  fields: (t) => ({
    uuid: t.exposeString('uuid', { description: 'As the driver names it.' }),
    index: t.exposeInt('index', { description: 'Its number on the host.' }),
    name: t.exposeString('name', { description: 'Its product name.' }),
    computeCapability: t.exposeString('computeCapability', {
      nullable: true,
      description: 'CUDA compute capability, e.g. 9.0.',
    }),
    memoryTotalBytes: t.field({
      type: 'BigInt',
      description: 'Memory it has.',
      resolve: (gpu) => gpu.memoryTotalBytes,
    }),
    memoryFreeBytes: t.field({
      type: 'BigInt',
      description:
        'Memory that neither an engine of ours has booked nor, as far as its host reads it, anybody else uses.',
      complexity: 2,
      resolve: async (gpu, _args, context) => {
        const unbooked = gpu.memoryTotalBytes - ((await memoryUsed(context)).get(gpu.uuid) ?? 0n);
        const read = BigInt(readingOf(context, gpu.uuid)?.memoryFreeBytes ?? gpu.memoryTotalBytes);
        const free = unbooked < read ? unbooked : read;
        return free < 0n ? 0n : free;
      },
    }),
    utilization: t.float({
      nullable: true,
      description: 'Share of time with work on it, percent; null where its host does not tell.',
      resolve: (gpu, _args, context) => readingOf(context, gpu.uuid)?.utilizationPercent ?? null,
    }),
    temperatureCelsius: t.float({
      nullable: true,
      description: 'Null where its host does not tell.',
      resolve: (gpu, _args, context) => readingOf(context, gpu.uuid)?.temperatureC ?? null,
    }),
    stale: t.boolean({
      description: 'Whether what is known of it is too old to place anything by it.',
      resolve: (gpu, _args, context) => readingOf(context, gpu.uuid)?.stale ?? true,
    }),
    health: t.field({
      type: GpuHealth,
      nullable: true,
      description: 'Null for a GPU of another host.',
      resolve: (gpu, _args, context) => readingOf(context, gpu.uuid)?.health ?? null,
    }),
    healthReason: t.string({
      nullable: true,
      description: 'Why it is not OK, or why it is stale.',
      resolve: (gpu, _args, context) => readingOf(context, gpu.uuid)?.reason ?? null,
    }),
    lastXid: t.int({
      nullable: true,
      description: 'Number of the last error that its driver reported.',
      resolve: (gpu, _args, context) => readingOf(context, gpu.uuid)?.lastXid?.xid ?? null,
    }),
    simulated: t.exposeBoolean('simulated', { description: 'Whether it exists only in this control plane.' }),
    seenAt: t.field({ type: 'DateTime', description: 'When the host last reported it.', resolve: (gpu) => gpu.seenAt }),
    replicas: t.prismaField({
      type: ['Replica'],
      description: 'The replicas placed on it.',
      complexity: { field: 3, multiplier: 4 },
      resolve: (query, gpu, _args, { prisma }) =>
        prisma.replica.findMany({ ...query, where: { gpuUuids: { has: gpu.uuid } }, orderBy: { id: 'asc' } }),
    }),
  }),
});

builder.prismaObjectFields('Pool', (t) => ({
  devices: t.field({
    type: [Gpu],
    description: 'The GPUs that its replicas are placed on.',
    complexity: { field: 2, multiplier: 4 },
    select: { replicas: { orderBy: BY_ORDINAL, select: { gpuUuids: true } } },
    resolve: async (pool, _args, context) => {
      const uuids = new Set(pool.replicas.flatMap((replica) => replica.gpuUuids));
      return (await gpus(context)).filter((gpu) => uuids.has(gpu.uuid));
    },
  }),
}));

builder.queryField('gpus', (t) =>
  t.prismaField({
    type: ['Gpu'],
    description: 'Every GPU of every host.',
    complexity: { field: 2, multiplier: 8 },
    resolve: (query, _root, _args, { prisma }) =>
      prisma.gpu.findMany({ ...query, orderBy: [{ nodeId: 'asc' }, { index: 'asc' }] }),
  }),
);
