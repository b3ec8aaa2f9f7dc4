/** GPUs, and what runs on them. */
import { freeMemory, leastCapability } from '../core/registry.js';
import { builder } from './builder.js';
import type { GraphQLContext } from './context.js';
import { OF_POOL } from './pool.js';
import { gpus, memoryUsed } from './shared.js';
import { ReaderSource } from './source.js';

const DEFAULT_INTERVAL_MS = 2_000;

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

interface GpuRow {
  readonly uuid: string;
  readonly memoryTotalBytes: bigint;
}

async function freeBytes({ uuid, memoryTotalBytes }: GpuRow, context: GraphQLContext): Promise<bigint> {
  const booked = (await memoryUsed(context)).get(uuid) ?? 0n;
  const read = readingOf(context, uuid)?.memoryFreeBytes ?? null;
  return BigInt(freeMemory(Number(memoryTotalBytes), Number(booked), read));
}

function capabilityOf(
  gpu: { readonly uuid: string; readonly computeCapability: string | null },
  context: GraphQLContext,
) {
  return readingOf(context, gpu.uuid)?.computeCapability ?? gpu.computeCapability;
}

const Gpu = builder.prismaNode('Gpu', {
  id: { field: 'uuid' },
  nullable: true,
  description: 'A GPU of a host, real or simulated.',
  fields: (t) => ({
    uuid: t.exposeString('uuid', { description: 'As the driver names it.' }),
    index: t.exposeInt('index', { description: 'Its number on the host.' }),
    name: t.exposeString('name', { description: 'Its product name.' }),
    computeCapability: t.string({
      nullable: true,
      description: 'CUDA compute capability, e.g. 9.0; null where its host does not tell.',
      resolve: (gpu, _args, context) => capabilityOf(gpu, context),
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
      resolve: (gpu, _args, context) => freeBytes(gpu, context),
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
        prisma.replica.findMany({
          ...query,
          where: { gpuUuids: { has: gpu.uuid }, retired: false },
          orderBy: { id: 'asc' },
        }),
    }),
  }),
});

const DEVICES = { replicas: { ...OF_POOL, select: { gpuUuids: true } } } as const;

interface PlacedPool {
  readonly replicas: readonly { readonly gpuUuids: readonly string[] }[];
}

async function devicesOf(pool: PlacedPool, context: GraphQLContext) {
  const uuids = new Set(pool.replicas.flatMap((replica) => replica.gpuUuids));
  return (await gpus(context)).filter((gpu) => uuids.has(gpu.uuid));
}

builder.prismaObjectFields('Pool', (t) => ({
  devices: t.field({
    type: [Gpu],
    description: 'The GPUs that its replicas are placed on.',
    complexity: { field: 2, multiplier: 4 },
    select: DEVICES,
    resolve: (pool, _args, context) => devicesOf(pool, context),
  }),
  vramTotalBytes: t.field({
    type: 'BigInt',
    description: 'Memory of its devices together.',
    complexity: 2,
    select: DEVICES,
    resolve: async (pool, _args, context) =>
      (await devicesOf(pool, context)).reduce((sum, gpu) => sum + gpu.memoryTotalBytes, 0n),
  }),
  vramFreeBytes: t.field({
    type: 'BigInt',
    description: 'What is free of it, as the devices tell it.',
    complexity: 3,
    select: DEVICES,
    resolve: async (pool, _args, context) => {
      const free = await Promise.all((await devicesOf(pool, context)).map((gpu) => freeBytes(gpu, context)));
      return free.reduce((sum, bytes) => sum + bytes, 0n);
    },
  }),
  computeCapability: t.string({
    nullable: true,
    description: 'CUDA compute capability that all of its devices have; null where none tells.',
    complexity: 2,
    select: DEVICES,
    resolve: async (pool, _args, context) =>
      leastCapability((await devicesOf(pool, context)).map((gpu) => capabilityOf(gpu, context))),
  }),
}));

const IN_ORDER = [{ nodeId: 'asc' }, { index: 'asc' }] as const;

builder.queryField('gpus', (t) =>
  t.prismaField({
    type: ['Gpu'],
    description: 'Every GPU of every host.',
    complexity: { field: 2, multiplier: 8 },
    resolve: (query, _root, _args, { prisma }) => prisma.gpu.findMany({ ...query, orderBy: [...IN_ORDER] }),
  }),
);

builder.subscriptionField('gpus', (t) =>
  t.prismaField({
    type: ['Gpu'],
    description: 'Every GPU of every host: at once, then again after each interval. Only the present is told.',
    complexity: { field: 2, multiplier: 8 },
    args: {
      intervalMs: t.arg.int({ defaultValue: DEFAULT_INTERVAL_MS, description: 'ms, 250 to 60000.' }),
    },
    subscribe: (_root, { intervalMs }, { services }) =>
      new ReaderSource(services.gpus.ticks(intervalMs ?? DEFAULT_INTERVAL_MS)),
    resolve: (query, _tick, _args, { prisma }) => prisma.gpu.findMany({ ...query, orderBy: [...IN_ORDER] }),
  }),
);
