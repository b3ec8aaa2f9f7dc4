/** The last write of a log, while the one before it is in flight. */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { StreamLog } from '../../src/services/streams/log.js';
import { type Recording, StreamRecorder } from '../../src/services/streams/recorder.js';
import { claimTasks, submitTasks } from '../../src/store/queue.js';
import type { ClaimedTask } from '../../src/store/tasks.js';
import { openDatabase } from '../support/database.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

let opened: Awaited<ReturnType<typeof openDatabase>>;
beforeAll(async () => {
  opened = await openDatabase();
  await seedPool(opened.db);
});
afterAll(() => opened[Symbol.asyncDispose]());

async function claimed(slot: number): Promise<ClaimedTask> {
  await submitTasks(opened.db, 'p', [newTask()], SUBMIT);
  const slots = [{ replicaId: 'p-0', slot }];
  const holder = '00000000-0000-4000-8000-000000000001';
  const [task] = await claimTasks(opened.db, {
    poolId: 'p',
    holder,
    slots,
    ageing: false,
    ttlMs: 60_000,
    serves: SERVES,
  });
  if (task === undefined) throw new Error('nothing was claimed');
  return task;
}

/** Keeps writes to a task waiting. @returns what lets them go on. */
async function holdRow(taskId: string): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: opened.url });
  await client.connect();
  await client.query('BEGIN');
  await client.query('SELECT 1 FROM tasks WHERE id = $1 FOR UPDATE', [taskId]);
  return async () => {
    await client.query('COMMIT');
    await client.end();
  };
}

/** A sealed log with one token in a write that waits, and one that is in none. */
async function inFlight(slot: number) {
  const task = await claimed(slot);
  const letGo = await holdRow(task.id);
  const recorder = new StreamRecorder(opened.db, (error) => {
    throw error;
  });
  const log = new StreamLog(task.id);
  const recording: Recording = { log, leaseId: task.leaseId, nextOrd: 0, onFenced: () => log.abandon() };
  log.append(['a'], 1);
  recorder.touch(recording);
  await expect.poll(() => log.hasUnwritten, { interval: 1 }).toBe(false);
  log.append(['b'], 2);
  log.seal();
  return { log, letGo, recording, recorder };
}

it('hands over what the write in flight does not hold', async () => {
  const { letGo, recording, recorder } = await inFlight(0);
  const rest = recorder.release(recording);
  await letGo();
  expect(await rest).toMatchObject({ firstOrd: 1, tokensOut: 2, chunks: [{ kind: 'tokens', payload: ['b'] }] });
  await recorder.stop();
});

it('hands over nothing of a log that was abandoned while it waited', async () => {
  const { log, letGo, recording, recorder } = await inFlight(1);
  const rest = recorder.release(recording);
  log.abandon();
  await letGo();
  expect(await rest).toBeNull();
  await recorder.stop();
});
