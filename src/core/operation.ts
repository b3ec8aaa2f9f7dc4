/**
 * The life of an operation on a pool (drain, resume, reload, restart), and of its steps.
 *
 *   PENDING ──begin──► RUNNING ──succeed──► SUCCEEDED
 *      │                  ├──roll_back────► ROLLED_BACK
 *      ├──fail────────────┼──fail─────────► FAILED
 *      └──cancel──────────┴──cancel───────► CANCELED
 *
 * 1. A terminal state is never left. 2. The steps are planned whole at the start and taken in order: beginning one skips
 * those before it that were not needed, and the end closes all. So progress never falls, and is 1 at the end.
 */
export const OPERATION_KINDS = ['DRAIN', 'RESUME', 'RELOAD', 'RESTART'] as const;
export type OperationKind = (typeof OPERATION_KINDS)[number];

export const OPERATION_STATES = ['PENDING', 'RUNNING', 'SUCCEEDED', 'ROLLED_BACK', 'FAILED', 'CANCELED'] as const;
export type OperationState = (typeof OPERATION_STATES)[number];

export type OperationEnd = 'succeed' | 'roll_back' | 'fail' | 'cancel';
export type OperationCommand = 'begin' | OperationEnd;

type Row = Readonly<Record<OperationCommand, OperationState | null>>;
const REFUSE_ALL: Row = { begin: null, succeed: null, roll_back: null, fail: null, cancel: null };

/** Total: every state × every command; null means refused. */
export const OPERATION_TABLE: Readonly<Record<OperationState, Row>> = {
  PENDING: { ...REFUSE_ALL, begin: 'RUNNING', fail: 'FAILED', cancel: 'CANCELED' },
  RUNNING: { begin: null, succeed: 'SUCCEEDED', roll_back: 'ROLLED_BACK', fail: 'FAILED', cancel: 'CANCELED' },
  SUCCEEDED: REFUSE_ALL,
  ROLLED_BACK: REFUSE_ALL,
  FAILED: REFUSE_ALL,
  CANCELED: REFUSE_ALL,
};

export function isOver(state: OperationState): boolean {
  return OPERATION_TABLE[state] === REFUSE_ALL;
}

/** What each kind does, in order; what turns out not to be needed is skipped. */
export const STEP_PLANS = {
  DRAIN: ['refuse_new_leases', 'wait_for_running_tasks', 'force_stop'],
  RESUME: ['grant_leases', 'retry_quarantined'],
  // One order for both ways: with room beside the old engines the new ones are started there, without it they are swapped.
  RELOAD: [
    'check_model',
    'start_beside',
    'switch_over',
    'refuse_new_leases',
    'wait_for_running_tasks',
    'swap_model',
    'verify',
    'stop_old',
    'roll_back',
    'grant_leases',
  ],
  RESTART: ['stop_engine', 'verify'],
} as const satisfies Readonly<Record<OperationKind, readonly string[]>>;

export type StepName = (typeof STEP_PLANS)[OperationKind][number];

export const STEP_STATES = ['PENDING', 'RUNNING', 'SUCCEEDED', 'FAILED', 'SKIPPED'] as const;
export type StepState = (typeof STEP_STATES)[number];

export interface OperationStep {
  readonly name: StepName;
  readonly state: StepState;
  /** Null while it waits, and when it was skipped. */
  readonly startedAtMs: number | null;
  readonly endedAtMs: number | null;
  readonly detail: string | null;
}

export interface OperationCourse {
  readonly state: OperationState;
  readonly steps: readonly OperationStep[];
}

export type OperationEvent =
  | { readonly type: 'begin' }
  | { readonly type: 'step_began'; readonly name: StepName; readonly atMs: number }
  | {
      readonly type: 'step_ended';
      readonly name: StepName;
      readonly state: 'SUCCEEDED' | 'FAILED';
      readonly detail: string | null;
      readonly atMs: number;
    }
  | { readonly type: 'step_skipped'; readonly name: StepName; readonly detail: string }
  | { readonly type: OperationEnd; readonly atMs: number };

export function planned(kind: OperationKind): OperationCourse {
  const steps = STEP_PLANS[kind].map(
    (name): OperationStep => ({ name, state: 'PENDING', startedAtMs: null, endedAtMs: null, detail: null }),
  );
  return { state: 'PENDING', steps };
}

/** What an operation is after an event; null when the event cannot happen to it. */
export function courseAfter(course: OperationCourse, event: OperationEvent): OperationCourse | null {
  switch (event.type) {
    case 'step_began':
      return beginStep(course, event.name, event.atMs);
    case 'step_ended': {
      const { state, detail, atMs } = event;
      return changeStep(course, event.name, 'RUNNING', { state, detail, endedAtMs: atMs });
    }
    case 'step_skipped':
      return changeStep(course, event.name, 'PENDING', { state: 'SKIPPED', detail: event.detail });
    case 'begin': {
      const state = OPERATION_TABLE[course.state].begin;
      return state === null ? null : { ...course, state };
    }
    default: {
      const state = OPERATION_TABLE[course.state][event.type];
      return state === null ? null : { state, steps: course.steps.map((step) => closed(step, event.atMs)) };
    }
  }
}

function beginStep(course: OperationCourse, name: StepName, atMs: number): OperationCourse | null {
  if (course.steps.some((step) => step.state === 'RUNNING')) return null;
  const begun = changeStep(course, name, 'PENDING', { state: 'RUNNING', startedAtMs: atMs });
  if (begun === null) return null;
  const place = begun.steps.findIndex((step) => step.name === name);
  const steps = begun.steps.map((step, index) => (index < place ? closed(step, atMs) : step));
  return { ...begun, steps };
}

function changeStep(
  course: OperationCourse,
  name: StepName,
  from: StepState,
  change: Partial<OperationStep>,
): OperationCourse | null {
  if (course.state !== 'RUNNING') return null;
  const place = course.steps.findIndex((step) => step.name === name && step.state === from);
  // A step behind one that was begun is over, one way or the other: `from` is found once at most.
  if (place < 0) return null;
  return { ...course, steps: course.steps.map((step, index) => (index === place ? { ...step, ...change } : step)) };
}

function closed(step: OperationStep, atMs: number): OperationStep {
  if (step.state === 'PENDING') return { ...step, state: 'SKIPPED' };
  return step.state === 'RUNNING' ? { ...step, state: 'FAILED', endedAtMs: atMs } : step;
}

/** How far it is, 0 to 1: the part of its steps that are over. */
export function progressOf(steps: readonly OperationStep[]): number {
  if (steps.length === 0) return 0;
  const over = steps.filter((step) => step.state !== 'PENDING' && step.state !== 'RUNNING');
  return over.length / steps.length;
}
