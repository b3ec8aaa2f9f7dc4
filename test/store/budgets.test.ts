/**
 * core/budget is the oracle, and the limit is never exceeded: whatever ends tasks, in whatever order and at the same time,
 * what they reserved is settled once.
 */
import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type Amounts,
  BUDGET_KINDS,
  type Budget,
  type BudgetLimits,
  costMicros,
  FRESH,
  NO_LIMITS,
  needOf,
  reserve,
  settle,
  shortOf,
  TIME_SLICE_MS,
} from '../../src/core/budget.js';
import { extendTime, setLimits } from '../../src/store/budgets.js';
import { claimTasks, type NewTask, type SubmitResult, submitTasks } from '../../src/store/queue.js';
import { expireSessions, getSession } from '../../src/store/sessions.js';
import { appendChunks, endQueuedTask, finishTask, getTask, type LogChunk, requeueTask } from '../../src/store/tasks.js';
import { openDatabase } from '../support/database.js';
import { LONG } from '../support/long.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

const PRICE = 2_500;
const LIMITS: BudgetLimits = { tokens: 200, timeMs: 12_000, costMicros: 450 };
const BEGIN = { ttlMs: 600_000, limits: NO_LIMITS };
const chunk: LogChunk = { kind: 'tokens', firstSeq: 1, lastSeq: 1, payload: ['x'], atMs: 0 };
const transcript = () => ({ id: `sha256:${randomUUID()}`, content: '{}' });
const ENDS = ['succeed', 'fail', 'cancel', 'cancel queued', 'expire'] as const;

let opened: Awaited<ReturnType<typeof openDatabase>>;
let slot = 0;

beforeAll(async () => {
  opened = await openDatabase();
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});
beforeEach(() => clear());

async function clear(pool: Parameters<typeof seedPool>[1] = {}): Promise<void> {
  await opened.query('UPDATE tasks SET lease_id = NULL');
  await opened.query('TRUNCATE stream_chunks, leases, tasks, sessions, session_evictions, artifacts CASCADE');
  await opened.query('UPDATE queue_lanes SET depth = 0');
  await seedPool(opened.db, { capacity: 1_000, ...pool });
  await seedPool(opened.db, { id: 'other', capacity: 1_000 });
}

function submit(tasks: readonly NewTask[], limits: BudgetLimits = LIMITS, poolId = 'p'): Promise<SubmitResult[]> {
  const sessions = { ...SUBMIT.sessions, limits };
  return submitTasks(opened.db, poolId, tasks, { ...SUBMIT, sessions, priceMicros: PRICE });
}

async function budgetNow(sessionId: string): Promise<Budget> {
  const session = await getSession(opened.db, sessionId);
  if (session === null) throw new Error('no session');
  return session.budget;
}

/** Takes every waiting task of a pool. */
function claimAll(poolId: string) {
  const slots = Array.from({ length: 40 }, () => {
    slot += 1;
    return { replicaId: `${poolId}-0`, slot };
  });
  return claimTasks(opened.db, { poolId, holder: randomUUID(), slots, ttlMs: 60_000, serves: SERVES, ageing: false });
}

/** Ends a task in that way where it can be; false: it ended in another one, or cannot end so. */
async function end(id: string, how: (typeof ENDS)[number], used: { tokens: number; ms: number }): Promise<boolean> {
  const { db } = opened;
  const row = await getTask(db, id);
  if (row === null) return false;
  const task = { id, chunks: row.chunks };
  const waiting = { task, terminal: chunk, transcript: transcript(), error: null, finishReason: how };
  if (how === 'expire') return endQueuedTask(db, { ...waiting, status: 'EXPIRED' });
  if (how === 'cancel queued') return endQueuedTask(db, { ...waiting, status: 'CANCELED' });
  if (row.leaseId === null) return false;
  const status = how === 'succeed' ? 'SUCCEEDED' : how === 'fail' ? 'FAILED' : 'CANCELED';
  return finishTask(db, {
    ...{ taskId: id, leaseId: row.leaseId, firstOrd: row.chunks, chunks: [chunk], transcript: transcript(), status },
    ...{ tokensOut: used.tokens, tokensIn: how === 'succeed' ? 9 : null, decodeMs: used.ms, error: null },
    ...{ finishReason: how, releaseReason: 'x' },
  });
}

/** What settle_budget() has to make of an end. */
function usedBy(task: NewTask, how: (typeof ENDS)[number], used: { tokens: number; ms: number }): Amounts {
  const ran = how === 'succeed' || how === 'fail' || how === 'cancel';
  if (!ran) return { tokens: 0, timeMs: 0, costMicros: 0 };
  const prompt = how === 'succeed' ? 9 : used.tokens > 0 ? task.promptTokens : 0;
  const tokens = prompt + used.tokens;
  return { tokens, timeMs: used.ms, costMicros: costMicros(tokens, PRICE) };
}

