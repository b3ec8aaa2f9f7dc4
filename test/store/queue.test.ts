/** Full queues under concurrency: exact bounds, and each task in one place. The rules themselves: queueModel.test.ts. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { OVERDUE_AFTER_MS } from '../../src/core/queue.js';
import { claimTasks, type NewTask, type SubmitResult, submitTasks } from '../../src/store/queue.js';
import { getTask, laneDepths, readLog } from '../../src/store/tasks.js';
import { openDatabase } from '../support/database.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

const CAPACITY = 10;

let opened: Awaited<ReturnType<typeof openDatabase>>;

beforeAll(async () => {
  opened = await openDatabase();
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await opened.query('UPDATE tasks SET lease_id = NULL');
  await opened.query(
    'TRUNCATE stream_chunks, leases, tasks, sessions, artifacts, queue_lanes, replicas, pools CASCADE',
  );
});

async function submitOne(task: NewTask): Promise<SubmitResult> {
  const [result] = await submitTasks(opened.db, 'p', [task], SUBMIT);
  if (result === undefined) throw new Error('no result');
  return result;
}

/** @param first slot not offered before. */
function claim(first: number, count: number, ageing = false) {
  const slots = Array.from({ length: count }, (_, index) => ({ replicaId: 'p-0', slot: first + index }));
  return claimTasks(opened.db, { poolId: 'p', holder: randomUUID(), slots, ttlMs: 60_000, ageing, serves: SERVES });
}

async function idsIn(status: string): Promise<string[]> {
  return (await opened.query<{ id: string }>('SELECT id FROM tasks WHERE status = $1', [status])).map(({ id }) => id);
}

async function depth(): Promise<number> {
  return (await laneDepths(opened.db)).reduce((sum, lane) => sum + lane.depth, 0);
}

/** Looks at the bound from outside for as long as the work lasts. */
async function whileBounded<Result>(work: Promise<Result>): Promise<Result> {
  let over = false;
  const end = () => {
    over = true;
  };
  void work.then(end, end);
  while (!over) expect(await depth()).toBeLessThanOrEqual(CAPACITY);
  return work;
}

describe('100 submissions at once', () => {
  it.each(['reject', 'drop-lru', 'shed-low-priority'] as const)('keep the bound of %s exactly', async (policy) => {
    await seedPool(opened.db, { capacity: CAPACITY, policy });
    const tasks = Array.from({ length: 100 }, (_, n) => newTask({ priority: n % 2 === 0 ? 'batch' : 'interactive' }));
    const results = await whileBounded(Promise.all(tasks.map(submitOne)));
    expect(await depth()).toBe(CAPACITY);
    const [queued, dropped] = [await idsIn('QUEUED'), await idsIn('DROPPED')];
    expect(queued).toHaveLength(CAPACITY);
    const displaced = results.flatMap((result) => result.displaced?.taskId ?? []);
    expect([...dropped].sort()).toEqual([...displaced].sort());
    const admitted = tasks.filter((_, n) => results[n]?.outcome === 'admitted').map((task) => task.taskId);
    expect([...queued, ...dropped].sort()).toEqual(admitted.sort());
    expect(results.every(({ outcome }) => outcome === 'admitted' || outcome === 'full')).toBe(true);
    if (policy === 'reject') expect(admitted).toHaveLength(CAPACITY);
    else expect(displaced.length).toBeGreaterThan(0);
    if (policy === 'shed-low-priority') {
      const rows = await opened.query(`SELECT 1 FROM tasks WHERE status = 'DROPPED' AND priority = 'interactive'`);
      expect(rows).toEqual([]);
    }
  });

  it('and claims meanwhile: no task is both served and dropped, and none is lost', async () => {
    await seedPool(opened.db, { capacity: CAPACITY, policy: 'drop-lru' });
    const tasks = Array.from({ length: 100 }, (_, n) => newTask({ priority: n % 3 === 0 ? 'batch' : 'interactive' }));
    const claims = Array.from({ length: 20 }, (_, n) => claim(n * 2, 2, n % 2 === 0));
    const results = await whileBounded(Promise.all(tasks.map(submitOne)));
    const served = (await Promise.all(claims)).flat().map((task) => task.id);
    served.push(...(await claim(100, 3)).map((task) => task.id));
    const displaced = results.flatMap((result) => result.displaced?.taskId ?? []);
    expect((await idsIn('LEASED')).sort()).toEqual(served.sort());
    expect((await idsIn('DROPPED')).sort()).toEqual(displaced.sort());
    const admitted = tasks.filter((_, n) => results[n]?.outcome === 'admitted');
    expect(await idsIn('QUEUED')).toHaveLength(admitted.length - served.length - displaced.length);
    expect(await depth()).toBe(admitted.length - served.length - displaced.length);
  });

  it('in one batch are as if each had come alone: what they displace among themselves is admitted, and ended', async () => {
    await seedPool(opened.db, { capacity: 2, policy: 'drop-lru' });
    const tasks = Array.from({ length: 5 }, () => newTask());
    const results = await submitTasks(opened.db, 'p', tasks, SUBMIT);
    const [a, b, c] = tasks.map((task) => task.taskId);
    expect(results.map(({ outcome }) => outcome)).toEqual(Array(5).fill('admitted'));
    expect(results.map(({ displaced }) => displaced?.taskId)).toEqual([undefined, undefined, a, b, c]);
    expect(await depth()).toBe(2);
    expect(await submitOne(tasks[0] ?? newTask())).toMatchObject({ outcome: 'known', displaced: null });
  });
});

