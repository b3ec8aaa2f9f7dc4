import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  courseAfter,
  isOver,
  OPERATION_KINDS,
  OPERATION_STATES,
  OPERATION_TABLE,
  type OperationCourse,
  type OperationEvent,
  type OperationKind,
  planned,
  progressOf,
  STEP_PLANS,
} from '../../src/core/operation.js';

const kind = fc.constantFrom<OperationKind>(...OPERATION_KINDS);
const atMs = fc.nat(1_000_000);
const name = fc.constantFrom(...new Set(Object.values(STEP_PLANS).flat()));
const end = fc.constantFrom('succeed' as const, 'roll_back' as const, 'fail' as const, 'cancel' as const);
const stepEvent: fc.Arbitrary<OperationEvent> = fc.oneof(
  fc.record({ type: fc.constant('step_began' as const), name, atMs }),
  fc.record({
    type: fc.constant('step_ended' as const),
    name,
    state: fc.constantFrom('SUCCEEDED' as const, 'FAILED' as const),
    detail: fc.constant('d'),
    atMs,
  }),
  fc.record({ type: fc.constant('step_skipped' as const), name, detail: fc.constant('d') }),
);
// Ends are rare, so that most paths get far.
const event: fc.Arbitrary<OperationEvent> = fc.oneof(
  { weight: 2, arbitrary: fc.constant<OperationEvent>({ type: 'begin' }) },
  { weight: 30, arbitrary: stepEvent },
  { weight: 1, arbitrary: fc.record({ type: end, atMs }) },
);
const path = fc.tuple(kind, fc.array(event, { maxLength: 120 }));

/** Every course on the way, the first included; events that are refused change nothing. */
function walk(of: OperationKind, events: readonly OperationEvent[]): OperationCourse[] {
  const courses = [planned(of)];
  for (const next of events) {
    const last = courses.at(-1) ?? planned(of);
    courses.push(courseAfter(last, next) ?? last);
  }
  return courses;
}

describe('operation', () => {
  it('never leaves a terminal state, nor changes anything in it', () => {
    fc.assert(
      fc.property(path, ([of, events]) => {
        const courses = walk(of, events);
        const ended = courses.findIndex((course) => isOver(course.state));
        if (ended >= 0) for (const later of courses.slice(ended)) expect(later).toBe(courses[ended]);
      }),
    );
    expect(OPERATION_STATES.filter(isOver)).toEqual(['SUCCEEDED', 'ROLLED_BACK', 'FAILED', 'CANCELED']);
  });

  it('never loses progress, and has all of it at the end, with no step left open', () => {
    fc.assert(
      fc.property(path, ([of, events]) => {
        const courses = walk(of, events);
        const progress = courses.map((course) => progressOf(course.steps));
        expect(progress).toEqual(progress.toSorted((a, b) => a - b));
        const last = courses.at(-1);
        if (last === undefined || !isOver(last.state)) return;
        expect(progressOf(last.steps)).toBe(1);
        expect(last.steps.filter((step) => step.state === 'PENDING' || step.state === 'RUNNING')).toEqual([]);
      }),
    );
  });

  it('ends on every path: so many changes are possible and no more, and the end is always within reach', () => {
    fc.assert(
      fc.property(path, ([of, events]) => {
        const courses = walk(of, events);
        const changes = courses.filter((course, index) => index > 0 && course !== courses[index - 1]).length;
        expect(changes).toBeLessThanOrEqual(2 * STEP_PLANS[of].length + 2);
        for (const course of courses) {
          if (!isOver(course.state)) expect(courseAfter(course, { type: 'fail', atMs: 1 })?.state).toBe('FAILED');
        }
      }),
    );
  });

  it('takes its steps in the order of the plan, one at a time', () => {
    fc.assert(
      fc.property(path, ([of, events]) => {
        for (const { steps } of walk(of, events)) {
          expect(steps.map((step) => step.name)).toEqual(STEP_PLANS[of]);
          const open = steps.findIndex((step) => step.state === 'RUNNING');
          if (open < 0) continue;
          expect(steps.slice(0, open).some((step) => step.state === 'PENDING')).toBe(false);
          expect(steps.slice(open + 1).some((step) => step.startedAtMs !== null)).toBe(false);
        }
      }),
    );
  });

  it('does no work before it has begun', () => {
    const steps: OperationEvent = { type: 'step_began', name: 'refuse_new_leases', atMs: 1 };
    expect(courseAfter(planned('DRAIN'), steps)).toBeNull();
    expect(OPERATION_TABLE.PENDING.succeed).toBeNull();
    expect(OPERATION_TABLE.PENDING.roll_back).toBeNull();
  });
});
