/** Tasks: what was asked for, where it stands, and what came of it. */
import { notReadyBecause, type Reason as ReasonShape } from '../core/pool.js';
import { predictStartMs } from '../core/prediction.js';
import type { StartBasis } from '../core/queue.js';
import { builder, pageCost, RESULT_COST } from './builder.js';
import { Determinism, Engine, Priority, TaskStatus, Workload } from './enums.js';
import { PlacementExplanation, storedExplanation } from './placement.js';
import { POOL_VIEW, replicaViews } from './pool.js';
import { Reason } from './reason.js';
import { asData, NotFound, Unavailable } from './refusal.js';
import { storedFailure, TaskError } from './taskError.js';

interface CancellationShape {
  readonly requestedAt: Date;
  readonly slotFreeAt: Date | null;
}

const Cancellation = builder.objectRef<CancellationShape>('Cancellation').implement({
  description: 'The cancel of a task, and whether its engine has let go.',
  fields: (t) => ({
    requestedAt: t.expose('requestedAt', { type: 'DateTime', description: 'When it was first asked for.' }),
    slotFreeAt: t.expose('slotFreeAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the slot was seen to be free; null while nobody has seen it.',
    }),
  }),
});

function ahead(count: number): ReasonShape {
  if (count === 0) return { code: 'SLOTS_BUSY', message: 'It is next; every slot is taken.', fix: null };
  return { code: 'QUEUE_AHEAD', message: `${count} tasks of the same or higher priority are served first.`, fix: null };
}

const Task = builder.prismaNode('Task', {
  id: { field: 'id' },
  nullable: true,
  description: 'One request to an engine, from its admission to its end.',
  select: { id: true, status: true },
  fields: (t) => ({
    taskId: t.expose('id', { type: 'UUID', description: 'The id its caller gave it.' }),
    sessionId: t.expose('sessionId', { type: 'UUID', description: 'The session it belongs to.' }),
    status: t.expose('status', { type: TaskStatus, description: 'Where it stands.' }),
    workload: t.expose('workload', { type: Workload, description: 'What it asks for.' }),
    priority: t.expose('priority', { type: Priority, description: 'The lane it waits in.' }),
    engine: t.expose('engine', { type: Engine, description: 'The engine it asked for.' }),
    modelRef: t.exposeString('modelRef', {
      description: 'The model it asked for, by the name that its pool has for it.',
    }),
    ctx: t.exposeInt('ctx', { description: 'The context it asked for, in tokens.' }),
    maxTokens: t.exposeInt('maxTokens', { description: 'The most tokens it may produce.' }),
    prompt: t.exposeString('prompt', {
      nullable: true,
      description: 'What it was given; null where a policy hides it.',
    }),
    inputs: t.exposeStringList('inputs', { description: 'Texts to embed, or documents to rank.' }),
    seed: t.expose('seed', { type: 'BigInt', description: 'The seed its engine samples with; always set.' }),
    determinism: t.expose('determinism', {
      type: Determinism,
      description: 'What is promised when its engine is lost.',
    }),
    samplerProfileVersion: t.exposeString('samplerProfileVersion', {
      nullable: true,
      description: 'The sampler settings it asked for.',
    }),
    correlationId: t.exposeString('correlationId', { description: 'Of the request that submitted it.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was admitted.' }),
    startedAt: t.expose('startedAt', { type: 'DateTime', nullable: true, description: 'When it first got a slot.' }),
    firstTokenAt: t.expose('firstTokenAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When its first token came.',
    }),
    endedAt: t.expose('endedAt', { type: 'DateTime', nullable: true, description: 'When it ended.' }),
    deadlineAt: t.expose('deadlineAt', { type: 'DateTime', description: 'When it is worth nothing any more.' }),
    queuePosition: t.int({
      nullable: true,
      description: 'How many tasks are served before it; null when it does not wait.',
      complexity: 5,
      resolve: (task, _args, { services }) => (task.status === 'QUEUED' ? services.tasks.ahead(task.id) : null),
    }),
    predictedStartMs: t.int({
      description: 'The wait that was predicted at admission, ms.',
      select: { queuePosition: true, startBasis: true },
      // Written by admission alone, in this shape.
      resolve: (task) => predictStartMs(task.queuePosition, task.startBasis as unknown as StartBasis),
    }),
    waitingBecause: t.field({
      type: [Reason],
      description: 'Why it has not started; empty unless it waits.',
      complexity: { field: 5, multiplier: 3 },
      select: { pool: { select: POOL_VIEW } },
      resolve: async (task, _args, { services }) => {
        if (task.status !== 'QUEUED') return [];
        const count = await services.tasks.ahead(task.id);
        return [...notReadyBecause(task.pool, replicaViews(task.pool)), ...(count === null ? [] : [ahead(count)])];
      },
    }),
    pool: t.relation('pool', { description: 'The pool it was placed on.' }),
    replica: t.relation('replica', { nullable: true, description: 'The replica that runs it, or ran it last.' }),
    lease: t.relation('lease', { nullable: true, description: 'The lease it holds, or held last.' }),
    attempts: t.exposeInt('attempts', { description: 'How often it was started.' }),
    tokensIn: t.exposeInt('tokensIn', {
      nullable: true,
      description: 'Tokens of the prompt, as the engine counted them.',
    }),
    tokensOut: t.exposeInt('tokensOut', { description: 'Tokens it has produced.' }),
    decodeTimeMs: t.exposeInt('decodeMs', {
      nullable: true,
      description: 'Time its engine spent on it, ms; null until it ends.',
    }),
    finishReason: t.exposeString('finishReason', { nullable: true, description: 'Why it ended; null until then.' }),
    text: t.string({
      description: 'All text that is durable so far.',
      complexity: 10,
      select: { chunks: true },
      resolve: (task, _args, { services }) => services.tasks.text(task),
    }),
    result: t.field({
      type: 'JSON',
      nullable: true,
      description:
        'What an embedding or rerank task gave: `embeddings`, in the order of its inputs, or `ranking`, documents by index and score, best first; null until it succeeds.',
      complexity: RESULT_COST,
      select: { resultId: true },
      resolve: (task, _args, { services }) => (task.resultId === null ? null : services.tasks.result(task.resultId)),
    }),
    resultId: t.exposeString('resultId', {
      nullable: true,
      description: 'Id of the artifact that holds its result; equal for equal results.',
    }),
    error: t.field({
      type: TaskError,
      nullable: true,
      description: 'What ended it, if an error did.',
      select: { error: true },
      resolve: (task) => storedFailure(task.error),
    }),
    placement: t.field({
      type: PlacementExplanation,
      nullable: true,
      description: 'Why it was placed where it is.',
      select: { placement: true },
      resolve: (task) => storedExplanation(task.placement),
    }),
    cancellation: t.field({
      type: Cancellation,
      nullable: true,
      description: 'Its cancel; null when nobody asked for one.',
      select: { cancelRequestedAt: true, cancelSlotFreeAt: true },
      resolve: ({ cancelRequestedAt, cancelSlotFreeAt }) =>
        cancelRequestedAt === null ? null : { requestedAt: cancelRequestedAt, slotFreeAt: cancelSlotFreeAt },
    }),
    transcript: t.relation('transcript', {
      nullable: true,
      description: 'What it did; null until it ends.',
    }),
  }),
});

