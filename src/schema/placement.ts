/** Where a task goes, and why. */
import {
  type BrokenRule,
  type CandidateVerdict,
  type PlacementExplanation as Explanation,
  PLACEMENT_RULES,
  type PlacementRule as Rule,
} from '../core/placement.js';
import { builder } from './builder.js';

const PlacementRule = builder.enumType('PlacementRule', {
  description: 'What a pool must keep to be able to take a task.',
  values: {
    PIN: { description: 'Is the pinned pool, where one is.' },
    ENGINE: { description: 'Runs the engine that is asked for.' },
    MODEL: { description: 'Serves the model that is asked for.' },
    WORKLOAD: { description: 'Takes tasks of that kind, as its engine was started.' },
    CONTEXT: { description: 'Offers the context that is asked for.' },
    DEVICE_MASK: { description: 'Has the device mask that is required, where one is.' },
    AVOIDED: { description: 'Is not avoided.' },
    FALLBACK: { description: 'Is preferred, where fallback is off.' },
    DRAINING: { description: 'Takes new work.' },
    UNREADY: { description: 'Has a replica that is up, or comes up by itself.' },
    DEADLINE: { description: 'Is not expected to start the task after its deadline.' },
  } satisfies Record<Rule, { description: string }>,
});

interface VerdictShape {
  readonly rule: Rule;
  readonly message: string | null;
}

const RuleVerdict = builder.objectRef<VerdictShape>('RuleVerdict').implement({
  description: 'Whether a pool keeps a rule.',
  fields: (t) => ({
    rule: t.expose('rule', { type: PlacementRule, description: 'The rule.' }),
    passed: t.boolean({ description: 'Whether the pool keeps it.', resolve: ({ message }) => message === null }),
    message: t.exposeString('message', { nullable: true, description: 'Why not, in words; null when it does.' }),
  }),
});

function verdicts(broken: readonly BrokenRule[]): VerdictShape[] {
  const messages = new Map(broken.map(({ rule, message }) => [rule, message]));
  return PLACEMENT_RULES.map((rule) => ({ rule, message: messages.get(rule) ?? null }));
}

const PlacementScore = builder.objectRef<CandidateVerdict>('PlacementScore').implement({
  description: 'What is compared between feasible pools.',
  fields: (t) => ({
    ready: t.exposeBoolean('ready', { description: 'Whether a replica of it was ready.' }),
    preferred: t.exposeBoolean('preferred', { description: 'Whether the request preferred it.' }),
    session: t.exposeBoolean('sessionHere', {
      description: 'Whether it holds the replica that ran the last task of the session, ready to serve.',
    }),
    predictedStartMs: t.int({
      nullable: true,
      description: 'When the task was expected to start there, ms from then; null when too little was measured.',
      resolve: ({ forecast }) => forecast.startMs,
    }),
    predictedEndMs: t.float({
      nullable: true,
      description: 'When it was expected to end there if it uses all tokens it may, ms; null as above.',
      resolve: ({ forecast }) => forecast.endMs,
    }),
    slotsFree: t.exposeInt('slotsFree', { description: 'How many slots were free.' }),
    queueDepth: t.exposeInt('queueDepth', { description: 'How many tasks waited.' }),
    vramFreeBytes: t.field({
      type: 'BigInt',
      description: 'Free VRAM of the replica with most of it.',
      resolve: ({ vramFreeBytes }) => BigInt(Math.round(vramFreeBytes)),
    }),
  }),
});

const PlacementCandidate = builder.objectRef<CandidateVerdict>('PlacementCandidate').implement({
  description: 'A pool that was looked at, and the verdict on it.',
  fields: (t) => ({
    pool: t.exposeString('poolId', { description: 'Name of the pool.' }),
    refusedBecause: t.exposeString('refusedBecause', {
      nullable: true,
      description: 'The first rule that ruled it out, in words; null when the task could go there.',
    }),
    rank: t.exposeInt('rank', {
      nullable: true,
      description: 'Place among the feasible pools, from 1; null when it was not one.',
    }),
    rules: t.field({
      type: [RuleVerdict],
      description: 'The verdict of every rule.',
      complexity: { field: 1, multiplier: PLACEMENT_RULES.length },
      resolve: ({ broken }) => verdicts(broken),
    }),
    score: t.field({
      type: PlacementScore,
      description: 'What was compared.',
      resolve: (candidate) => candidate,
    }),
    preferred: t.exposeBoolean('preferred', { description: 'Whether the request preferred it.' }),
    ready: t.exposeBoolean('ready', { description: 'Whether it was ready.' }),
    slotsFree: t.exposeInt('slotsFree', { description: 'How many slots were free.' }),
    queueDepth: t.exposeInt('queueDepth', { description: 'How many tasks waited.' }),
  }),
});

export const PlacementExplanation = builder.objectRef<Explanation>('PlacementExplanation').implement({
  description: 'Which pool a task goes to, and why not to another.',
  fields: (t) => ({
    candidates: t.field({
      type: [PlacementCandidate],
      description: 'Every pool that was looked at.',
      complexity: { field: 1, multiplier: 5 },
      resolve: (explanation) => explanation.candidates,
    }),
    chosen: t.exposeString('chosen', {
      nullable: true,
      description: 'Name of the chosen pool; null when none was feasible.',
    }),
    rule: t.exposeString('rule', { description: 'What decided between feasible pools, in order.' }),
  }),
});

/** Of a verdict that was stored before these were kept. */
const UNKNOWN = {
  broken: [],
  rank: null,
  sessionHere: false,
  forecast: { earliestMs: null, startMs: null, endMs: null },
  vramFreeBytes: 0,
};

/** As admission stored it with the task. */
export function storedExplanation(value: unknown): Explanation | null {
  if (typeof value !== 'object' || value === null || !('candidates' in value)) return null;
  const stored = value as Explanation;
  return { ...stored, candidates: stored.candidates.map((candidate) => ({ ...UNKNOWN, ...candidate })) };
}