describe('one after another', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('submit' as const), maxTokens: fc.integer({ min: 1, max: 90 }), twice: fc.boolean() }),
    fc.record({ do: fc.constant('claim' as const) }),
    fc.record({ do: fc.constant('requeue' as const), pick: fc.nat(9) }),
    fc.record({
      ...{ do: fc.constant('end' as const), pick: fc.nat(9), how: fc.constantFrom(...ENDS) },
      used: fc.record({ tokens: fc.nat(120), ms: fc.nat(20_000) }),
    }),
  );

  it('tasks reserve and settle as core/budget says', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 14 }), async (steps) => {
        await clear();
        const sessionId = randomUUID();
        let budget: Budget = { limits: LIMITS, ...FRESH };
        const open: { task: NewTask; reserved: Amounts }[] = [];
        for (const one of steps) {
          if (one.do === 'submit') {
            const task = newTask({ sessionId, maxTokens: one.maxTokens, seed: 1n });
            const cost = { promptTokens: task.promptTokens, maxTokens: task.maxTokens, priceMicros: PRICE };
            const need = needOf(budget, cost);
            const short = shortOf(budget, need);
            const [result] = await submit([task]);
            expect([result?.outcome, result?.short ?? null]).toEqual([short === null ? 'admitted' : 'budget', short]);
            if (short === null) {
              budget = reserve(budget, need);
              open.push({ task, reserved: need });
              // Sent again, it is known, and reserves nothing.
              if (one.twice) expect((await submit([task]))[0]?.outcome).toBe('known');
            }
          } else if (one.do === 'claim') await claimAll('p');
          else if (one.do === 'requeue') {
            const id = open[one.pick % Math.max(1, open.length)]?.task.taskId;
            const row = id === undefined ? null : await getTask(opened.db, id);
            if (row === null || row.leaseId === null) continue;
            const append = { taskId: row.id, leaseId: row.leaseId, firstOrd: row.chunks, chunks: [], tokensOut: 0 };
            await requeueTask(opened.db, append, { delayMs: 0, reason: 'x' });
          } else {
            const at = one.pick % Math.max(1, open.length);
            const held = open[at];
            if (held === undefined || !(await end(held.task.taskId, one.how, one.used))) continue;
            expect(await end(held.task.taskId, one.how, one.used)).toBe(false);
            open.splice(at, 1);
            budget = settle(budget, held.reserved, usedBy(held.task, one.how, one.used));
          }
          if (open.length > 0 || budget.spent.tokens > 0) expect(await budgetNow(sessionId)).toEqual(budget);
        }
      }),
      { numRuns: LONG ? 60 : 8 },
    );
  });
});

