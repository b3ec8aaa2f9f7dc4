/** Session affinity in the claim: where a session ran last its next task runs, and nobody loses a slot by it. */

import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { claimTasks, type NewTask, submitTasks } from '../../src/store/queue.js';
import { writePlaces } from '../../src/store/sessions.js';
import { openDatabase } from '../support/database.js';
import { LONG } from '../support/long.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

const TTL_MS = 60_000;
const HOLDER = randomUUID();
let ageing = false;
let opened: Awaited<ReturnType<typeof openDatabase>>;

beforeAll(async () => {
  opened = await openDatabase();
  await seedPool(opened.db, { replicas: 3, slots: 3 });
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});

async function clear(): Promise<void> {
  await opened.query('UPDATE tasks SET lease_id = NULL');
  await opened.query('TRUNCATE stream_chunks, quote_grades, leases, tasks, sessions CASCADE');
  await opened.query('UPDATE queue_lanes SET depth = 0');
}
beforeEach(clear);

async function submit(tasks: readonly NewTask[]): Promise<void> {
  for (const { outcome } of await submitTasks(opened.db, 'p', tasks, SUBMIT)) expect(outcome).toBe('admitted');
}

async function place(sessionId: string, replicaId: string, slot: number, admittedAtMs = Date.now()): Promise<void> {
  const there = await writePlaces(opened.db, [{ sessionId, replicaId, slot, admittedAtMs }], TTL_MS);
  expect(there).toEqual(new Set([sessionId]));
}

function slots(...names: readonly string[]) {
  return names.map((name) => ({ replicaId: `p-${name[0]}`, slot: Number(name[1]) }));
}

async function claim(...names: readonly string[]): Promise<Map<string, string>> {
  // By turns the two forms of the claim, which differ only where batch tasks are overdue.
  ageing = !ageing;
  const offer = { poolId: 'p', holder: HOLDER, slots: slots(...names), ttlMs: TTL_MS, ageing, serves: SERVES };
  const claimed = await claimTasks(opened.db, offer);
  return new Map(claimed.map((task) => [task.id, `${task.replicaId.slice(2)}${task.slot}`]));
}

describe('a claim', () => {
  it('gives a session its slot, else its replica, else any; others take the rest in order', async () => {
    const tasks = Array.from({ length: 4 }, () => newTask());
    const [first, second, third, fourth] = tasks.map(({ taskId }) => taskId);
    await submit(tasks);
    await place(tasks[1]?.sessionId ?? '', 'p-2', 1);
    await place(tasks[2]?.sessionId ?? '', 'p-1', 2);
    await place(tasks[3]?.sessionId ?? '', 'p-0', 0);
    // Slot 2 of replica 1 is not offered: another one of it is. Replica 0 is not offered at all.
    expect(await claim('20', '21', '10', '11')).toEqual(
      new Map([
        [second, '21'],
        [third, '10'],
        [first, '20'],
        [fourth, '11'],
      ]),
    );
  });

  it('gives one slot to one of two tasks of a session, and the other what is near', async () => {
    const sessionId = randomUUID();
    const tasks = [newTask({ sessionId }), newTask({ sessionId })];
    await submit(tasks);
    await place(sessionId, 'p-1', 1);
    expect(await claim('20', '11', '10')).toEqual(
      new Map([
        [tasks[0]?.taskId, '11'],
        [tasks[1]?.taskId, '10'],
      ]),
    );
  });

  it('forgets a place that is too old, and one that the task does not want', async () => {
    const old = newTask();
    const cold = newTask({ kvHint: 'cold' });
    await submit([old, cold]);
    await place(old.sessionId, 'p-1', 1, Date.now() - TTL_MS - 1000);
    await place(cold.sessionId, 'p-1', 1);
    expect(await claim('20', '10', '11')).toEqual(
      new Map([
        [old.taskId, '20'],
        [cold.taskId, '10'],
      ]),
    );
  });

  it('leaves a task whose deadline has passed to expire', async () => {
    const late = newTask({ deadlineMs: 1 });
    const next = newTask();
    await submit([late, next]);
    await expect
      .poll(async () => (await opened.query('SELECT 1 FROM tasks WHERE deadline_at <= now()')).length)
      .toBe(1);
    expect([...(await claim('00', '01')).keys()]).toEqual([next.taskId]);
  });

  it.runIf(LONG)('takes the next tasks into distinct slots, whatever the sessions remember', async () => {
    const names = ['00', '01', '02', '10', '11', '12', '20', '21', '22'];
    const memory = fc.option(fc.record({ replica: fc.nat(3), slot: fc.nat(3) }), { nil: null });
    const sessionsOf = fc.array(fc.record({ session: fc.nat(4), memory }), { minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(sessionsOf, fc.shuffledSubarray(names, { minLength: 1 }), async (made, offered) => {
        await clear();
        const ids = Array.from({ length: 5 }, () => randomUUID());
        const tasks = made.map(({ session }) => newTask({ sessionId: ids[session] ?? '' }));
        await submit(tasks);
        for (const [index, { memory: at }] of made.entries()) {
          if (at !== null) await place(tasks[index]?.sessionId ?? '', `p-${at.replica}`, at.slot);
        }
        const claimed = await claim(...offered);
        const next = tasks.slice(0, offered.length).map(({ taskId }) => taskId);
        expect([...claimed.keys()].sort()).toEqual([...next].sort());
        expect(new Set(claimed.values()).size).toBe(next.length);
        for (const slot of claimed.values()) expect(offered).toContain(slot);
      }),
      { numRuns: 25 },
    );
  });
});

describe('places of sessions', () => {
  it('are not written for sessions that are gone, the last of a session counts', async () => {
    const { sessionId } = newTask();
    const there = newTask();
    await submit([there]);
    const at = { slot: 0, admittedAtMs: Date.now() };
    const written = await writePlaces(
      opened.db,
      [
        { sessionId, replicaId: 'p-0', ...at },
        { sessionId: there.sessionId, replicaId: 'p-0', ...at },
        { sessionId: there.sessionId, replicaId: 'p-2', ...at },
      ],
      TTL_MS,
    );
    expect(written).toEqual(new Set([there.sessionId]));
    const rows = await opened.query('SELECT last_replica_id, last_slot FROM sessions');
    expect(rows).toEqual([{ last_replica_id: 'p-2', last_slot: 0 }]);
  });
});
