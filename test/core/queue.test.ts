import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DrainRate } from '../../src/core/drainRate.js';
import {
  AGEING_TURN,
  displacedFailure,
  type FullPolicy,
  leastStartMs,
  OVERDUE_AFTER_MS,
  type QueueBounds,
  refusedByFullQueue,
  TaskQueue,
  type Waiting,
} from '../../src/core/queue.js';
import type { Priority } from '../../src/core/task.js';

const POLICIES: readonly FullPolicy[] = ['reject', 'drop-lru', 'shed-low-priority'];
const priority = fc.constantFrom<Priority>('interactive', 'batch');
const limits: fc.Arbitrary<QueueBounds> = fc.record({
  total: fc.integer({ min: 1, max: 8 }),
  interactive: fc.integer({ min: 1, max: 8 }),
  batch: fc.integer({ min: 1, max: 8 }),
});
const steps = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('offer' as const), priority }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('grant' as const), laterMs: fc.nat(2 * OVERDUE_AFTER_MS) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), pick: fc.nat(50) }) },
  ),
  { maxLength: 120 },
);

/** What became of each task, in the order in which it did. */
interface History {
  readonly queue: TaskQueue;
  readonly priorities: ReadonlyMap<string, Priority>;
  readonly admitted: readonly string[];
  readonly refused: readonly string[];
  readonly granted: readonly string[];
  readonly displaced: readonly { readonly id: string; readonly by: string; readonly waiting: readonly string[] }[];
  readonly removed: readonly string[];
}

/** Runs the steps; `watch` is called after each. */
function play(
  bounds: QueueBounds,
  policy: FullPolicy,
  run: typeof steps extends fc.Arbitrary<infer Steps> ? Steps : never,
  watch: (queue: TaskQueue) => void = () => {},
): History {
  const queue = new TaskQueue(bounds, policy);
  const priorities = new Map<string, Priority>();
  const history = {
    admitted: [] as string[],
    refused: [] as string[],
    granted: [] as string[],
    removed: [] as string[],
  };
  const displaced: { id: string; by: string; waiting: string[] }[] = [];
  const waiting = new Set<string>();
  let nowMs = 0;
  for (const [index, step] of run.entries()) {
    if (step.do === 'offer') {
      const id = `t${index}`;
      priorities.set(id, step.priority);
      const before = [...waiting];
      const offer = queue.offer(id, step.priority, nowMs);
      if (offer.outcome === 'full') history.refused.push(id);
      else {
        history.admitted.push(id);
        waiting.add(id);
        if (offer.displaced !== null) displaced.push({ id: offer.displaced, by: id, waiting: before });
        if (offer.displaced !== null) waiting.delete(offer.displaced);
      }
    } else if (step.do === 'grant') {
      nowMs += step.laterMs;
      const task = queue.grant(nowMs);
      if (task !== null) history.granted.push(task.id);
      if (task !== null) waiting.delete(task.id);
    } else {
      const id = `t${step.pick}`;
      const waited = waiting.delete(id);
      expect([queue.remove(id), queue.remove(id)]).toEqual([waited, false]);
      if (waited) history.removed.push(id);
    }
    watch(queue);
  }
  return { queue, priorities, displaced, ...history };
}

/** As far as they are in the second list, in the order of the first. */
function inOrder(all: readonly string[], some: readonly string[]): string[] {
  const set = new Set(some);
  return all.filter((id) => set.has(id));
}