describe('at the same time', () => {
  it('submissions, ends and slices of two pools never take more than there is, and leave nothing reserved', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...ENDS), { minLength: 12, maxLength: 12 }), async (ways) => {
        await clear();
        const sessionId = randomUUID();
        const tasks = Array.from({ length: 12 }, (_, n) => newTask({ sessionId, maxTokens: 5 + n }));
        let over = false;
        const watching = watch(sessionId, () => over);
        const flows = tasks.map(async (task, n) => {
          const poolId = n % 2 === 0 ? 'p' : 'other';
          await submit([task], LIMITS, poolId);
          const claimed = n % 3 === 0 ? await claimAll(poolId) : [];
          for (const { id, leaseId } of claimed) {
            await extendTime(opened.db, { id, leaseId }, TIME_SLICE_MS);
            await appendChunks(opened.db, [{ taskId: id, leaseId, firstOrd: 0, chunks: [chunk], tokensOut: 1 }]);
          }
          // Two ways at once: one of them wins.
          const used = { tokens: n, ms: 900 * n };
          await Promise.all([end(task.taskId, ways[n] ?? 'cancel', used), end(task.taskId, 'cancel queued', used)]);
        });
        try {
          await Promise.all(flows);
          for (const task of tasks) {
            for (const how of ['cancel queued', 'fail'] as const) await end(task.taskId, how, { tokens: 1, ms: 1 });
          }
        } finally {
          over = true;
          await watching;
        }
        const budget = await budgetNow(sessionId);
        expect(budget.reserved).toEqual({ tokens: 0, timeMs: 0, costMicros: 0 });
        const [sum] = await opened.query<{ tokens: number; n: number }>(
          `SELECT count(*)::int AS n, coalesce(sum(least(budget_tokens, tokens_out + CASE
             WHEN tokens_in IS NOT NULL THEN tokens_in WHEN first_token_at IS NOT NULL THEN budget_prompt_tokens ELSE 0 END
           )), 0)::int AS tokens FROM tasks WHERE ended_at IS NOT NULL`,
        );
        expect(budget.spent.tokens).toBe(sum?.tokens);
        expect(sum?.n).toBeGreaterThan(0);
      }),
      { numRuns: LONG ? 40 : 4 },
    );
  });

  /** From another connection, for as long as it lasts. */
  async function watch(sessionId: string, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const session = await getSession(opened.db, sessionId);
      if (session === null) continue;
      const { limits, spent, reserved } = session.budget;
      for (const kind of BUDGET_KINDS) {
        expect(spent[kind] + reserved[kind]).toBeLessThanOrEqual(limits[kind] ?? 0);
        expect(Math.min(spent[kind], reserved[kind])).toBeGreaterThanOrEqual(0);
      }
    }
  }

  it('displacing gives back what the displaced had reserved, in whichever session, and nobody waits for ever', async () => {
    await clear({ capacity: 3, policy: 'drop-lru' });
    await seedPool(opened.db, { id: 'other', capacity: 3, policy: 'drop-lru' });
    const sessions = [randomUUID(), randomUUID()];
    const offers = Array.from({ length: 40 }, (_, n) => {
      const task = newTask({ sessionId: sessions[n % 2] ?? '', maxTokens: 7 });
      return submit([task], { tokens: 100_000, timeMs: null, costMicros: null }, n % 4 < 2 ? 'p' : 'other');
    });
    const outcomes = (await Promise.all(offers)).flat().map(({ outcome }) => outcome);
    expect(new Set(outcomes).has('admitted')).toBe(true);
    for (const sessionId of sessions) {
      const [waiting] = await opened.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM tasks WHERE status = 'QUEUED' AND session_id = $1`,
        [sessionId],
      );
      expect((await budgetNow(sessionId)).reserved.tokens).toBe((waiting?.n ?? 0) * 20);
      expect((await budgetNow(sessionId)).spent.tokens).toBe(0);
    }
  });
});

describe('a session', () => {
  it('refuses a turn too many, and counts none that was refused', async () => {
    const sessionId = randomUUID();
    const rules = { ...SUBMIT, sessions: { ...SUBMIT.sessions, maxTurns: 3 } };
    const tasks = Array.from({ length: 5 }, () => newTask({ sessionId }));
    const results = await submitTasks(opened.db, 'p', tasks, rules);
    expect(results.map(({ outcome }) => outcome)).toEqual(['admitted', 'admitted', 'admitted', 'turns', 'turns']);
    expect((await getSession(opened.db, sessionId))?.turns).toBe(3);
    expect((await submitTasks(opened.db, 'p', tasks.slice(0, 1), rules))[0]?.outcome).toBe('known');
  });

  it('begins anew after it has expired, and tasks of its first life are not charged to the second', async () => {
    const sessionId = randomUUID();
    const [first, second] = [newTask({ sessionId }), newTask({ sessionId })];
    await submit([first]);
    await opened.query(`UPDATE sessions SET expires_at = now() - interval '1 s', turns = 7`);
    await submit([second]);
    await claimAll('p');
    expect(await end(first.taskId, 'succeed', { tokens: 16, ms: 10 })).toBe(true);
    expect(await getSession(opened.db, sessionId)).toMatchObject({
      turns: 1,
      budget: { spent: { tokens: 0 }, reserved: { tokens: 29 } },
    });
    await opened.query(`UPDATE sessions SET expires_at = now() - interval '1 s'`);
    expect(await expireSessions(opened.db, 10)).toBe(1);
    expect(await end(second.taskId, 'succeed', { tokens: 16, ms: 10 })).toBe(true);
  });

  it('is limited while its tasks run, but not below what they have reserved; null takes a limit away', async () => {
    const sessionId = randomUUID();
    await submit([newTask({ sessionId })]);
    expect(await setLimits(opened.db, sessionId, { tokens: 28 }, BEGIN)).toBe(false);
    expect(await setLimits(opened.db, sessionId, { tokens: 29, costMicros: null }, BEGIN)).toBe(true);
    expect((await budgetNow(sessionId)).limits).toEqual({ tokens: 29, timeMs: 12_000, costMicros: null });
    expect((await submit([newTask({ sessionId })]))[0]).toMatchObject({
      outcome: 'budget',
      short: { kind: 'tokens', limit: 29, spent: 0, reserved: 29, need: 29 },
    });
    const fresh = randomUUID();
    expect(await setLimits(opened.db, fresh, { timeMs: 5 }, { ...BEGIN, limits: LIMITS })).toBe(true);
    expect(await getSession(opened.db, fresh)).toMatchObject({
      turns: 0,
      budget: { limits: { ...LIMITS, timeMs: 5 } },
    });
  });
});
