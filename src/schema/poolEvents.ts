/** The journal of pools: as a list, and as a stream. */
import { formatPrismaCursor, parsePrismaCursor } from '@pothos/plugin-prisma';
import { invalid, RefusalError } from '../core/errors.js';
import { builder, pageCost } from './builder.js';
import { findReplica } from './shared.js';
import { ReaderSource } from './source.js';

const PoolEvent = builder.prismaObject('PoolEvent', {
  description: 'Something that happened to a pool or to one of its replicas.',
  fields: (t) => ({
    cursor: t.string({
      description: 'Where it stands among all pool events, to be given as `after`.',
      resolve: (event) => formatPrismaCursor(event, 'seq'),
    }),
    kind: t.exposeString('kind', { description: 'What happened, e.g. replica_ready or drain_started.' }),
    message: t.exposeString('message', { description: 'The same in words.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When it happened.' }),
    detail: t.expose('detail', {
      type: 'JSON',
      nullable: true,
      description: 'Facts that belong to this kind of event.',
    }),
    pool: t.relation('pool', { description: 'The pool it happened to.' }),
    replica: t.prismaField({
      type: 'Replica',
      nullable: true,
      description: 'The replica it happened to; null when it concerns the whole pool, or the replica is gone.',
      // Spread here, so that a replica that is null does not count as a query that was forgotten.
      resolve: (query, { replicaId }, _args, { prisma }) => findReplica(prisma, { ...query }, replicaId),
    }),
  }),
});

const PoolEventConnection = builder.connectionObject(
  { type: PoolEvent, name: 'PoolEventConnection', description: 'A page of pool events.' },
  { name: 'PoolEventEdge', description: 'A pool event in a page.' },
);

builder.prismaObjectFields('Pool', (t) => ({
  events: t.relatedConnection(
    'events',
    {
      cursor: 'seq',
      description: 'What happened to it, the newest first.',
      complexity: pageCost,
      query: { orderBy: { seq: 'desc' } },
    },
    PoolEventConnection,
  ),
}));

/** The number of the event that a cursor stands for. Cursors of the list and of the stream are the same. */
function seqOf(cursor: string): string {
  try {
    const parsed: unknown = parsePrismaCursor(cursor);
    const seq: unknown = Array.isArray(parsed) ? parsed[0] : parsed;
    if (typeof seq === 'bigint' && seq >= 0n && seq < 1n << 63n) return String(seq);
  } catch {
    // Not one of ours; said below.
  }
  throw new RefusalError(invalid('after', 'is not the cursor of a pool event'));
}

builder.subscriptionField('poolEvents', (t) =>
  t.field({
    type: PoolEvent,
    description: 'What happens to pools and replicas, as it happens.',
    args: {
      pool: t.arg.string({ description: 'Only events of the pool of that name.' }),
      after: t.arg.string({ description: 'Cursor of the last event that was seen; left out: only what is to come.' }),
    },
    subscribe: async (_root, { pool, after }, { services }) => {
      const reader = await services.poolEvents.open(pool ?? null, after == null ? null : seqOf(after));
      return new ReaderSource(reader);
    },
    resolve: ({ seq, detail, ...event }) => ({ ...event, seq: BigInt(seq), detail: detail as never }),
  }),
);
