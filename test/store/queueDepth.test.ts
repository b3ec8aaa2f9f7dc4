/** What a longer queue costs those who join it and those who serve it, counted in rows that PostgreSQL looked at. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { claimTasks, submitTasks } from '../../src/store/queue.js';
import { openDatabase } from '../support/database.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

const SHALLOW = 20;
const DEEP = 2_000;
/** Far below what waits: pages of an index that grew, and rows that changed, cost a few more. */
const SLACK = 100;

let opened: Awaited<ReturnType<typeof openDatabase>>;

beforeAll(async () => {
  opened = await openDatabase();
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});

/** Rows and entries of indexes that all tables were asked for, as far as connections have told. */
const READ = `SELECT (SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables)
  + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes) AS rows`;

async function rowsRead(): Promise<number> {
  // One connection of each kind is in use here, since nothing is asked at the same time.
  for (const ask of [opened.db.query.bind(opened.db), opened.db.relaxedQuery.bind(opened.db)]) {
    await ask({ name: 'tell', text: 'SELECT pg_stat_force_next_flush()' }, []);
  }
  const [found] = await opened.query<{ rows: string }>(READ);
  return Number(found?.rows);
}

async function costOf(work: () => Promise<unknown>): Promise<number> {
  const before = await rowsRead();
  await work();
  return (await rowsRead()) - before;
}

function submit(count: number) {
  const tasks = Array.from({ length: count }, (_, n) => newTask({ priority: n % 2 === 0 ? 'interactive' : 'batch' }));
  return submitTasks(opened.db, 'p', tasks, SUBMIT);
}

let slot = 0;

async function claimOne(): Promise<void> {
  slot += 1;
  const slots = [{ replicaId: 'p-0', slot }];
  const claim = { poolId: 'p', holder: randomUUID(), slots, ttlMs: 60_000, ageing: false, serves: SERVES };
  expect(await claimTasks(opened.db, claim)).toHaveLength(1);
}

it('admission and claim touch as few rows behind 2 000 waiting tasks as behind 20', async () => {
  await seedPool(opened.db, { capacity: 2 * DEEP, slots: 100 });
  await submit(SHALLOW);
  // What a connection does for the first time, it also looks up.
  await claimOne();
  const shallow = { admission: await costOf(() => submit(1)), claim: await costOf(claimOne) };
  for (let waiting = SHALLOW; waiting < DEEP; waiting += 220) await submit(220);
  await opened.query('ANALYZE');
  const deep = { admission: await costOf(() => submit(1)), claim: await costOf(claimOne) };
  expect(shallow.admission).toBeGreaterThan(0);
  expect(shallow.claim).toBeGreaterThan(0);
  expect(deep.admission).toBeLessThanOrEqual(shallow.admission + SLACK);
  expect(deep.claim).toBeLessThanOrEqual(shallow.claim + SLACK);
});
