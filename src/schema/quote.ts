/** When a waiting task will start, as far as it can be told, and how good such quotes have been. */

import type { Reason as ReasonShape } from '../core/pool.js';
import {
  gradeQuote,
  type StartQuote as Quote,
  type QuoteBasis,
  type QuoteGap,
  type QuoteOutcome,
  type QuoteVerdict,
  quoteStart,
} from '../core/prediction.js';
import type { StartBasis } from '../core/queue.js';
import type { Calibration } from '../services/quotes.js';
import { builder } from './builder.js';
import { QueueLane } from './pool.js';
import { Reason } from './reason.js';
import { calibrations } from './shared.js';
import { TaskAccepted } from './submitTask.js';

const StartQuoteBasis = builder.enumType('StartQuoteBasis', {
  description: 'What a quote rests on.',
  values: {
    SLOT_FREE: { value: 'slot_free', description: 'A slot was free: nothing had to be predicted.' },
    SERVICE_TIMES: { value: 'service_times', description: 'How long tasks of this pool have held their slots lately.' },
  } satisfies Record<string, { value: QuoteBasis; description: string }>,
});

const StartQuote = builder.objectRef<Quote>('StartQuote').implement({
  description: 'When a task is expected to get a slot, counted from its admission.',
  fields: (t) => ({
    p50Ms: t.exposeInt('p50Ms', { description: 'As likely earlier as later, ms.' }),
    p90Ms: t.exposeInt('p90Ms', { description: 'Nine times in ten not later, ms.' }),
    sampleCount: t.exposeInt('sampleCount', { description: 'Measured services that it rests on.' }),
    basis: t.expose('basis', { type: StartQuoteBasis, description: 'What it rests on.' }),
  }),
});

const GAPS: Readonly<Record<QuoteGap, ReasonShape>> = {
  THIN_DATA: {
    code: 'THIN_DATA',
    message: 'Fewer than five tasks of the kinds that are ahead have run; a quote would be a guess.',
    fix: null,
  },
  POOL_UNREADY: {
    code: 'POOL_UNREADY',
    message: 'No replica of the pool is ready; nobody can tell when one will be.',
    fix: 'See notReadyBecause of the pool.',
  },
};

function withheld({ withheld: gap }: QuoteOutcome): ReasonShape | null {
  return gap === null ? null : GAPS[gap];
}

const QUOTE = 'The start it was quoted when it was admitted; null when none could be given, see quoteWithheldBecause.';
const WITHHELD = 'Why there is no quote; null when there is one.';
/** What admission kept of the pool at that moment; written by it alone, in this shape. */
const ADMITTED = { queuePosition: true, startBasis: true } as const;

function quoteOf(task: { readonly queuePosition: number; readonly startBasis: unknown }): QuoteOutcome {
  return quoteStart(task.queuePosition, task.startBasis as StartBasis);
}

const StartQuoteVerdict = builder.enumType('StartQuoteVerdict', {
  description: 'How a quote did; a start within 50 ms of it counts as on time.',
  values: {
    WITHIN_P50: { value: 'within_p50', description: 'Not later than the median that was quoted.' },
    WITHIN_P90: { value: 'within_p90', description: 'Later than that, and not later than its p90.' },
    OVER_P90: { value: 'over_p90', description: 'Later than its p90.' },
  } satisfies Record<string, { value: QuoteVerdict; description: string }>,
});

const QuoteGrade = builder.prismaObject('QuoteGrade', {
  description: 'A quote and the wait that came.',
  select: { p50Ms: true, p90Ms: true, actualMs: true },
  fields: (t) => ({
    actualMs: t.exposeInt('actualMs', { description: 'From admission to the first slot, ms.' }),
    errorMs: t.int({
      description: 'Later than the quoted median by so much, ms; negative: earlier.',
      resolve: ({ actualMs, p50Ms }) => actualMs - p50Ms,
    }),
    verdict: t.field({
      type: StartQuoteVerdict,
      description: 'The same in a word.',
      resolve: (grade) => gradeQuote(grade, grade.actualMs),
    }),
  }),
});

