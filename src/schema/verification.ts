/** Checks whether a task, run again, says the same. */
import type { Findings } from '../core/comparison.js';
import { builder, pageCost } from './builder.js';
import { Reason } from './reason.js';
import { asData, Backpressure, Conflict, NotFound, Unavailable } from './refusal.js';

const Verdict = builder.enumType('VerificationVerdict', {
  description: 'What came of running a task again.',
  values: {
    IDENTICAL: { description: 'It said the same, to the byte; a stopped task is compared as far as it came.' },
    DIVERGED: { description: 'It said something else.' },
    NOT_COMPARABLE: { description: 'It could not be run again, or not to its end; `reasons` says why.' },
  } satisfies Record<Findings['verdict'], { description: string }>,
});

type Stored = Omit<Findings, 'verdict'>;

/** Written by the service alone, in this shape; null until there is a verdict. */
function storedFindings(value: unknown): Stored | null {
  return value as Stored | null;
}

const TaskVerification = builder.prismaNode('TaskVerification', {
  id: { field: 'id' },
  nullable: true,
  description:
    'A task was run again to see whether it says the same. Its second run is a task of its own: read this again when that has ended.',
  fields: (t) => ({
    task: t.relation('task', { description: 'The task that was checked.' }),
    rerun: t.relation('rerun', { nullable: true, description: 'Its second run; null when there could be none.' }),
    verdict: t.expose('verdict', {
      type: Verdict,
      nullable: true,
      description: 'Null until the second run has ended and was compared, a moment later.',
    }),
    firstDivergentIndex: t.int({
      nullable: true,
      description:
        'Index of the first token of the task that was not repeated; its number of tokens when the second run only went on. Null unless they diverged.',
      resolve: ({ findings }) => storedFindings(findings)?.firstDivergentIndex ?? null,
    }),
    expected: t.string({
      nullable: true,
      description: 'That token, at most 200 characters; null when the task had ended there.',
      resolve: ({ findings }) => storedFindings(findings)?.expected ?? null,
    }),
    got: t.string({
      nullable: true,
      description: 'What the second run said in its place; null when it had ended there.',
      resolve: ({ findings }) => storedFindings(findings)?.got ?? null,
    }),
    reasons: t.field({
      type: [Reason],
      description: 'What differed between the runs besides their text, or why they cannot be compared.',
      complexity: { field: 1, multiplier: 5 },
      resolve: ({ findings }) => storedFindings(findings)?.reasons ?? [],
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was asked for.' }),
    settledAt: t.expose('settledAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it got its verdict; null until then.',
    }),
  }),
});

const TaskVerificationConnection = builder.connectionObject(
  { type: TaskVerification, name: 'TaskVerificationConnection', description: 'A page of verifications.' },
  { name: 'TaskVerificationEdge', description: 'A verification in a page.' },
);

builder.prismaObjectFields('Task', (t) => ({
  verifications: t.relatedConnection(
    'verifications',
    {
      cursor: 'id',
      description: 'When it was run again and compared, the newest first.',
      complexity: pageCost,
      query: { orderBy: [{ createdAt: 'desc' }, { id: 'desc' }] },
    },
    TaskVerificationConnection,
  ),
  verificationOf: t.relation('verificationOf', {
    nullable: true,
    description: 'The check that it was run for; null when somebody wanted its text.',
  }),
}));

const VerificationBegun = builder.objectRef<{ readonly verificationId: string }>('VerificationBegun').implement({
  description: 'The check is durable; it goes on by itself.',
  fields: (t) => ({
    verification: t.prismaField({
      type: 'TaskVerification',
      description: 'Where to look for the verdict.',
      resolve: (query, { verificationId }, _args, { prisma }) =>
        prisma.taskVerification.findUniqueOrThrow({ ...query, where: { id: verificationId } }),
    }),
  }),
});

const VerifyTaskResult = builder.errorUnion('VerifyTaskResult', {
  description: 'The check that was begun, or why none was.',
  types: [VerificationBegun, NotFound, Conflict, Backpressure, Unavailable],
  resolveType: () => 'VerificationBegun',
});

const VerifyTaskInput = builder.inputType('VerifyTaskInput', {
  description: 'Which task to check.',
  fields: (t) => ({ taskId: t.field({ type: 'UUID', required: true, description: 'The id its caller gave it.' }) }),
});

builder.mutationField('verifyTask', (t) =>
  t.field({
    type: VerifyTaskResult,
    description:
      'Runs an ended task again, in the batch lane, with the same seed and parameters, and compares what both say.',
    args: { input: t.arg({ type: VerifyTaskInput, required: true, description: 'Which task.' }) },
    resolve: async (_root, { input }, { services, correlationId, identity }) => ({
      verificationId: await asData(services.verification.verify(input.taskId, { correlationId, identity })),
    }),
  }),
);
