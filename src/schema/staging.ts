/** Stagings: models on their way into the cache of a node. */
import type { StagingState as StateValue } from '../store/generated/prisma/enums.js';
import { builder, pageCost } from './builder.js';
import { Reason, storedReason } from './reason.js';
import { asData, InvalidParams, NotFound, Unavailable } from './refusal.js';

const StagingState = builder.enumType('StagingState', {
  description: 'Where a staging stands; the last three are final.',
  values: {
    RUNNING: { description: 'Under way.' },
    SUCCEEDED: { description: 'The model is there, with its digest.' },
    FAILED: { description: 'It is not; `error` says why.' },
    CANCELED: { description: 'Stopped on request.' },
  } satisfies Record<StateValue, { description: string }>,
});

const ModelStaging = builder.prismaNode('ModelStaging', {
  id: { field: 'id' },
  nullable: true,
  description: 'A model of the catalog that is brought to a node, or was.',
  fields: (t) => ({
    model: t.relation('model', { description: 'Which model.' }),
    nodeId: t.expose('nodeId', { type: 'UUID', description: 'The control plane that does it, for its own host.' }),
    state: t.expose('state', { type: StagingState, description: 'Where it stands.' }),
    receivedBytes: t.expose('receivedBytes', { type: 'BigInt', description: 'How much is there.' }),
    totalBytes: t.expose('totalBytes', {
      type: 'BigInt',
      nullable: true,
      description: 'How much there will be; null while nobody tells.',
    }),
    progress: t.float({
      nullable: true,
      description: 'How far it is, 0 to 1; null while its size is not known.',
      resolve: ({ receivedBytes, totalBytes }) =>
        totalBytes === null || totalBytes === 0n ? null : Math.min(1, Number(receivedBytes) / Number(totalBytes)),
    }),
    detail: t.exposeString('detail', { nullable: true, description: 'What it is doing, or did, in words.' }),
    path: t.exposeString('path', { nullable: true, description: 'Where the model is; null until it is there.' }),
    error: t.field({
      type: Reason,
      nullable: true,
      description: 'Why it is not there.',
      resolve: ({ error }) => storedReason(error),
    }),
    cancelRequestedAt: t.expose('cancelRequestedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When somebody asked to stop it.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was asked for.' }),
    endedAt: t.expose('endedAt', { type: 'DateTime', nullable: true, description: 'When it ended.' }),
  }),
});

const ModelStagingConnection = builder.connectionObject(
  { type: ModelStaging, name: 'ModelStagingConnection', description: 'A page of stagings.' },
  { name: 'ModelStagingEdge', description: 'A staging in a page.' },
);

builder.prismaObjectFields('CatalogModel', (t) => ({
  stagings: t.relatedConnection(
    'stagings',
    {
      cursor: 'id',
      description: 'When it was brought to a node, the newest first.',
      complexity: pageCost,
      query: { orderBy: [{ createdAt: 'desc' }, { id: 'desc' }] },
    },
    ModelStagingConnection,
  ),
}));

const StagingAccepted = builder.objectRef<{ readonly stagingId: string }>('StagingAccepted').implement({
  description: 'The staging goes on by itself.',
  fields: (t) => ({
    staging: t.prismaField({
      type: 'ModelStaging',
      description: 'As it is now.',
      resolve: (query, { stagingId }, _args, { prisma }) =>
        prisma.modelStaging.findUniqueOrThrow({ ...query, where: { id: stagingId } }),
    }),
  }),
});

const StagingResult = builder.errorUnion('StagingResult', {
  description: 'The staging, or why there is none.',
  types: [StagingAccepted, InvalidParams, NotFound, Unavailable],
  resolveType: () => 'StagingAccepted',
});

const StageCatalogModelInput = builder.inputType('StageCatalogModelInput', {
  description: 'Which model to bring here.',
  fields: (t) => ({ modelId: t.string({ required: true, description: 'Its id in the catalog.' }) }),
});

const CancelStagingInput = builder.inputType('CancelStagingInput', {
  description: 'Which staging to stop.',
  fields: (t) => ({
    id: t.globalID({ required: true, for: ModelStaging, description: 'As stageCatalogModel gave it.' }),
  }),
});

builder.mutationFields((t) => ({
  stageCatalogModel: t.field({
    type: StagingResult,
    description:
      'Brings the file of a model to the node that is asked, under its digest; the one under way when there is one.',
    args: { input: t.arg({ type: StageCatalogModelInput, required: true, description: 'Which model.' }) },
    resolve: async (_root, { input }, { services, correlationId }) => {
      const model = await asData(services.catalog.get(input.modelId));
      return { stagingId: await asData(services.staging.stage(model, correlationId)) };
    },
  }),
  cancelStaging: t.field({
    type: StagingResult,
    description: 'Stops a staging; what was downloaded is gone on with the next time.',
    args: { input: t.arg({ type: CancelStagingInput, required: true, description: 'Which staging.' }) },
    resolve: async (_root, { input }, { services }) => {
      await asData(services.staging.cancel(input.id.id));
      return { stagingId: input.id.id };
    },
  }),
}));
