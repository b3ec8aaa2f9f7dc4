/** Tasks whose pool was given another model, and the order of locks: lanes before tasks and leases. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { setPoolModel } from '../../src/store/pools.js';
import { claimTasks, type NewTask, submitTasks } from '../../src/store/queue.js';
import { moveTask, strandedTasks } from '../../src/store/stranded.js';
import { getTask, laneDepths, requeueTask } from '../../src/store/tasks.js';
import { openDatabase } from '../support/database.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

const EXPLANATION = { candidates: [], chosen: 'q', rule: 'moved' };
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
  await seedPool(opened.db, { id: 'p', slots: 50 });
  await seedPool(opened.db, { id: 'q', capacity: 5, slots: 50 });
});

async function submit(poolId: string, tasks: readonly NewTask[]): Promise<void> {
  await submitTasks(opened.db, poolId, tasks, SUBMIT);
}

function claim(poolId: string, count: number, modelRef = 'm') {
  const slots = Array.from({ length: count }, (_, slot) => ({ replicaId: `${poolId}-0`, slot }));
  const serves = { ...SERVES, modelRef };
  return claimTasks(opened.db, { poolId, holder: randomUUID(), slots, ttlMs: 60_000, serves, ageing: false });
}

const idsOf = (tasks: readonly { readonly id: string }[]) => tasks.map(({ id }) => id).sort();
const depthOf = async (poolId: string) =>
  (await laneDepths(opened.db)).reduce((sum, lane) => (lane.poolId === poolId ? sum + lane.depth : sum), 0);

describe('a pool that was given another model', () => {
  it('serves the tasks that name that model, and those that name none; the others are found', async () => {
    const [named, follower, fresh] = [newTask(), newTask({ followsPool: true }), newTask({ modelRef: 'n' })];
    await submit('p', [named, follower, fresh]);
    expect(idsOf(await strandedTasks(opened.db, ['p'], true))).toEqual([fresh.taskId]);
    await setPoolModel(opened.db, 'p', 'n');
    const [stranded, ...others] = await strandedTasks(opened.db, ['p', 'q'], true);
    expect(stranded).toMatchObject({ id: named.taskId, serves: 'n', told: named.explanation });
    expect(others).toEqual([]);
    const claimed = await claim('p', 10, 'n');
    expect(idsOf(claimed)).toEqual([fresh.taskId, follower.taskId].sort());
    expect(claimed.map(({ modelRef }) => modelRef)).toEqual(['n', 'n']);
  });

  it('does not go on with what another model has begun to say', async () => {
    await submit('p', [newTask({ followsPool: true }), newTask({ followsPool: true })]);
    for (const [n, { id, leaseId }] of (await claim('p', 2)).entries()) {
      const append = { taskId: id, leaseId, firstOrd: 0, chunks: [], tokensOut: n };
      expect(await requeueTask(opened.db, append, { delayMs: 0, reason: 'engine_lost' })).toBe(true);
    }
    await setPoolModel(opened.db, 'p', 'n');
    const [stranded] = await strandedTasks(opened.db, ['p'], false);
    expect(stranded).toMatchObject({ tokensOut: 1, followsPool: false, modelRef: 'm' });
    expect(await claim('p', 2, 'n')).toMatchObject([{ tokensOut: 0, modelRef: 'n' }]);
  });

  it('that runs another engine now has its tasks found at a start', async () => {
    await submit('p', [newTask()]);
    await opened.query(`UPDATE pools SET engine = 'vllm' WHERE id = 'p'`);
    expect(await strandedTasks(opened.db, ['p'], false)).toEqual([]);
    expect(await strandedTasks(opened.db, ['p'], true)).toHaveLength(1);
  });
});

describe('a move to another pool', () => {
  it('keeps the bounds of that pool, against newcomers and claims, and loses nobody', async () => {
    const tasks = Array.from({ length: 12 }, () => newTask());
    await submit('p', tasks);
    const newcomers = Array.from({ length: 6 }, () => newTask());
    const moves = tasks.map((task) => moveTask(opened.db, { id: task.taskId, poolId: 'p' }, 'q', EXPLANATION));
    const [moved, , claimed] = await Promise.all([
      Promise.all(moves),
      Promise.all(newcomers.map((task) => submit('q', [task]))),
      claim('p', 3),
    ]);
    expect(await depthOf('q')).toBeLessThanOrEqual(5);
    const rows = await opened.query<{ pool: string; status: string; n: number }>(
      `SELECT pool_id AS pool, status, count(*)::int AS n FROM tasks WHERE id = ANY($1) GROUP BY 1, 2`,
      [tasks.map((task) => task.taskId)],
    );
    const count = (pool: string, status: string) =>
      rows.find((row) => row.pool === pool && row.status === status)?.n ?? 0;
    expect(count('q', 'QUEUED')).toBe(moved.filter(Boolean).length);
    expect(count('p', 'LEASED')).toBe(claimed.length);
    expect(count('p', 'QUEUED')).toBe(12 - claimed.length - moved.filter(Boolean).length);
    expect(await depthOf('p')).toBe(count('p', 'QUEUED'));
  });

  it('is refused to a task that does not wait, and to a pool that serves another model or drains', async () => {
    const task = newTask();
    await submit('p', [task]);
    const move = () => moveTask(opened.db, { id: task.taskId, poolId: 'p' }, 'q', EXPLANATION);
    await setPoolModel(opened.db, 'q', 'n');
    expect(await move()).toBe(false);
    await setPoolModel(opened.db, 'q', 'm');
    await opened.query(`UPDATE pools SET draining = true WHERE id = 'q'`);
    expect(await move()).toBe(false);
    await opened.query(`UPDATE pools SET draining = false`);
    await claim('p', 1);
    expect(await move()).toBe(false);
    expect(await getTask(opened.db, task.taskId)).toMatchObject({ poolId: 'p', status: 'LEASED' });
  });
});

describe('the order of locks', () => {
  it('a requeue and a claim that has the lanes and wants the same slot do not wait for each other', async () => {
    await submit('p', [newTask()]);
    const [held] = await claim('p', 1);
    if (held === undefined) throw new Error('nothing was claimed');
    const claimer = new pg.Client({ connectionString: opened.url });
    await claimer.connect();
    try {
      // What CLAIM_AGEING does, one lock at a time.
      await claimer.query('BEGIN');
      await claimer.query(`SELECT 1 FROM queue_lanes WHERE pool_id = 'p' ORDER BY priority FOR NO KEY UPDATE`);
      const append = { taskId: held.id, leaseId: held.leaseId, firstOrd: 0, chunks: [], tokensOut: 0 };
      const requeued = requeueTask(opened.db, append, { delayMs: 0, reason: 'holder_lost' });
      const waiters = () =>
        opened.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`);
      await expect.poll(waiters).toHaveLength(1);
      const lease = `INSERT INTO leases (task_id, replica_id, slot, holder, expires_at)
        VALUES ($1, 'p-0', 0, $2, now()) ON CONFLICT DO NOTHING`;
      const { rowCount } = await claimer.query(lease, [held.id, randomUUID()]);
      expect(rowCount).toBe(0);
      await claimer.query('COMMIT');
      expect(await requeued).toBe(true);
    } finally {
      await claimer.end();
    }
  });
});
