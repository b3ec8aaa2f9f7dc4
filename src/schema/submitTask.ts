/** Submitting a task: fills what the caller left out, and hands everything else to admission as it is. */
import { randomUUID } from 'node:crypto';
import type { TaskSubmission } from '../core/admission.js';
import { invalid, RefusalError } from '../core/errors.js';
import { AUTO_PLACEMENT, type PlacementOverrides } from '../core/placement.js';
import { textsOf } from '../core/workload.js';
import type { Receipt } from '../services/admission.js';
import { builder } from './builder.js';
import type { GraphQLContext } from './context.js';
import { Determinism, Engine, KvHint, PlacementMode, Priority, Workload } from './enums.js';
import { PlacementExplanation } from './placement.js';
import { asData, Backpressure, Conflict, InvalidParams, Unavailable } from './refusal.js';

const PlacementInput = builder.inputType('PlacementInput', {
  description: 'What the caller wants of the placement.',
  fields: (t) => ({
    mode: t.field({
      type: PlacementMode,
      required: true,
      defaultValue: 'auto',
      description: 'How much of it the caller decides.',
    }),
    pinPoolId: t.string({ description: 'With PIN: name of the pool.' }),
    preferPools: t.stringList({ description: 'With PREFER: names of the pools to try first.' }),
    avoidPools: t.stringList({ description: 'Names of pools that must not take it.' }),
    requireDeviceMask: t.string({ description: 'Only pools with exactly this device mask.' }),
    allowFallback: t.boolean({
      required: true,
      defaultValue: true,
      description: 'With PREFER: whether other pools may take it.',
    }),
  }),
});

const SubmitTaskInput = builder.inputType('SubmitTaskInput', {
  description: 'A task. Naming a pool, a prompt and `maxTokens` is enough; the rest has defaults.',
  fields: (t) => ({
    taskId: t.field({ type: 'UUID', description: 'Makes the submission idempotent; a new one when it is left out.' }),
    sessionId: t.field({
      type: 'UUID',
      description: 'The session to belong to; one of its own, named like the task, when left out.',
    }),
    pool: t.string({ description: 'Name of the pool to run on; short for a placement that pins it.' }),
    modelRef: t.string({ description: "The model; the pool's own when a pool is named, required otherwise." }),
    engine: t.field({ type: Engine, description: 'The engine; that of the pool that serves the model when left out.' }),
    workload: t.field({ type: Workload, required: true, defaultValue: 'completion', description: 'What to do.' }),
    prompt: t.string({
      description: 'The text to go on from, the query to rank for, or the only text to embed; empty when left out.',
    }),
    inputs: t.stringList({
      description:
        'Texts to embed, or documents to rank. A completion without a prompt goes on from them, line by line.',
    }),
    ctx: t.int({ description: 'Tokens of context to reserve; what the pool offers when left out.' }),
    maxTokens: t.int({
      description:
        'The most tokens to produce; with the prompt they must fit the context. Required for a completion; others produce none.',
    }),
    deadlineMs: t.int({
      required: true,
      defaultValue: 600_000,
      description: 'After this the task is worth nothing, ms.',
    }),
    priority: t.field({
      type: Priority,
      required: true,
      defaultValue: 'interactive',
      description: 'The lane to wait in.',
    }),
    seed: t.field({ type: 'BigInt', description: 'Seed of the sampler; made from the task id when left out.' }),
    determinism: t.field({
      type: Determinism,
      required: true,
      defaultValue: 'strict',
      description: 'What is promised when the engine is lost.',
    }),
    samplerProfileVersion: t.string({ description: 'Version of the sampler settings that must be in force.' }),
    cancelOnDisconnect: t.field({
      type: 'DisconnectGrace',
      description:
        'Ends the task when the last of its readers, on whichever node and transport, has been gone for so long. Counts from the first reader on; left out: the task outlives its readers.',
    }),
    kvHint: t.field({ type: KvHint, description: 'What is known of the cache.' }),
    placement: t.field({
      type: PlacementInput,
      description: 'What the caller wants of the placement; not together with `pool`.',
    }),
  }),
});

type Input = typeof SubmitTaskInput.$inferInput;

function placementOf(input: Input): PlacementOverrides {
  const { pool, placement } = input;
  if (pool != null && placement != null) {
    throw new RefusalError(invalid('pool', 'is short for a placement that pins it; give one of the two'));
  }
  if (pool != null) return { ...AUTO_PLACEMENT, mode: 'pin', pinPoolId: pool };
  if (placement == null) return AUTO_PLACEMENT;
  return {
    mode: placement.mode,
    pinPoolId: placement.pinPoolId ?? null,
    preferPools: placement.preferPools ?? [],
    avoidPools: placement.avoidPools ?? [],
    requireDeviceMask: placement.requireDeviceMask ?? null,
    allowFallback: placement.allowFallback,
  };
}