describe('a queue', () => {
  it('never exceeds a bound, and loses nothing: each task is refused, or waits, is served, displaced or cancelled', () => {
    fc.assert(
      fc.property(limits, fc.constantFrom(...POLICIES), steps, (bounds, policy, run) => {
        const history = play(bounds, policy, run, (queue) => {
          expect(queue.depth('interactive')).toBeLessThanOrEqual(bounds.interactive);
          expect(queue.depth('batch')).toBeLessThanOrEqual(bounds.batch);
          expect(queue.depth('interactive') + queue.depth('batch')).toBeLessThanOrEqual(bounds.total);
        });
        const { admitted, refused, granted, displaced, priorities, queue } = history;
        const gone = [...granted, ...displaced.map(({ id }) => id)];
        expect(new Set(gone).size).toBe(gone.length);
        expect([...admitted, ...refused].sort()).toEqual([...priorities.keys()].sort());
        const left: string[] = [];
        for (let task = queue.grant(0); task !== null; task = queue.grant(0)) left.push(task.id);
        expect([...gone, ...left, ...history.removed].sort()).toEqual([...admitted].sort());
      }),
      { numRuns: 300 },
    );
  });

  it('serves first come first served within a class, and the same way every time', () => {
    fc.assert(
      fc.property(limits, fc.constantFrom(...POLICIES), steps, (bounds, policy, run) => {
        const { admitted, granted, priorities } = play(bounds, policy, run);
        for (const lane of ['interactive', 'batch']) {
          const ofLane = (ids: readonly string[]) => ids.filter((id) => priorities.get(id) === lane);
          expect(ofLane(granted)).toEqual(inOrder(ofLane(admitted), granted));
        }
        expect(play(bounds, policy, run).granted).toEqual(granted);
      }),
      { numRuns: 300 },
    );
  });

  it('displaces by the policy, and nobody of a higher priority than the newcomer', () => {
    fc.assert(
      fc.property(limits, fc.constantFrom(...POLICIES), steps, (bounds, policy, run) => {
        const { displaced, priorities } = play(bounds, policy, run);
        if (policy === 'reject') expect(displaced).toEqual([]);
        for (const { id, by, waiting } of displaced) {
          const lane = priorities.get(id);
          const ofLane = waiting.filter((other) => priorities.get(other) === lane);
          expect(id).toBe(policy === 'drop-lru' ? ofLane[0] : ofLane.at(-1));
          if (priorities.get(by) === 'batch' || policy === 'shed-low-priority') expect(lane).toBe('batch');
          if (policy === 'shed-low-priority') expect(priorities.get(by)).toBe('interactive');
          // An interactive task goes only where no batch task could, or where its own lane is the full one.
          const batchWaited = waiting.some((other) => priorities.get(other) === 'batch');
          if (lane === 'interactive' && batchWaited) expect(ofLane).toHaveLength(bounds.interactive);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('serves an overdue batch task in its turn, whatever else comes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 1, max: 5 }), (batchTasks, rush) => {
        const queue = new TaskQueue({ total: 10_000, interactive: 10_000, batch: 10_000 }, 'reject');
        for (let n = 0; n < batchTasks; n += 1) queue.offer(`b${n}`, 'batch', 0);
        let urgent = 0;
        const served: string[] = [];
        while (served.length < AGEING_TURN * batchTasks) {
          for (let n = 0; n < rush; n += 1) queue.offer(`i${urgent++}`, 'interactive', OVERDUE_AFTER_MS);
          served.push(queue.grant(OVERDUE_AFTER_MS)?.id ?? '');
        }
        const turns = served.flatMap((id, index) => (id.startsWith('b') ? [index + 1] : []));
        expect(turns).toEqual(Array.from({ length: batchTasks }, (_, index) => (index + 1) * AGEING_TURN));
        expect(queue.grant(OVERDUE_AFTER_MS)?.id).toMatch(/^i/);
      }),
    );
  });

  it('never displaces a task that ran already, and gives it back its place', () => {
    const queue = new TaskQueue({ total: 2, interactive: 2, batch: 2 }, 'drop-lru');
    for (const id of ['a', 'b']) queue.offer(id, 'interactive', 0);
    const first = queue.grant(0) as Waiting;
    expect(queue.offer('c', 'interactive', 0)).toEqual({ outcome: 'admitted', position: 1, displaced: null });
    queue.requeue(first, 'interactive');
    expect(queue.offer('d', 'interactive', 0)).toMatchObject({ displaced: 'b' });
    expect(queue.offer('e', 'interactive', 0)).toMatchObject({ displaced: 'c' });
    expect([queue.grant(0), queue.grant(0), queue.grant(0), queue.grant(0)].map((task) => task?.id)).toEqual([
      'a',
      'd',
      'e',
      undefined,
    ]);
  });

  it('takes constant time per step however many wait, and however many left from the middle', () => {
    const count = 100_000;
    const queue = new TaskQueue({ total: count, interactive: count, batch: count }, 'drop-lru');
    for (let n = 0; n < count; n += 1) queue.offer(`t${n}`, 'batch', 0);
    for (let n = 1; n < count; n += 2) queue.remove(`t${n}`);
    for (let n = count; n < 2 * count; n += 1) queue.offer(`t${n}`, 'batch', 0);
    let served = 0;
    while (queue.grant(0) !== null) served += 1;
    expect(served).toBe(count);
  });

  it('has one code for those it refuses under each policy, and one for those it drops', () => {
    const codes = POLICIES.map((policy) => refusedByFullQueue('p', policy, 400));
    expect(codes.map(({ code, policyLabel }) => [code, policyLabel])).toEqual([
      ['ADMISSION_REJECT', 'reject'],
      ['QUEUE_FULL_DROP_LRU', 'drop-lru'],
      ['ADMISSION_REJECT', 'shed-low-priority'],
    ]);
    expect(
      codes.every(
        ({ retriable, retryAfterMs, family }) => retriable && retryAfterMs === 400 && family === 'backpressure',
      ),
    ).toBe(true);
    expect(displacedFailure('p', 'shed-low-priority', 400)).toMatchObject({
      code: 'QUEUE_FULL_DROP_LRU',
      retryAfterMs: 400,
    });
  });
});

describe('a deadline', () => {
  it('is held against the whole rounds that are ahead', () => {
    const basis = { slotsTotal: 2, slotsFree: 0, serviceMs: 100 };
    expect([0, 1, 2, 3, 4].map((position) => leastStartMs(position, basis))).toEqual([0, 0, 100, 100, 200]);
    expect(leastStartMs(50, { ...basis, serviceMs: 0 })).toBe(0);
    expect(leastStartMs(3, { ...basis, slotsFree: 2 })).toBe(0);
  });
});

describe('the drain rate', () => {
  /** A pool of one slot that serves one task every `everyMs`. */
  function busy(everyMs: number, rounds: number): { rate: DrainRate; nowMs: number } {
    const rate = new DrainRate();
    for (let round = 0; round <= rounds; round += 1) rate.granted(1, 1, round * everyMs);
    return { rate, nowMs: rounds * everyMs };
  }

  it('is measured from one served task to the next, over all slots', () => {
    expect(busy(800, 20).rate.intervalMs(20 * 800)).toBeCloseTo(800);
    const four = new DrainRate();
    for (let round = 0; round <= 20; round += 1) four.granted(4, 4, round * 800);
    expect(four.intervalMs(20 * 800)).toBeCloseTo(200);
  });

  it('takes idle times for no measure of speed, and a standstill for one', () => {
    const { rate, nowMs } = busy(500, 20);
    expect(rate.intervalMs(nowMs + 9_000)).toBe(9_000);
    rate.granted(1, 0, nowMs + 500); // a slot is free and nobody waits
    rate.granted(1, 1, nowMs + 60_000);
    expect(rate.intervalMs(nowMs + 60_000)).toBeCloseTo(500);
  });

  it('sends each refused caller to a place of its own, within bounds, and forgets those for whom there was one', () => {
    const { rate, nowMs } = busy(500, 20);
    expect([1, 2, 3].map(() => rate.sendAway(nowMs))).toEqual([500, 1000, 1500]);
    expect(rate.retryAfterMs(nowMs)).toBe(2000);
    rate.granted(2, 2, nowMs);
    expect(rate.retryAfterMs(nowMs)).toBeLessThan(1000);
    for (let n = 0; n < 1000; n += 1) rate.sendAway(nowMs);
    expect(rate.sendAway(nowMs)).toBe(60_000);
    rate.granted(2, 1, nowMs); // more slots than tasks: the queue is empty
    expect(rate.retryAfterMs(nowMs)).toBe(320);
    expect(new DrainRate().sendAway(0)).toBe(1000);
  });
});
