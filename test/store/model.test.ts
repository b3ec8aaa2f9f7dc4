/** core/task is the oracle: whatever is commanded, in whatever order, SQL does what the table says and nothing else. */
import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nextStatus, type TaskCommand, type TaskStatus } from '../../src/core/task.js';
import { claimTasks, submitTasks } from '../../src/store/queue.js';
import { appendChunks, endQueuedTask, finishTask, getTask, type LogChunk, requeueTask } from '../../src/store/tasks.js';
import { openDatabase } from '../support/database.js';
import { LONG } from '../support/long.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

const COMMANDS: TaskCommand[] = ['claim', 'stream', 'end', 'fail', 'cancel', 'requeue', 'drop', 'expire'];
const HOLDER = randomUUID();
const chunk: LogChunk = { kind: 'tokens', firstSeq: 1, lastSeq: 1, payload: ['x'], atMs: 0 };

let opened: Awaited<ReturnType<typeof openDatabase>>;

beforeAll(async () => {
  opened = await openDatabase();
  await seedPool(opened.db);
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});

/** Tries a command on the one task in the database; tells whether anything was written. */
async function command(id: string, leaseId: string, name: TaskCommand): Promise<{ done: boolean; leaseId: string }> {
  const { db } = opened;
  const row = await getTask(db, id);
  const firstOrd = row?.chunks ?? 0;
  const append = { taskId: id, leaseId, firstOrd, chunks: [chunk], tokensOut: 1 };
  const ending = { tokensIn: 1, decodeMs: 1, finishReason: 'x', error: null, releaseReason: 'x' };
  const transcript = { id: `sha256:${randomUUID()}`, content: '{}' };
  const finish = (status: 'SUCCEEDED' | 'FAILED' | 'CANCELED') =>
    finishTask(db, { ...append, ...ending, status, transcript });
  const endQueued = (status: 'CANCELED' | 'DROPPED' | 'EXPIRED') =>
    endQueuedTask(db, {
      task: { id, chunks: firstOrd },
      status,
      terminal: chunk,
      transcript,
      error: null,
      finishReason: 'x',
    });
  switch (name) {
    case 'claim': {
      const slots = [{ replicaId: 'p-0', slot: 0 }];
      const [claimed] = await claimTasks(db, {
        poolId: 'p',
        holder: HOLDER,
        slots,
        ttlMs: 60_000,
        ageing: false,
        serves: SERVES,
      });
      return { done: claimed !== undefined, leaseId: claimed?.leaseId ?? leaseId };
    }
    case 'stream':
      return { done: (await appendChunks(db, [append])).has(id), leaseId };
    case 'end':
      return { done: await finish('SUCCEEDED'), leaseId };
    case 'fail':
      return { done: await finish('FAILED'), leaseId };
    case 'cancel':
      return { done: (await endQueued('CANCELED')) || (await finish('CANCELED')), leaseId };
    case 'requeue':
      return { done: await requeueTask(db, append, { delayMs: 0, reason: 'x' }), leaseId };
    case 'drop':
      return { done: await endQueued('DROPPED'), leaseId };
    case 'expire':
      return { done: await endQueued('EXPIRED'), leaseId };
  }
}

describe('tasks in SQL', () => {
  it('follow the table of core/task', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...COMMANDS), { maxLength: 12 }), async (commands) => {
        await opened.query('UPDATE tasks SET lease_id = NULL');
        await opened.query('TRUNCATE stream_chunks, leases, tasks CASCADE');
        await opened.query('UPDATE queue_lanes SET depth = 0');
        const task = newTask();
        await submitTasks(opened.db, 'p', [task], SUBMIT);
        let status: TaskStatus = 'QUEUED';
        let leaseId = '0';
        for (const name of commands) {
          const want = nextStatus(status, name);
          const { done, leaseId: held } = await command(task.taskId, leaseId, name);
          expect(done, `${name} in ${status}`).toBe(want !== null);
          status = want ?? status;
          leaseId = held;
          expect((await getTask(opened.db, task.taskId))?.status).toBe(status);
        }
        const [lane] = await opened.query<{ n: number }>('SELECT sum(depth)::int AS n FROM queue_lanes');
        expect(lane?.n).toBe(status === 'QUEUED' ? 1 : 0);
        const open = await opened.query<{ n: number }>(
          'SELECT count(*)::int AS n FROM leases WHERE released_at IS NULL',
        );
        expect(open[0]?.n).toBe(status === 'LEASED' || status === 'STREAMING' ? 1 : 0);
      }),
      { numRuns: LONG ? 120 : 8 },
    );
  });
});
