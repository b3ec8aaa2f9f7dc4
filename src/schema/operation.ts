/** Operations on pools: what was asked for, how far it is, and how it ended. */
import type { OperationStep as StepShape } from '../core/operation.js';
import { DEFAULT_DRAIN_DEADLINE_MS } from '../services/pools.js';
import { builder } from './builder.js';
import { OperationKind, OperationState } from './enums.js';
import { Reason, storedReason } from './reason.js';
import { asData, Conflict, InvalidParams, NotFound, Unavailable } from './refusal.js';
import { ReaderSource } from './source.js';

const StepState = builder.enumType('OperationStepState', {
  description: 'Where a step of an operation stands; the last three are final.',
  values: {
    PENDING: { description: 'Planned, not begun.' },
    RUNNING: { description: 'Under way.' },
    SUCCEEDED: { description: 'Done.' },
    FAILED: { description: 'Not done; `detail` says why.' },
    SKIPPED: { description: 'Not needed, or not reached.' },
  } satisfies Record<StepShape['state'], { description: string }>,
});

function timeOf(ms: number | null): Date | null {
  return ms === null ? null : new Date(ms);
}

const OperationStep = builder.objectRef<StepShape>('OperationStep').implement({
  description: 'One step of an operation.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What is done in it, e.g. wait_for_running_tasks.' }),
    state: t.expose('state', { type: StepState, description: 'Where it stands.' }),
    startedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When it began; null when it has not.',
      resolve: (step) => timeOf(step.startedAtMs),
    }),
    endedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When it ended; null before that, and when it was skipped.',
      resolve: (step) => timeOf(step.endedAtMs),
    }),
    detail: t.exposeString('detail', { nullable: true, description: 'What came of it, in words.' }),
  }),
});

const Operation = builder.prismaNode('Operation', {
  id: { field: 'id' },
  nullable: true,
  description: 'Work on a pool that takes a while; one at a time per pool.',
  fields: (t) => ({
    kind: t.expose('kind', { type: OperationKind, description: 'What it does.' }),
    pool: t.relation('pool', { description: 'The pool it works on.' }),
    state: t.expose('state', { type: OperationState, description: 'Where it stands.' }),
    progress: t.exposeFloat('progress', { description: 'How far it is, 0 to 1.' }),
    steps: t.field({
      type: [OperationStep],
      description: 'All that it does, in order, planned at its start.',
      complexity: { field: 1, multiplier: 10 },
      // Written by the service alone, in this shape.
      resolve: (operation) => (Array.isArray(operation.steps) ? (operation.steps as unknown as StepShape[]) : []),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was asked for.' }),
    startedAt: t.expose('startedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it began; null while it is PENDING.',
    }),
    endedAt: t.expose('endedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it ended; null while it runs.',
    }),
    outcome: t.exposeString('outcome', { nullable: true, description: 'How it ended, in words; null while it runs.' }),
    error: t.field({
      type: Reason,
      nullable: true,
      description: 'Why it did not do what was asked.',
      resolve: (operation) => storedReason(operation.error),
    }),
  }),
});

builder.prismaObjectFields('Pool', (t) => ({
  operation: t.field({
    type: Operation,
    nullable: true,
    description: 'The operation in progress, if there is one.',
    complexity: 2,
    select: (_args, _context, nested) => ({
      operations: nested({ where: { state: { in: ['PENDING', 'RUNNING'] } }, orderBy: { createdAt: 'desc' }, take: 1 }),
    }),
    resolve: (pool) => pool.operations[0] ?? null,
  }),
}));

builder.queryField('operation', (t) =>
  t.prismaField({
    type: 'Operation',
    nullable: true,
    description: 'The operation of that id; null when there is none.',
    args: {
      id: t.arg.globalID({ required: true, for: Operation, description: 'As the mutation that began it gave it.' }),
    },
    resolve: (query, _root, { id }, { prisma }) => prisma.operation.findUnique({ ...query, where: { id: id.id } }),
  }),
);

