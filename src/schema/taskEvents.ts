/** The event stream of a task. */
import { invalid, RefusalError } from '../core/errors.js';
import type {
  EndEvent,
  ErrorEvent,
  MetricsEvent,
  SeamEvent,
  StartedEvent,
  StreamEvent,
  TokensEvent,
} from '../core/frame.js';
import type { PromptCache as PromptCacheShape } from '../core/session.js';
import { builder, RESULT_COST } from './builder.js';
import { findReplica } from './shared.js';
import { ReaderSource } from './source.js';
import { TaskError } from './taskError.js';

const TYPE_OF: Readonly<Record<StreamEvent['kind'], string>> = {
  started: 'TaskStarted',
  tokens: 'TaskTokens',
  metrics: 'TaskMetrics',
  seam: 'TaskSeam',
  end: 'TaskEnded',
  error: 'TaskFailed',
};

const TaskEvent = builder.interfaceRef<StreamEvent>('TaskEvent').implement({
  description: 'Something that happened to a task; the last one is TaskEnded or TaskFailed.',
  resolveType: (event) => TYPE_OF[event.kind],
  fields: (t) => ({
    seq: t.exposeInt('seq', { description: 'Its place in the stream, to be given as `after`.' }),
    at: t.field({ type: 'DateTime', description: 'When it happened.', resolve: (event) => new Date(event.atMs) }),
  }),
});

const PromptCache = builder.objectRef<PromptCacheShape>('PromptCache').implement({
  description: "Whether a run may take what its engine's cache has of the prompt.",
  fields: (t) => ({
    used: t.exposeBoolean('used', { description: 'Whether it may.' }),
    because: t.exposeString('because', { description: 'What decided that.' }),
  }),
});

builder.objectRef<StartedEvent>('TaskStarted').implement({
  description: 'The task has a slot; always the first event of a stream.',
  interfaces: [TaskEvent],
  fields: (t) => ({
    queuePosition: t.exposeInt('queuePosition', { description: 'How many tasks were before it when it was admitted.' }),
    predictedStartMs: t.exposeInt('predictedStartMs', { description: 'How long it was expected to wait, ms.' }),
    replica: t.prismaField({
      type: 'Replica',
      nullable: true,
      description: 'Where it runs; null when that is not known any more.',
      // Spread here, so that a replica that is null does not count as a query that was forgotten.
      resolve: (query, { replicaId }, _args, { prisma }) => findReplica(prisma, { ...query }, replicaId),
    }),
    promptCache: t.field({
      type: PromptCache,
      nullable: true,
      description: "Whether the engine's cache may serve a part of its prompt; null: its log is older than this field.",
      resolve: ({ promptCache }) => promptCache ?? null,
    }),
    seed: t.field({ type: 'BigInt', description: 'The seed it runs with.', resolve: (event) => BigInt(event.seed) }),
  }),
});

builder.objectRef<TokensEvent>('TaskTokens').implement({
  description: 'Consecutive tokens: one while the reader keeps up, more when it is behind.',
  interfaces: [TaskEvent],
  fields: (t) => ({
    firstIndex: t.exposeInt('firstIndex', { description: 'Index of the first of them, from 0.' }),
    tokens: t.exposeStringList('tokens', { description: 'Their texts, in order.' }),
  }),
});

export const TaskMetrics = builder.objectRef<MetricsEvent>('TaskMetrics').implement({
  description: 'What is known beside the tokens.',
  interfaces: [TaskEvent],
  fields: (t) => ({
    queueDepth: t.exposeInt('queueDepth', { description: 'How many tasks wait for the same pool.' }),
    kvWarmth: t.exposeBoolean('kvWarmth', {
      description:
        'Whether it runs where its session ran last, on the same engine process, whose cache may still hold a part of the prompt.',
    }),
    onTimeProbability: t.float({
      nullable: true,
      description:
        'Chance of ending before the deadline if it uses all tokens it may, 0 to 1; null: no speed has been measured yet.',
      resolve: (event) => event.onTimeProbability ?? null,
    }),
  }),
});

builder.objectRef<SeamEvent>('TaskSeam').implement({
  description: 'The run moved to another engine; the tokens before it were produced again, compared, and are the same.',
  interfaces: [TaskEvent],
  fields: (t) => ({
    index: t.exposeInt('index', { description: 'Index of the first token that comes from the new engine.' }),
    cause: t.exposeString('cause', { description: 'Why it moved.' }),
    attempt: t.exposeInt('attempt', { description: 'Number of the attempt that goes on.' }),
  }),
});

builder.objectRef<EndEvent>('TaskEnded').implement({
  description: 'The task ended, by itself or by a cancel; nothing follows.',
  interfaces: [TaskEvent],
  fields: (t) => ({
    tokensOut: t.exposeInt('tokensOut', { description: 'How many tokens it produced.' }),
    decodeTimeMs: t.exposeInt('decodeMs', { description: 'Time its engine spent on it, ms.' }),
    canceled: t.exposeBoolean('canceled', { description: 'Whether a cancel ended it.' }),
    finishReason: t.exposeString('finishReason', {
      description: 'Why it ended: stop, length, canceled, or budget: the time its session may spend ran out.',
    }),
    result: t.field({
      type: 'JSON',
      nullable: true,
      description: 'As `Task.result`; null where the task gives tokens, or was canceled.',
      complexity: RESULT_COST,
      resolve: ({ resultId }, _args, { services }) => (resultId === undefined ? null : services.tasks.result(resultId)),
    }),
  }),
});

builder.objectRef<ErrorEvent>('TaskFailed').implement({
  description: 'The task ended by an error; nothing follows.',
  interfaces: [TaskEvent],
  fields: (t) => ({
    error: t.field({ type: TaskError, description: 'What ended it.', resolve: (event) => event.error }),
  }),
});

builder.subscriptionField('taskEvents', (t) =>
  t.field({
    type: TaskEvent,
    description: 'The events of a task, from any point of it; ends after TaskEnded or TaskFailed.',
    args: {
      taskId: t.arg({ type: 'UUID', required: true, description: 'The id its caller gave it.' }),
      after: t.arg.int({ description: '`seq` of the last event that was seen; left out: from the beginning.' }),
    },
    subscribe: async (_root, { taskId, after }, { services }) => {
      if (after != null && after < -1) throw new RefusalError(invalid('after', 'must be the seq of an event'));
      return new ReaderSource(await services.streams.open(taskId, after ?? -1));
    },
    resolve: (event: StreamEvent) => event,
  }),
);
