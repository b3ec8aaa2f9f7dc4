/** The control planes that share the database of this one. */
import { builder } from './builder.js';

const ControlPlane = builder.prismaObject('ControlNode', {
  name: 'ControlPlane',
  description: 'A control plane on this database, with engines of its own.',
  fields: (t) => ({
    number: t.exposeInt('number', {
      description: 'No other has it; the names of its replicas end in @ and this, but for 0.',
    }),
    url: t.exposeString('url', { description: 'Where it listens, as it sees that itself.' }),
    startedAt: t.expose('startedAt', { type: 'DateTime', description: 'When it was last started.' }),
    seenAt: t.expose('seenAt', {
      type: 'DateTime',
      description: 'When it last said that it runs; one that is silent for 15 s is taken for gone.',
    }),
    stoppedAt: t.expose('stoppedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was stopped in order; null since its start.',
    }),
    pools: t.stringList({
      description: 'Names of the pools in its configuration.',
      select: { pools: { select: { poolId: true }, orderBy: { poolId: 'asc' } } },
      resolve: ({ pools }) => pools.map(({ poolId }) => poolId),
    }),
  }),
});

builder.queryField('controlPlanes', (t) =>
  t.prismaField({
    type: [ControlPlane],
    description: 'Every control plane on this database, by number; one that has been away for a day is forgotten.',
    complexity: { field: 2, multiplier: 4 },
    resolve: (query, _root, _args, { prisma }) => prisma.controlNode.findMany({ ...query, orderBy: { number: 'asc' } }),
  }),
);