builder.subscriptionField('operation', (t) =>
  t.field({
    type: Operation,
    description: 'An operation: as it stands, then after every change; ends after its final state.',
    args: {
      id: t.arg.globalID({ required: true, for: Operation, description: 'As the mutation that began it gave it.' }),
    },
    subscribe: async (_root, { id }, { services }) => new ReaderSource(await services.pools.followOperation(id.id)),
    // The JSON columns are written by the service alone, in the shapes that the fields read.
    resolve: ({ steps, input, error, ...operation }) => ({
      ...operation,
      steps: steps as never,
      input: input as never,
      error: error as never,
    }),
  }),
);

const OperationAccepted = builder.objectRef<{ readonly operationId: string }>('OperationAccepted').implement({
  description: 'The operation has begun and goes on by itself.',
  fields: (t) => ({
    operation: t.prismaField({
      type: 'Operation',
      description: 'Where to follow it.',
      resolve: (query, accepted, _args, { prisma }) =>
        prisma.operation.findUniqueOrThrow({ ...query, where: { id: accepted.operationId } }),
    }),
  }),
});

async function begun(id: Promise<string>): Promise<{ operationId: string }> {
  return { operationId: await asData(id) };
}

const OperationResult = builder.errorUnion('OperationResult', {
  description: 'The operation that was begun, or why none was.',
  types: [OperationAccepted, InvalidParams, NotFound, Conflict, Unavailable],
  resolveType: () => 'OperationAccepted',
});

const poolName = { required: true, description: 'Name of the pool.' } as const;

const DrainPoolInput = builder.inputType('DrainPoolInput', {
  description: 'Which pool to drain, and how patiently.',
  fields: (t) => ({
    pool: t.string(poolName),
    deadlineMs: t.int({
      required: true,
      defaultValue: DEFAULT_DRAIN_DEADLINE_MS,
      description: 'After this running tasks are stopped, and run again where that is honest, ms.',
    }),
  }),
});

const ResumePoolInput = builder.inputType('ResumePoolInput', {
  description: 'Which pool to resume.',
  fields: (t) => ({ pool: t.string(poolName) }),
});

const ReloadPoolInput = builder.inputType('ReloadPoolInput', {
  description: 'Which pool to give which model.',
  fields: (t) => ({
    pool: t.string(poolName),
    newModelRef: t.string({ required: true, description: 'The model to serve from then on.' }),
    drainDeadlineMs: t.int({
      required: true,
      defaultValue: DEFAULT_DRAIN_DEADLINE_MS,
      description: 'Tasks of the old model that run longer than this make it roll back, ms; they go on.',
    }),
  }),
});

const RestartReplicaInput = builder.inputType('RestartReplicaInput', {
  description: 'Which replica to restart.',
  fields: (t) => ({ replica: t.string({ required: true, description: 'Name of the replica.' }) }),
});

builder.mutationFields((t) => ({
  drainPool: t.field({
    type: OperationResult,
    description: 'Stops giving a pool work; it stays drained until it is resumed or reloaded.',
    args: { input: t.arg({ type: DrainPoolInput, required: true, description: 'Which pool, and how patiently.' }) },
    resolve: (_root, { input }, { services, correlationId }) =>
      begun(services.pools.drain(input.pool, input.deadlineMs, correlationId)),
  }),
  resumePool: t.field({
    type: OperationResult,
    description: 'Gives a pool work again, and its quarantined replicas another chance.',
    args: { input: t.arg({ type: ResumePoolInput, required: true, description: 'Which pool.' }) },
    resolve: (_root, { input }, { services }) => begun(services.pools.resume(input.pool)),
  }),
  restartReplica: t.field({
    type: OperationResult,
    description: 'Ends the engine of a replica and starts it anew; its tasks run again where that is honest.',
    args: { input: t.arg({ type: RestartReplicaInput, required: true, description: 'Which replica.' }) },
    resolve: (_root, { input }, { services }) => begun(services.pools.restartReplica(input.replica)),
  }),
  reloadPool: t.field({
    type: OperationResult,
    description:
      'Gives a pool another model: beside the engines that serve where there is room, else in their place. Whatever fails, the old model serves on.',
    args: { input: t.arg({ type: ReloadPoolInput, required: true, description: 'Which pool, and which model.' }) },
    resolve: (_root, { input }, { services, correlationId }) =>
      begun(services.pools.reload(input.pool, input.newModelRef, input.drainDeadlineMs, correlationId)),
  }),
}));
