/** What sessions may spend, have spent and have left. */
import {
  type Amounts,
  type Budget,
  type BudgetLeft,
  type BudgetLimits,
  budgetLeft,
  isLimited,
  MICROS,
} from '../core/budget.js';
import { builder } from './builder.js';
import { asData, InvalidParams, Unavailable } from './refusal.js';
import { Session } from './session.js';
import { TaskAccepted } from './submitTask.js';
import { TaskMetrics } from './taskEvents.js';

const BudgetRemaining = builder.objectRef<BudgetLeft>('BudgetRemaining').implement({
  description: 'What another task of a session may still reserve. null: it has no limit.',
  fields: (t) => ({
    tokens: t.field({
      type: 'BigInt',
      nullable: true,
      description: 'Tokens of prompts and answers together.',
      resolve: ({ tokens }) => (tokens === null ? null : BigInt(tokens)),
    }),
    timeMs: t.field({
      type: 'BigInt',
      nullable: true,
      description: 'Time of decoding, ms.',
      resolve: ({ timeMs }) => (timeMs === null ? null : BigInt(timeMs)),
    }),
    cost: t.float({
      nullable: true,
      description: 'Cost, in the unit of the prices.',
      resolve: ({ costMicros }) => (costMicros === null ? null : costMicros / MICROS),
    }),
  }),
});

const BudgetAmounts = builder.objectRef<Amounts>('BudgetAmounts').implement({
  description: 'Tokens, time and cost; what has no limit is not counted.',
  fields: (t) => ({
    tokens: t.field({
      type: 'BigInt',
      description: 'Tokens of prompts and answers together.',
      resolve: ({ tokens }) => BigInt(tokens),
    }),
    timeMs: t.field({
      type: 'BigInt',
      description: 'Time of decoding, ms.',
      resolve: ({ timeMs }) => BigInt(timeMs),
    }),
    cost: t.float({
      description: 'Cost, in the unit of the prices.',
      resolve: ({ costMicros }) => costMicros / MICROS,
    }),
  }),
});

const SessionBudget = builder.objectRef<Budget>('SessionBudget').implement({
  description: 'The budget of a session. What is spent and reserved never exceeds its limits.',
  fields: (t) => ({
    limits: t.expose('limits', { type: BudgetRemaining, description: 'What it may spend in all.' }),
    spent: t.expose('spent', { type: BudgetAmounts, description: 'By tasks that have ended.' }),
    reserved: t.expose('reserved', { type: BudgetAmounts, description: 'For tasks under way: the most they may use.' }),
    remaining: t.field({
      type: BudgetRemaining,
      description: 'What another task may reserve.',
      resolve: (budget) => budgetLeft(budget),
    }),
  }),
});

const COLUMNS = {
  ...{ limitTokens: true, limitTimeMs: true, limitCostMicros: true },
  ...{ spentTokens: true, spentTimeMs: true, spentCostMicros: true },
  ...{ reservedTokens: true, reservedTimeMs: true, reservedCostMicros: true },
} as const;

builder.prismaObjectFields('Session', (t) => ({
  budget: t.field({
    type: SessionBudget,
    nullable: true,
    description: 'What it may spend; null: as much as it likes.',
    select: COLUMNS,
    resolve: (row) => {
      const limits = {
        tokens: whole(row.limitTokens),
        timeMs: whole(row.limitTimeMs),
        costMicros: whole(row.limitCostMicros),
      };
      if (!isLimited(limits)) return null;
      const spent = amounts(row.spentTokens, row.spentTimeMs, row.spentCostMicros);
      return { limits, spent, reserved: amounts(row.reservedTokens, row.reservedTimeMs, row.reservedCostMicros) };
    },
  }),
}));

function whole(value: bigint | null): number | null {
  return value === null ? null : Number(value);
}

function amounts(tokens: bigint, timeMs: bigint, costMicros: bigint): Amounts {
  return { tokens: Number(tokens), timeMs: Number(timeMs), costMicros: Number(costMicros) };
}

builder.objectFields(TaskAccepted, (t) => ({
  budget: t.field({
    type: BudgetRemaining,
    nullable: true,
    description: 'What its session has left for other tasks; null: that has no budget.',
    resolve: ({ budget }) => budget,
  }),
}));

builder.objectFields(TaskMetrics, (t) => ({
  budget: t.field({
    type: BudgetRemaining,
    nullable: true,
    description: 'What its session has left for other tasks; null: that has no budget.',
    resolve: ({ budget }) => budget ?? null,
  }),
}));

const SetSessionBudgetInput = builder.inputType('SetSessionBudgetInput', {
  description: 'What a session may spend in all. What is left out stays as it is; null takes the limit away.',
  fields: (t) => ({
    sessionId: t.field({ type: 'UUID', required: true, description: 'The id that its tasks name.' }),
    tokens: t.field({ type: 'BigInt', description: 'Tokens of prompts and answers together.' }),
    timeMs: t.field({ type: 'BigInt', description: 'Time of decoding, ms; tasks are cut off when it runs out.' }),
    cost: t.float({ description: 'Cost, in the unit of the prices; six digits after the point count.' }),
  }),
});

const SessionBudgetSet = builder.objectRef<{ readonly sessionId: string }>('SessionBudgetSet').implement({
  description: 'The budget is in force.',
  fields: (t) => ({
    session: t.prismaField({
      type: Session,
      description: 'The session, as it is now.',
      resolve: (query, { sessionId }, _args, { prisma }) =>
        prisma.session.findUniqueOrThrow({ ...query, where: { id: sessionId } }),
    }),
  }),
});

const SetSessionBudgetResult = builder.errorUnion('SetSessionBudgetResult', {
  description: 'The budget that was set, or why it was not.',
  types: [SessionBudgetSet, InvalidParams, Unavailable],
  resolveType: () => 'SessionBudgetSet',
});

builder.mutationField('setSessionBudget', (t) =>
  t.field({
    type: SetSessionBudgetResult,
    description:
      'Limits what a session may spend; one that is not there begins. Refused where more is spent and reserved already.',
    args: {
      input: t.arg({ type: SetSessionBudgetInput, required: true, description: 'Which session, and how much.' }),
    },
    resolve: async (_root, { input }, { services }) => {
      const { sessionId, tokens, timeMs, cost } = input;
      const limits: { -readonly [kind in keyof BudgetLimits]?: number | null } = {};
      if (tokens !== undefined) limits.tokens = whole(tokens);
      if (timeMs !== undefined) limits.timeMs = whole(timeMs);
      if (cost !== undefined) limits.costMicros = cost === null ? null : Math.round(cost * MICROS);
      await asData(services.budgets.set(sessionId, limits));
      return { sessionId };
    },
  }),
);
