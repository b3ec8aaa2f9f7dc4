import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { Turns } from '../../src/runtime/turns.js';

it('calls at once while the turn has room, and the rest in order, so many a turn', async () => {
  const turns = new Turns(3);
  const called: number[] = [];
  for (let n = 0; n < 8; n += 1) turns.add(() => called.push(n));
  expect(called).toEqual([0, 1, 2]);
  await nextTurn();
  expect(called).toEqual([0, 1, 2, 3, 4, 5]);
  // Comes behind those that wait, though this turn began with room.
  turns.add(() => called.push(8));
  expect(called).toHaveLength(6);
  await nextTurn();
  expect(called).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
});

it('lets other events in between: a call that comes back for ever does not hold the loop', async () => {
  const turns = new Turns(2);
  let calls = 0;
  let stopped = false;
  const again = () => {
    calls += 1;
    if (!stopped) turns.add(again);
  };
  turns.add(again);
  turns.add(again);
  for (let turn = 0; turn < 10; turn += 1) await nextTurn();
  expect(calls).toBeLessThanOrEqual(2 * 12);
  expect(calls).toBeGreaterThanOrEqual(2 * 9);
  stopped = true;
});
