/** GPUs, and what runs on them. */
import { builder } from './builder.js';
import { BY_ORDINAL } from './pool.js';
import { gpus, memoryUsed } from './shared.js';

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
      description: 'Memory that no engine of ours has reserved.',
      complexity: 2,
      resolve: async (gpu, _args, context) => {
        const free = gpu.memoryTotalBytes - ((await memoryUsed(context)).get(gpu.uuid) ?? 0n);
        return free < 0n ? 0n : free;
      },
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
