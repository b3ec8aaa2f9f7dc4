import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { activeLeases, releaseDeadLeases, renewLeases } from '../../src/store/leases.js';
import { claimTasks, submitTasks } from '../../src/store/queue.js';
import {
  appendChunks,
  type ClaimedTask,
  endQueuedTask,
  finishTask,
  getTask,
  type LogChunk,
  lostTasks,
  overdueQueuedTasks,
  readLog,
  requestCancel,
  requeueTask,
  tasksAhead,
} from '../../src/store/tasks.js';
import { openDatabase } from '../support/database.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

type Opened = Awaited<ReturnType<typeof openDatabase>>;

const HOLDER = randomUUID();
const TTL_MS = 15_000;
let opened: Opened;

beforeAll(async () => {
  opened = await openDatabase();
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await opened.query(`DELETE FROM stream_chunks`);
  await opened.query(`UPDATE tasks SET lease_id = NULL`);
  await opened.query(`DELETE FROM leases`);
  await opened.query(`DELETE FROM tasks`);
  await opened.query(`DELETE FROM replicas`);
  await opened.query(`DELETE FROM pools`);
});

function tokens(firstSeq: number, texts: string[]): LogChunk {
  return { kind: 'tokens', firstSeq, lastSeq: firstSeq + texts.length - 1, payload: texts, atMs: 1_700_000_000_000 };
}
const started: LogChunk = { kind: 'started', firstSeq: 0, lastSeq: 0, payload: { seed: '7' }, atMs: 1_700_000_000_000 };
const ended = (seq: number): LogChunk => ({
  kind: 'end',
  firstSeq: seq,
  lastSeq: seq,
  payload: {},
  atMs: 1_700_000_000_000,
});
const transcript = () => ({ id: `sha256:${randomUUID()}`, content: '{}' });

async function claimOne(slot = 0): Promise<ClaimedTask> {
  const [claimed] = await claimTasks(opened.db, {
    poolId: 'p',
    holder: HOLDER,
    slots: [{ replicaId: 'p-0', slot }],
    ttlMs: TTL_MS,
    ageing: false,
    serves: SERVES,
  });
  if (claimed === undefined) throw new Error('nothing was claimed');
  return claimed;
}

function finishOf(task: ClaimedTask, chunks: LogChunk[]) {
  return {
    taskId: task.id,
    leaseId: task.leaseId,
    firstOrd: task.chunks,
    chunks,
    tokensOut: 0,
    status: 'SUCCEEDED' as const,
    tokensIn: 1,
    decodeMs: 1,
    finishReason: 'stop',
    error: null,
    transcript: transcript(),
    releaseReason: 'completed',
  };
}