const TaskFilter = builder.inputType('TaskFilter', {
  description: 'Every condition that is given must hold.',
  fields: (t) => ({
    status: t.field({ type: [TaskStatus], description: 'In one of these states.' }),
    pool: t.string({ description: 'Placed on the pool of that name.' }),
    priority: t.field({ type: Priority, description: 'In that lane.' }),
    sessionId: t.field({ type: 'UUID', description: 'Of that session.' }),
  }),
});

const TaskConnection = builder.connectionObject(
  { type: Task, name: 'TaskConnection', description: 'A page of tasks.' },
  { name: 'TaskEdge', description: 'A task in a page.' },
);

builder.queryFields((t) => ({
  task: t.prismaField({
    type: 'Task',
    nullable: true,
    description: 'The task of that id; null when there is none.',
    args: { taskId: t.arg({ type: 'UUID', required: true, description: 'The id its caller gave it.' }) },
    resolve: (query, _root, { taskId }, { prisma }) => prisma.task.findUnique({ ...query, where: { id: taskId } }),
  }),
  tasks: t.prismaConnection(
    {
      type: Task,
      cursor: 'id',
      description: 'Tasks, the newest first.',
      complexity: pageCost,
      args: { filter: t.arg({ type: TaskFilter, description: 'Which tasks; all when it is left out.' }) },
      resolve: (query, _root, { filter }, { prisma }) =>
        prisma.task.findMany({
          ...query,
          where: {
            ...(filter?.status == null ? {} : { status: { in: [...filter.status] } }),
            ...(filter?.pool == null ? {} : { poolId: filter.pool }),
            ...(filter?.priority == null ? {} : { priority: filter.priority }),
            ...(filter?.sessionId == null ? {} : { sessionId: filter.sessionId }),
          },
          orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
        }),
    },
    TaskConnection,
  ),
}));

builder.prismaObjectFields('Pool', (t) => ({
  tasks: t.relatedConnection(
    'tasks',
    {
      cursor: 'id',
      description: 'Its tasks, the newest first.',
      args: { status: t.arg({ type: [TaskStatus], description: 'Only tasks in one of these states.' }) },
      complexity: pageCost,
      query: ({ status }) => ({
        where: status == null ? {} : { status: { in: [...status] } },
        orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
      }),
    },
    TaskConnection,
  ),
}));

interface CanceledShape {
  readonly taskId: string;
  readonly canceled: boolean;
  readonly slotFree: boolean;
}

const TaskCanceled = builder.objectRef<CanceledShape>('TaskCanceled').implement({
  description: 'The task has ended; no token follows.',
  fields: (t) => ({
    task: t.prismaField({
      type: 'Task',
      description: 'The task, as it is now.',
      resolve: (query, { taskId }, _args, { prisma }) =>
        prisma.task.findUniqueOrThrow({ ...query, where: { id: taskId } }),
    }),
    canceled: t.exposeBoolean('canceled', {
      description: 'Whether this cancel ended it; false when it had ended already.',
    }),
    slotFree: t.exposeBoolean('slotFree', { description: 'Whether its engine was seen to have let go of the slot.' }),
  }),
});

const CancelTaskResult = builder.errorUnion('CancelTaskResult', {
  description: 'The end of the task, or why it could not be confirmed.',
  types: [TaskCanceled, NotFound, Unavailable],
  resolveType: () => 'TaskCanceled',
});

const CancelTaskInput = builder.inputType('CancelTaskInput', {
  description: 'Which task to cancel.',
  fields: (t) => ({ taskId: t.field({ type: 'UUID', required: true, description: 'The id its caller gave it.' }) }),
});

builder.mutationField('cancelTask', (t) =>
  t.field({
    type: CancelTaskResult,
    description: 'Ends a task wherever it stands; asking twice is the same as asking once.',
    args: { input: t.arg({ type: CancelTaskInput, required: true, description: 'Which task.' }) },
    resolve: async (_root, { input }, { services }) => ({
      taskId: input.taskId,
      ...(await asData(services.cancellation.cancel(input.taskId))),
    }),
  }),
);
