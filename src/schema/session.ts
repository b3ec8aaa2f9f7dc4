/** Sessions: short-lived groups of tasks that may share a cache. */
import { builder } from './builder.js';
import { asData, NotFound, Unavailable } from './refusal.js';
import { findReplica } from './shared.js';

export const Session = builder.prismaNode('Session', {
  id: { field: 'id' },
  nullable: true,
  // An expired session is one that does not exist, however it is asked for.
  findUnique: (id, context) => ({ id, expiresAt: { gt: new Date(context.nowMs()) } }),
  description: 'A group of tasks that follow each other; made and prolonged by its tasks.',
  fields: (t) => ({
    sessionId: t.expose('id', { type: 'UUID', description: 'The id that its tasks name.' }),
    turns: t.exposeInt('turns', { description: 'How many tasks it has had.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When its first task was admitted.' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', description: 'When it ends unless another task comes.' }),
    kvWarmth: t.boolean({
      description: 'Whether the engine process that ran its last task still serves, so that its cache may be reused.',
      resolve: (session, _args, { services }) => services.sessions.isWarm(session.id),
    }),
    kvBytes: t.field({
      type: 'BigInt',
      description:
        'What its last task left in the KV cache there, bytes, by the shape of the model; 0: nothing, or not known here.',
      resolve: async (session, _args, { services }) => BigInt(await services.sessions.kvBytes(session.id)),
    }),
    lastReplica: t.prismaField({
      type: 'Replica',
      nullable: true,
      description: 'Where its last task ran, and its next one goes when it can; null when it has been too long.',
      select: { lastReplicaId: true, kvUntil: true },
      resolve: (query, { lastReplicaId, kvUntil }, _args, { prisma, nowMs }) =>
        findReplica(prisma, { ...query }, kvUntil !== null && kvUntil.getTime() > nowMs() ? lastReplicaId : null),
    }),
    ttlMsRemaining: t.int({
      description: 'Time left until then, ms.',
      resolve: (session, _args, context) => Math.max(0, session.expiresAt.getTime() - context.nowMs()),
    }),
  }),
});

builder.queryField('session', (t) =>
  t.prismaField({
    type: Session,
    nullable: true,
    description: 'The session of that id; null when there is none, or it has expired.',
    args: { sessionId: t.arg({ type: 'UUID', required: true, description: 'The id that its tasks name.' }) },
    resolve: (query, _root, { sessionId }, { prisma, nowMs }) =>
      prisma.session.findUnique({ ...query, where: { id: sessionId, expiresAt: { gt: new Date(nowMs()) } } }),
  }),
);

const DeleteSessionInput = builder.inputType('DeleteSessionInput', {
  description: 'Which session to delete.',
  fields: (t) => ({
    sessionId: t.field({ type: 'UUID', required: true, description: 'The id that its tasks name.' }),
  }),
});

const SessionDeleted = builder.objectRef<{ readonly sessionId: string }>('SessionDeleted').implement({
  description: 'The session is gone; its tasks are not.',
  fields: (t) => ({
    sessionId: t.expose('sessionId', { type: 'UUID', description: 'The session that was deleted.' }),
  }),
});

const DeleteSessionResult = builder.errorUnion('DeleteSessionResult', {
  description: 'The session that was deleted, or why none was.',
  types: [SessionDeleted, NotFound, Unavailable],
  resolveType: () => 'SessionDeleted',
});

builder.mutationField('deleteSession', (t) =>
  t.field({
    type: DeleteSessionResult,
    description: 'Ends a session; nothing of it can be reused after.',
    args: { input: t.arg({ type: DeleteSessionInput, required: true, description: 'Which session.' }) },
    resolve: async (_root, { input }, { services }) => {
      await asData(services.sessions.delete(input.sessionId));
      return { sessionId: input.sessionId };
    },
  }),
);