describe('submit', () => {
  it('gives the same receipt for the same task and refuses another body', async () => {
    await seedPool(opened.db);
    const task = newTask();
    const [first] = await submitTasks(opened.db, 'p', [task], SUBMIT);
    await submitTasks(opened.db, 'p', [newTask()], SUBMIT);
    const [again, other] = [
      await submitTasks(opened.db, 'p', [task], SUBMIT),
      await submitTasks(opened.db, 'p', [{ ...task, requestHash: 'different' }], SUBMIT),
    ];
    expect(first).toMatchObject({ outcome: 'admitted', queuePosition: 0 });
    expect(again[0]).toEqual({ ...first, outcome: 'known' });
    expect(other[0]?.outcome).toBe('conflict');
  });

  it('keeps the bound of a lane exact under concurrent batches', async () => {
    await seedPool(opened.db, { capacity: 10 });
    const batches = Array.from({ length: 8 }, () => [newTask(), newTask(), newTask()]);
    const results = (await Promise.all(batches.map((batch) => submitTasks(opened.db, 'p', batch, SUBMIT)))).flat();
    expect(results.filter((result) => result.outcome === 'admitted')).toHaveLength(10);
    expect(results.filter((result) => result.outcome === 'full')).toHaveLength(14);
    const positions = results.filter((result) => result.outcome === 'admitted').map((result) => result.queuePosition);
    expect(positions.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('puts batch tasks behind all interactive ones, and refuses while draining', async () => {
    await seedPool(opened.db);
    const batch = newTask({ priority: 'batch' });
    const results = await submitTasks(opened.db, 'p', [newTask(), newTask()], SUBMIT);
    expect(results.map((result) => result.queuePosition)).toEqual([0, 1]);
    expect((await submitTasks(opened.db, 'p', [batch], SUBMIT))[0]?.queuePosition).toBe(2);
    expect(await tasksAhead(opened.db, batch.taskId)).toBe(2);
    await opened.query(`UPDATE pools SET draining = true`);
    expect((await submitTasks(opened.db, 'p', [newTask()], SUBMIT))[0]?.outcome).toBe('draining');
  });
});

describe('claim', () => {
  it('serves interactive before batch, first come first served', async () => {
    await seedPool(opened.db);
    const [late, early, batch] = [newTask(), newTask(), newTask({ priority: 'batch' })];
    await submitTasks(opened.db, 'p', [batch], SUBMIT);
    await submitTasks(opened.db, 'p', [early], SUBMIT);
    await submitTasks(opened.db, 'p', [late], SUBMIT);
    const order = [await claimOne(0), await claimOne(1), await claimOne(2)].map((task) => task.id);
    expect(order).toEqual([early.taskId, late.taskId, batch.taskId]);
  });

  it('gives a slot to one holder and a task to one slot, however many ask', async () => {
    await seedPool(opened.db);
    await submitTasks(
      opened.db,
      'p',
      Array.from({ length: 6 }, () => newTask()),
      SUBMIT,
    );
    const slots = [0, 1, 2, 3].map((slot) => ({ replicaId: 'p-0', slot }));
    const claims = await Promise.all(
      Array.from({ length: 5 }, () =>
        claimTasks(opened.db, {
          poolId: 'p',
          holder: randomUUID(),
          slots,
          ttlMs: TTL_MS,
          ageing: false,
          serves: SERVES,
        }),
      ),
    );
    const taken = claims.flat();
    expect(new Set(taken.map((task) => task.slot)).size).toBe(taken.length);
    expect(new Set(taken.map((task) => task.id)).size).toBe(taken.length);
    expect(await activeLeases(opened.db)).toHaveLength(taken.length);
    const held = await opened.query<{ n: number }>(`SELECT count(*)::int AS n FROM tasks WHERE status = 'LEASED'`);
    expect(held[0]?.n).toBe(taken.length);
  });
});

describe('the log', () => {
  it('takes chunks only under the lease and only where they continue it', async () => {
    await seedPool(opened.db);
    await submitTasks(opened.db, 'p', [newTask()], SUBMIT);
    const task = await claimOne();
    const append = {
      taskId: task.id,
      leaseId: task.leaseId,
      firstOrd: 0,
      chunks: [started, tokens(1, ['a', '\u0000', '\ud800'])],
      tokensOut: 3,
    };
    expect(await appendChunks(opened.db, [append])).toEqual(new Set([task.id]));
    expect(await appendChunks(opened.db, [{ ...append, firstOrd: 3 }])).toEqual(new Set());
    expect(await appendChunks(opened.db, [{ ...append, firstOrd: 2, leaseId: '999999' }])).toEqual(new Set());
    // The answer was lost: the same again, and what came since.
    expect(await appendChunks(opened.db, [append])).toEqual(new Set([task.id]));
    const more = { ...append, chunks: [...append.chunks, tokens(4, ['d'])], tokensOut: 4 };
    expect(await appendChunks(opened.db, [more])).toEqual(new Set([task.id]));
    expect(await appendChunks(opened.db, [append])).toEqual(new Set());
    const page = await readLog(opened.db, task.id, { afterOrd: -1, afterSeq: -1, limit: 10 });
    expect(page.map((chunk) => chunk.kind)).toEqual(['started', 'tokens', 'tokens']);
    expect(page[1]?.payload).toEqual(['a', '\u0000', '\ud800']);
    expect(await readLog(opened.db, task.id, { afterOrd: -1, afterSeq: 4, limit: 10 })).toEqual([]);
  });

  it('is closed for ever by finish: one ending, lease released, nothing after', async () => {
    await seedPool(opened.db);
    await submitTasks(opened.db, 'p', [newTask()], SUBMIT);
    const task = await claimOne();
    const endings = await Promise.all([
      finishTask(opened.db, finishOf(task, [ended(1)])),
      finishTask(opened.db, finishOf(task, [ended(1)])),
    ]);
    expect(endings.filter(Boolean)).toHaveLength(1);
    expect(await activeLeases(opened.db)).toEqual([]);
    const late = { taskId: task.id, leaseId: task.leaseId, firstOrd: 1, chunks: [tokens(1, ['x'])], tokensOut: 1 };
    expect(await appendChunks(opened.db, [late])).toEqual(new Set());
    expect(await requeueTask(opened.db, late, { delayMs: 0, reason: 'test' })).toBe(false);
    const row = await getTask(opened.db, task.id);
    expect(row).toMatchObject({ status: 'SUCCEEDED', chunks: 1 });
  });

  it('fences a holder whose task was given to somebody else', async () => {
    await seedPool(opened.db);
    await submitTasks(opened.db, 'p', [newTask()], SUBMIT);
    const old = await claimOne(0);
    await opened.query(`UPDATE leases SET expires_at = now() - interval '1 s'`);
    const [lost] = await lostTasks(opened.db, []);
    expect(lost?.id).toBe(old.id);
    const nothing = { taskId: old.id, leaseId: old.leaseId, firstOrd: 0, chunks: [], tokensOut: 0 };
    expect(await requeueTask(opened.db, nothing, { delayMs: 0, reason: 'expired' })).toBe(true);
    const fresh = await claimOne(1);
    expect(BigInt(fresh.leaseId)).toBeGreaterThan(BigInt(old.leaseId));
    expect(await finishTask(opened.db, finishOf(old, [ended(1)]))).toBe(false);
    expect(await finishTask(opened.db, finishOf(fresh, [ended(1)]))).toBe(true);
  });
});

describe('cancel and expiry', () => {
  it('ends a queued task exactly once, against a concurrent claim', async () => {
    await seedPool(opened.db);
    for (let round = 0; round < 20; round += 1) {
      await submitTasks(opened.db, 'p', [newTask()], SUBMIT);
      const [row] = await opened.query<{ id: string }>(`SELECT id FROM tasks WHERE status = 'QUEUED'`);
      const id = row?.id ?? '';
      const end = endQueuedTask(opened.db, {
        task: { id, chunks: 0 },
        status: 'CANCELED',
        terminal: ended(1),
        transcript: transcript(),
        error: null,
        finishReason: 'canceled',
      });
      const claim = claimTasks(opened.db, {
        poolId: 'p',
        holder: HOLDER,
        slots: [{ replicaId: 'p-0', slot: 0 }],
        ttlMs: TTL_MS,
        ageing: false,
        serves: SERVES,
      });
      const [canceled, claimed] = await Promise.all([end, claim]);
      expect(Number(canceled) + claimed.length).toBe(1);
      expect(await requestCancel(opened.db, id, 'client')).toBe(claimed.length === 1);
      for (const task of claimed) expect(await finishTask(opened.db, finishOf(task, [ended(1)]))).toBe(true);
      expect(
        (await readLog(opened.db, id, { afterOrd: -1, afterSeq: 99, limit: 10 })).map((chunk) => chunk.kind),
      ).toEqual(['end']);
    }
  });

  it('finds waiting tasks past their deadline', async () => {
    await seedPool(opened.db);
    const task = newTask({ deadlineMs: 1 });
    await submitTasks(opened.db, 'p', [task], SUBMIT);
    await expect.poll(async () => (await overdueQueuedTasks(opened.db)).map((row) => row.id)).toEqual([task.taskId]);
  });
});

describe('leases', () => {
  it('renews what is ours and not expired, nothing else', async () => {
    await seedPool(opened.db);
    await submitTasks(opened.db, 'p', [newTask(), newTask()], SUBMIT);
    const [a, b] = [await claimOne(0), await claimOne(1)];
    await opened.query(`UPDATE leases SET expires_at = now() - interval '1 s' WHERE id = $1`, [b.leaseId]);
    const renewal = { ids: [a.leaseId, b.leaseId, '424242'], holder: HOLDER, ttlMs: TTL_MS };
    expect(await renewLeases(opened.db, renewal)).toEqual(new Set([a.leaseId]));
    expect(await renewLeases(opened.db, { ...renewal, holder: randomUUID() })).toEqual(new Set());
  });

  it('releases expired leases whose task has ended, and leaves those of live tasks to recovery', async () => {
    await seedPool(opened.db);
    await submitTasks(opened.db, 'p', [newTask(), newTask()], SUBMIT);
    const [a] = [await claimOne(0), await claimOne(1)];
    expect(await finishTask(opened.db, { ...finishOf(a, [ended(1)]), releaseReason: null })).toBe(true);
    await releaseDeadLeases(opened.db, [HOLDER]);
    expect((await activeLeases(opened.db)).map((lease) => lease.slot)).toEqual([1]);
  });
});