interface Target {
  readonly engine: TaskSubmission['engine'];
  readonly modelRef: string;
  readonly contextLength: number;
}

/** What stands in for a pool that is not there; admission refuses the task for that, and names the input. */
const NO_POOL: Target = { engine: 'llamacpp', modelRef: 'unknown', contextLength: 1 };

/** The pool whose settings fill what the caller left out: the one that is pinned, or the widest that serves the model. */
async function targetOf(
  input: Input,
  pinned: string | null,
  { services, prisma }: Pick<GraphQLContext, 'services' | 'prisma'>,
): Promise<Target> {
  const { modelRef, engine, ctx } = input;
  if (modelRef != null && engine != null && ctx != null) return { modelRef, engine, contextLength: ctx };
  const select = { engine: true, modelRef: true, contextLength: true } as const;
  if (pinned !== null) {
    const here = services.admission.poolNow(pinned);
    return here ?? (await prisma.pool.findUnique({ where: { id: pinned }, select })) ?? NO_POOL;
  }
  if (modelRef == null) throw new RefusalError(invalid('model_ref', 'is required when no pool is named'));
  const served = services.admission.widestServing(modelRef, engine ?? null);
  if (served !== null) return served;
  // Of nodes that are away: their pools are known by what they call the model.
  const where = { modelRef, ...(engine == null ? {} : { engine }) };
  const widest = await prisma.pool.findFirst({ where, select, orderBy: [{ contextLength: 'desc' }, { id: 'asc' }] });
  return widest ?? NO_POOL;
}

async function submissionOf(
  input: Input,
  context: Pick<GraphQLContext, 'services' | 'prisma'>,
): Promise<TaskSubmission> {
  const placement = placementOf(input);
  const target = await targetOf(input, placement.mode === 'pin' ? placement.pinPoolId : null, context);
  const taskId = input.taskId ?? randomUUID();
  return {
    taskId,
    // Not a random one: the same submission, sent again, must be the same to the last field.
    sessionId: input.sessionId ?? taskId,
    workload: input.workload,
    modelRef: input.modelRef ?? target.modelRef,
    engine: input.engine ?? target.engine,
    ctx: input.ctx ?? target.contextLength,
    priority: input.priority,
    seed: input.seed ?? null,
    determinism: input.determinism,
    samplerProfileVersion: input.samplerProfileVersion ?? null,
    ...textsOf(input.workload, { prompt: input.prompt ?? null, inputs: input.inputs ?? null }),
    maxTokens: input.maxTokens ?? 0,
    deadlineMs: input.deadlineMs,
    kvHint: input.kvHint ?? null,
    followsPool: input.pool != null && input.modelRef == null,
    disconnectGraceMs: input.cancelOnDisconnect ?? null,
    placement,
  };
}

export const TaskAccepted = builder.objectRef<Receipt>('TaskAccepted').implement({
  description: 'The task is durable; it will run, or end with a reason.',
  fields: (t) => ({
    taskId: t.expose('taskId', { type: 'UUID', description: 'Its id; costs nothing to read.' }),
    task: t.prismaField({
      type: 'Task',
      description: 'The task, as it is now.',
      resolve: (query, { taskId }, _args, { prisma }) =>
        prisma.task.findUniqueOrThrow({ ...query, where: { id: taskId } }),
    }),
    queuePosition: t.exposeInt('queuePosition', { description: 'How many tasks were before it when it came.' }),
    predictedStartMs: t.exposeInt('predictedStartMs', { description: 'How long it was expected to wait, ms.' }),
    backoffMs: t.exposeInt('backoffMs', { description: 'How long the caller should wait before sending another, ms.' }),
  }),
});

const SubmitTaskResult = builder.errorUnion('SubmitTaskResult', {
  description: 'The receipt of the task, or why it was not taken.',
  types: [TaskAccepted, InvalidParams, Backpressure, Unavailable, Conflict],
  resolveType: () => 'TaskAccepted',
});

builder.mutationField('submitTask', (t) =>
  t.field({
    type: SubmitTaskResult,
    description: 'Admits a task. The same task id with the same body gives the same receipt, however often.',
    args: { input: t.arg({ type: SubmitTaskInput, required: true, description: 'The task.' }) },
    resolve: (_root, { input }, { services, prisma, correlationId, identity }) =>
      asData(
        submissionOf(input, { services, prisma }).then((task) =>
          services.admission.submit(task, { correlationId, identity }),
        ),
      ),
  }),
);

builder.queryField('explainPlacement', (t) =>
  t.field({
    type: PlacementExplanation,
    description: 'Where this task would go now, and why; nothing is written.',
    args: { input: t.arg({ type: SubmitTaskInput, required: true, description: 'The task.' }) },
    resolve: async (_root, { input }, { services, prisma }) =>
      services.admission.explain(await submissionOf(input, { services, prisma })),
  }),
);
