/** Leases: who holds which slot, and until when. */
import { builder, pageCost } from './builder.js';

const Lease = builder.prismaNode('Lease', {
  id: { field: 'id' },
  nullable: true,
  description: 'A slot of a replica, held by a task; kept as history after its end.',
  fields: (t) => ({
    fencingToken: t.field({
      type: 'BigInt',
      description: 'Rises with every lease; a write that names an older one changes nothing.',
      resolve: (lease) => lease.id,
    }),
    task: t.relation('task', { description: 'The task that holds the slot.' }),
    replica: t.relation('replica', { description: 'Whose slot it is.' }),
    slot: t.exposeInt('slot', { description: 'Number of the slot, from 0.' }),
    holder: t.expose('holder', { type: 'UUID', description: 'The control plane node that acts for the task.' }),
    acquiredAt: t.expose('acquiredAt', { type: 'DateTime', description: 'When it was taken.' }),
    renewedAt: t.expose('renewedAt', { type: 'DateTime', description: 'When its holder last showed that it lives.' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', description: 'When it lapses unless it is renewed.' }),
    releasedAt: t.expose('releasedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it ended; null while the slot is held.',
    }),
    releaseReason: t.exposeString('releaseReason', { nullable: true, description: 'Why it ended.' }),
  }),
});

const LeaseConnection = builder.connectionObject(
  { type: Lease, name: 'LeaseConnection', description: 'A page of leases.' },
  { name: 'LeaseEdge', description: 'A lease in a page.' },
);

builder.queryField('leases', (t) =>
  t.prismaConnection(
    {
      type: Lease,
      cursor: 'id',
      description: 'Leases, the newest first.',
      complexity: pageCost,
      args: { active: t.arg.boolean({ description: 'true: only slots that are held now; false: only ended leases.' }) },
      resolve: (query, _root, { active }, { prisma }) =>
        prisma.lease.findMany({
          ...query,
          where: active == null ? {} : { releasedAt: active ? null : { not: null } },
          orderBy: { id: 'desc' },
        }),
    },
    LeaseConnection,
  ),
);

builder.prismaObjectFields('Pool', (t) => ({
  leases: t.prismaConnection(
    {
      type: Lease,
      cursor: 'id',
      description: 'Leases of its slots, the newest first.',
      complexity: pageCost,
      resolve: (query, pool, _args, { prisma }) =>
        prisma.lease.findMany({ ...query, where: { replica: { poolId: pool.id } }, orderBy: { id: 'desc' } }),
    },
    LeaseConnection,
  ),
}));