builder.prismaObjectFields('Task', (t) => ({
  quote: t.field({
    type: StartQuote,
    nullable: true,
    description: QUOTE,
    select: ADMITTED,
    resolve: (task) => quoteOf(task).quote,
  }),
  quoteWithheldBecause: t.field({
    type: Reason,
    nullable: true,
    description: WITHHELD,
    select: ADMITTED,
    resolve: (task) => withheld(quoteOf(task)),
  }),
  quoteGrade: t.relation('quoteGrade', {
    type: QuoteGrade,
    nullable: true,
    description: 'How its quote did; null until soon after it started, or when it had none.',
  }),
}));

builder.objectFields(TaskAccepted, (t) => ({
  quote: t.field({ type: StartQuote, nullable: true, description: QUOTE, resolve: ({ quote }) => quote.quote }),
  quoteWithheldBecause: t.field({
    type: Reason,
    nullable: true,
    description: WITHHELD,
    resolve: ({ quote }) => withheld(quote),
  }),
}));

type Calibrated = Omit<Calibration, 'poolId' | 'priority'>;

const QuoteCalibration = builder.objectRef<Calibrated>('QuoteCalibration').implement({
  description: 'How the last quotes that predicted a wait did, at most 500 of each priority.',
  fields: (t) => ({
    samples: t.exposeInt('samples', { description: 'How many quotes were graded.' }),
    p50Coverage: t.float({
      nullable: true,
      description: 'Share of starts not later than the quoted median; near 0.5 when it is right. null without samples.',
      resolve: ({ samples, withinP50 }) => share(withinP50, samples),
    }),
    p90Coverage: t.float({
      nullable: true,
      description: 'Share of starts not later than the quoted p90; near 0.9 when it is right. null without samples.',
      resolve: ({ samples, withinP90 }) => share(withinP90, samples),
    }),
    meanAbsoluteErrorMs: t.float({
      nullable: true,
      description: 'Mean distance of the start from the quoted median, ms; null without samples.',
      resolve: ({ samples, absoluteErrorMs }) => share(absoluteErrorMs, samples),
    }),
  }),
});

function share(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole;
}

function together(lanes: readonly Calibrated[]): Calibrated {
  const sum = (of: (lane: Calibrated) => number) => lanes.reduce((total, lane) => total + of(lane), 0);
  return {
    samples: sum((lane) => lane.samples),
    withinP50: sum((lane) => lane.withinP50),
    withinP90: sum((lane) => lane.withinP90),
    absoluteErrorMs: sum((lane) => lane.absoluteErrorMs),
  };
}

builder.prismaObjectFields('Pool', (t) => ({
  quoteCalibration: t.field({
    type: QuoteCalibration,
    description: 'How good the start quotes of this pool have been.',
    complexity: 5,
    resolve: async (pool, _args, context) =>
      together((await calibrations(context)).filter((lane) => lane.poolId === pool.id)),
  }),
}));

builder.objectFields(QueueLane, (t) => ({
  quote: t.field({
    type: StartQuote,
    nullable: true,
    description: 'For a task of this priority if it were sent now; null when none can be given.',
    resolve: ({ poolId, priority }, _args, { services }) => services.admission.quote(poolId, priority).quote,
  }),
  quoteWithheldBecause: t.field({
    type: Reason,
    nullable: true,
    description: WITHHELD,
    resolve: ({ poolId, priority }, _args, { services }) => withheld(services.admission.quote(poolId, priority)),
  }),
  calibration: t.field({
    type: QuoteCalibration,
    description: 'How good the quotes of this lane have been.',
    complexity: 5,
    resolve: async ({ poolId, priority }, _args, context) =>
      together((await calibrations(context)).filter((lane) => lane.poolId === poolId && lane.priority === priority)),
  }),
}));