describe('a displaced task', () => {
  it('has a terminal event, an error and a transcript like any other that ends in the queue', async () => {
    await seedPool(opened.db, { capacity: 1, policy: 'drop-lru' });
    const task = newTask({ priority: 'batch', prompt: 'two words', correlationId: 'mine' });
    await submitOne(task);
    const { displaced } = await submitOne(newTask());
    expect(displaced).toEqual({
      taskId: task.taskId,
      sessionId: task.sessionId,
      correlationId: 'mine',
      engine: 'llamacpp',
      modelRef: 'm',
      priority: 'batch',
      seed: 7n,
    });
    expect(await getTask(opened.db, task.taskId)).toMatchObject({ status: 'DROPPED', chunks: 1, leaseId: null });
    const log = await readLog(opened.db, task.taskId, { afterOrd: -1, afterSeq: -1, limit: 10 });
    expect(log).toMatchObject([
      { ord: 0, kind: 'error', firstSeq: 1, lastSeq: 1, payload: { error: SUBMIT.displaced } },
    ]);
    expect(Math.abs(Date.now() - (log[0]?.atMs ?? 0))).toBeLessThan(60_000);
    const [artifact] = await opened.query<{ content: Record<string, unknown> }>(
      'SELECT a.content FROM artifacts a JOIN tasks t ON t.transcript_id = a.id WHERE t.id = $1',
      [task.taskId],
    );
    expect(artifact?.content).toMatchObject({ prompt: { redacted: true, characters: 9 }, error: SUBMIT.displaced });
    expect(JSON.stringify(artifact?.content)).not.toContain('two words');
  });

  it('of another kind than a completion has in its transcript how much it was given', async () => {
    await seedPool(opened.db, { capacity: 1, policy: 'drop-lru' });
    const task = newTask({ workload: 'rerank', prompt: 'which', inputs: ['one', 'three'] });
    await submitOne(task);
    await submitOne(newTask());
    const rows = await opened.query(
      'SELECT a.content FROM artifacts a JOIN tasks t ON t.transcript_id = a.id WHERE t.id = $1',
      [task.taskId],
    );
    const inputs = { redacted: true, count: 2, characters: 8 };
    expect(rows).toMatchObject([{ content: { status: 'DROPPED', workload: 'rerank', inputs, result: null } }]);
  });

  it('is never one that somebody else is about to take', async () => {
    await seedPool(opened.db, { capacity: 2, policy: 'drop-lru' });
    const [first, second] = [newTask(), newTask()];
    await submitTasks(opened.db, 'p', [first, second], SUBMIT);
    // A claim in another transaction has the oldest, and has not committed yet.
    await using holder = await rowHolder(first.taskId);
    expect((await submitOne(newTask())).displaced?.taskId).toBe(second.taskId);
    await holder.end();
    expect(await idsIn('QUEUED')).toContain(first.taskId);
  });
});

async function rowHolder(taskId: string) {
  const { Client } = (await import('pg')).default;
  const client = new Client({ connectionString: opened.url });
  await client.connect();
  await client.query('BEGIN');
  await client.query('SELECT 1 FROM tasks WHERE id = $1 FOR NO KEY UPDATE', [taskId]);
  let ended: Promise<void> | null = null;
  const end = () => {
    ended ??= client.end();
    return ended;
  };
  return { end, [Symbol.asyncDispose]: end };
}

describe('ageing', () => {
  it('is counted over claims of one slot each, and only while both kinds wait', async () => {
    await seedPool(opened.db);
    const batch = [newTask({ priority: 'batch' }), newTask({ priority: 'batch' })];
    await submitTasks(opened.db, 'p', batch, SUBMIT);
    await opened.query(`UPDATE tasks SET created_at = created_at - $1 * interval '1 ms'`, [OVERDUE_AFTER_MS]);
    const urgent = Array.from({ length: 7 }, () => newTask());
    await submitTasks(opened.db, 'p', urgent, SUBMIT);
    const order: string[] = [];
    for (let slot = 0; slot < 9; slot += 1) order.push(...(await claim(slot, 1, true)).map((task) => task.priority));
    const three = Array(3).fill('interactive');
    expect(order).toEqual([...three, 'batch', ...three, 'batch', 'interactive']);
  });
});
