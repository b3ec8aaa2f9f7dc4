/** Crash records: how engines were lost. */
import type { FlagChange as FlagChangeShape } from '../core/flags.js';
import { builder, pageCost } from './builder.js';
import type { GraphQLContext } from './context.js';
import { shared } from './shared.js';

const FlagChange = builder.objectRef<FlagChangeShape>('FlagChange').implement({
  description: 'A launch argument that differs from the last start that became ready.',
  fields: (t) => ({
    flag: t.exposeString('flag', { description: 'With its dashes; empty for a word that belongs to no flag.' }),
    before: t.exposeString('before', {
      nullable: true,
      description: 'Its value then; null: it was not given; empty: it was given without one.',
    }),
    after: t.exposeString('after', { nullable: true, description: 'Its value at the start of the lost engine.' }),
  }),
});

const CrashRecord = builder.prismaNode('CrashRecord', {
  id: { field: 'id' },
  nullable: true,
  description: 'The end of an engine that nobody asked for; the newest 20 of each replica are kept.',
  // Its log lines and arguments are read when they are asked for.
  select: { id: true },
  fields: (t) => ({
    replicaName: t.exposeString('replicaId', { description: 'Of the replica, which may be gone from its pool since.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When it was noticed.' }),
    modelRef: t.exposeString('modelRef', { description: 'The model it was started with.' }),
    engineVersion: t.exposeString('engineVersion', {
      nullable: true,
      description: 'As its engine last reported it; null when it never did.',
    }),
    exitCode: t.exposeInt('exitCode', {
      nullable: true,
      description: 'Null when a signal ended it, llama-orch did, or its code is not known.',
    }),
    signal: t.exposeString('signal', { nullable: true, description: 'The signal that ended it, e.g. SIGKILL.' }),
    fault: t.exposeString('fault', { description: 'What went wrong, as a class, e.g. VRAM_OOM_LOAD.' }),
    message: t.exposeString('message', { description: 'What went wrong, in words.' }),
    fix: t.exposeString('fix', { nullable: true, description: 'What to do, if anything can be done.' }),
    lastLines: t.field({
      type: ['String'],
      description: 'The end of its log, oldest first: at most 40 lines and 16 KiB, without secrets.',
      select: { lastLines: true },
      resolve: (crash) => storedList<string>(crash.lastLines),
    }),
    launchArgs: t.field({
      type: ['String'],
      nullable: true,
      description: 'Its arguments, secrets masked; null when llama-orch did not start it.',
      select: { launchArgs: true },
      resolve: (crash) => (crash.launchArgs === null ? null : storedList<string>(crash.launchArgs)),
    }),
    flagChanges: t.field({
      type: [FlagChange],
      description:
        'Its arguments against those of the last start that became ready, ports left out; empty without one.',
      complexity: { field: 1, multiplier: 4 },
      select: { flagChanges: true },
      resolve: (crash) => storedList<FlagChangeShape>(crash.flagChanges),
    }),
    ranForMs: t.exposeFloat('ranForMs', { description: 'From its start to its end, ms.' }),
    readyForMs: t.exposeFloat('readyForMs', {
      nullable: true,
      description: 'How long it had been ready, ms; null when it never was.',
    }),
  }),
});

/** Written by the service alone, in the shape that is read. */
function storedList<Item>(value: unknown): Item[] {
  return Array.isArray(value) ? value : [];
}

/** The newest crash of each replica; so many are kept of each that they can be looked through. */
const lastCrashes = shared(async ({ prisma }) => {
  const newest = await prisma.crashRecord.findMany({
    distinct: ['replicaId'],
    orderBy: [{ replicaId: 'asc' }, { at: 'desc' }, { id: 'desc' }],
    select: { id: true, replicaId: true },
  });
  return new Map(newest.map(({ id, replicaId }) => [replicaId, id]));
});

/** Reads of the same moment are one statement. */
async function lastCrash<Query extends object>(context: GraphQLContext, query: Query, replicaId: string) {
  const id = (await lastCrashes(context)).get(replicaId);
  return id === undefined ? null : context.prisma.crashRecord.findUnique({ ...query, where: { id } });
}

builder.prismaObjectFields('Replica', (t) => ({
  lastCrash: t.prismaField({
    type: CrashRecord,
    nullable: true,
    description: 'How its engine was lost the last time; null when it never was.',
    complexity: 2,
    select: { id: true },
    // Spread here, so that a crash that never was does not count as a query that was forgotten.
    resolve: (query, replica, _args, context) => lastCrash(context, { ...query }, replica.id),
  }),
}));

const CrashRecordConnection = builder.connectionObject(
  { type: CrashRecord, name: 'CrashRecordConnection', description: 'A page of crash records.' },
  { name: 'CrashRecordEdge', description: 'A crash record in a page.' },
);

builder.prismaObjectFields('Pool', (t) => ({
  crashes: t.relatedConnection(
    'crashes',
    {
      cursor: 'id',
      description: 'How its engines were lost, the newest first.',
      complexity: pageCost,
      query: { orderBy: [{ at: 'desc' }, { id: 'desc' }] },
    },
    CrashRecordConnection,
  ),
}));
