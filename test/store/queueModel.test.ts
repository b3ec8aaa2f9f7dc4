/** core/queue is the oracle: whatever comes, in whatever order, the SQL admits, displaces and serves whom TaskQueue says. */
import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type FullPolicy, OVERDUE_AFTER_MS, type QueueBounds, TaskQueue, type Waiting } from '../../src/core/queue.js';
import type { Priority } from '../../src/core/task.js';
import { claimTasks, submitTasks } from '../../src/store/queue.js';
import { endQueuedTask, finishTask, type LogChunk, requeueTask } from '../../src/store/tasks.js';
import { openDatabase } from '../support/database.js';
import { LONG } from '../support/long.js';
import { newTask, SERVES, SUBMIT, seedPool } from '../support/tasks.js';

type Command =
  | { readonly do: 'offer'; readonly priorities: readonly Priority[] }
  | { readonly do: 'grant'; readonly slots: number }
  | { readonly do: 'cancel' | 'requeue' | 'finish'; readonly pick: number }
  | { readonly do: 'age' };

const priority = fc.constantFrom<Priority>('interactive', 'batch');
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('offer'), priorities: fc.array(priority, { minLength: 1, maxLength: 6 }) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('grant'), slots: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('cancel', 'requeue', 'finish'), pick: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('age') }) },
);
const bounds: fc.Arbitrary<QueueBounds> = fc
  .record({
    total: fc.integer({ min: 1, max: 6 }),
    interactive: fc.integer({ min: 1, max: 6 }),
    batch: fc.integer({ min: 1, max: 6 }),
  })
  .map(({ total, interactive, batch }) => ({
    total,
    interactive: Math.min(total, interactive),
    batch: Math.min(total, batch),
  }));
const policy = fc.constantFrom<FullPolicy>('reject', 'drop-lru', 'shed-low-priority');

const chunk: LogChunk = { kind: 'end', firstSeq: 1, lastSeq: 1, payload: {}, atMs: 0 };
const transcript = () => ({ id: `sha256:${randomUUID()}`, content: '{}' });

let opened: Awaited<ReturnType<typeof openDatabase>>;

beforeAll(async () => {
  opened = await openDatabase();
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});

interface Held extends Waiting {
  readonly priority: Priority;
  readonly leaseId: string;
  readonly chunks: number;
}

/** The queue twice, as rule and as rows, driven by the same commands. */
class Twins {
  readonly rule: TaskQueue;
  readonly waiting = new Map<string, Priority>();
  readonly held: Held[] = [];
  readonly displaced: string[] = [];
  #nowMs = 0;
  #slot = 0;

  constructor(limits: QueueBounds, full: FullPolicy) {
    this.rule = new TaskQueue(limits, full);
  }

  async run(step: Command): Promise<void> {
    switch (step.do) {
      case 'offer':
        return this.#offer(step.priorities);
      case 'grant':
        return this.#grant(step.slots);
      case 'cancel':
        return this.#cancel([...this.waiting.keys()][step.pick % Math.max(1, this.waiting.size)]);
      case 'requeue':
      case 'finish':
        return this.#release(this.held.splice(step.pick % Math.max(1, this.held.length), 1)[0], step.do);
      case 'age':
        this.#nowMs += OVERDUE_AFTER_MS;
        await opened.query(`UPDATE tasks SET created_at = created_at - $1 * interval '1 ms'`, [OVERDUE_AFTER_MS]);
    }
  }

  async #offer(priorities: readonly Priority[]): Promise<void> {
    const tasks = priorities.map((one) => newTask({ priority: one }));
    const results = await submitTasks(opened.db, 'p', tasks, SUBMIT);
    const got = results.map(({ outcome, queuePosition, displaced }) =>
      outcome === 'admitted' ? { outcome, position: queuePosition, displaced: displaced?.taskId ?? null } : { outcome },
    );
    const want = tasks.map((task) => this.rule.offer(task.taskId, task.priority, this.#nowMs));
    expect(got).toEqual(want);
    for (const [index, offer] of want.entries()) {
      const task = tasks[index];
      if (offer.outcome !== 'admitted' || task === undefined) continue;
      this.waiting.set(task.taskId, task.priority);
      if (offer.displaced === null) continue;
      this.waiting.delete(offer.displaced);
      this.displaced.push(offer.displaced);
    }
  }

  async #grant(count: number): Promise<void> {
    const slots = Array.from({ length: count }, (_, index) => ({ replicaId: 'p-0', slot: this.#slot + index }));
    this.#slot += count;
    const holder = randomUUID();
    const claimed = await claimTasks(opened.db, {
      poolId: 'p',
      holder,
      slots,
      ttlMs: 60_000,
      ageing: true,
      serves: SERVES,
    });
    claimed.sort((a, b) => a.slot - b.slot);
    const want = slots.flatMap(() => this.rule.grant(this.#nowMs) ?? []);
    expect(claimed.map((task) => task.id)).toEqual(want.map((task) => task.id));
    for (const [index, task] of claimed.entries()) {
      const granted = want[index];
      if (granted !== undefined)
        this.held.push({ ...granted, priority: task.priority, leaseId: task.leaseId, chunks: task.chunks });
      this.waiting.delete(task.id);
    }
  }

  async #cancel(id: string | undefined): Promise<void> {
    if (id === undefined) return;
    // The log of one that came back has as many chunks as it had.
    const [row] = await opened.query<{ chunks: number }>('SELECT chunks FROM tasks WHERE id = $1', [id]);
    const end = {
      status: 'CANCELED' as const,
      terminal: chunk,
      transcript: transcript(),
      error: null,
      finishReason: 'x',
    };
    const cancel = () => endQueuedTask(opened.db, { task: { id, chunks: row?.chunks ?? 0 }, ...end });
    expect([await cancel(), await cancel()]).toEqual([this.rule.remove(id), this.rule.remove(id)]);
    this.waiting.delete(id);
  }

  async #release(task: Held | undefined, how: 'requeue' | 'finish'): Promise<void> {
    if (task === undefined) return;
    const append = { taskId: task.id, leaseId: task.leaseId, firstOrd: task.chunks, chunks: [chunk], tokensOut: 0 };
    if (how === 'requeue') {
      expect(await requeueTask(opened.db, append, { delayMs: 0, reason: 'x' })).toBe(true);
      this.rule.requeue(task, task.priority);
      this.waiting.set(task.id, task.priority);
    } else {
      const ending = { tokensIn: 1, decodeMs: 1, finishReason: 'x', error: null, releaseReason: 'x' };
      expect(await finishTask(opened.db, { ...append, ...ending, status: 'SUCCEEDED', transcript: transcript() })).toBe(
        true,
      );
    }
  }

  async check(): Promise<void> {
    const lanes = await opened.query<{ priority: Priority; depth: number }>(
      'SELECT priority, depth FROM queue_lanes ORDER BY priority',
    );
    expect(lanes.map((lane) => lane.depth)).toEqual([this.rule.depth('interactive'), this.rule.depth('batch')]);
    const rows = await opened.query<{ id: string }>(`SELECT id FROM tasks WHERE status = 'QUEUED'`);
    expect(rows.map((row) => row.id).sort()).toEqual([...this.waiting.keys()].sort());
  }

  /** Every displaced task, and no other, is DROPPED with a terminal event of its own and a transcript. */
  async checkDisplaced(): Promise<void> {
    const rows = await opened.query<{ id: string; told: boolean }>(
      `SELECT t.id, t.chunks = 1 AND t.lease_id IS NULL AND c.kind = 'error' AND c.ord = 0 AND c.last_seq = 1
              AND c.payload->'error'->>'code' = 'QUEUE_FULL_DROP_LRU' AND t.error->>'code' = 'QUEUE_FULL_DROP_LRU'
              AND a.id = 'sha256:' || encode(sha256(convert_to(a.content::text, 'UTF8')), 'hex') AS told
       FROM tasks t LEFT JOIN stream_chunks c ON c.task_id = t.id LEFT JOIN artifacts a ON a.id = t.transcript_id
       WHERE t.status = 'DROPPED'`,
    );
    expect(rows.map((row) => row.id).sort()).toEqual([...this.displaced].sort());
    expect(rows.filter((row) => !row.told)).toEqual([]);
  }
}

async function compare(full: FullPolicy, limits: QueueBounds, commands: readonly Command[]): Promise<void> {
  await opened.query('UPDATE tasks SET lease_id = NULL');
  await opened.query('TRUNCATE stream_chunks, leases, tasks, sessions, artifacts, queue_lanes CASCADE');
  await seedPool(opened.db, { policy: full, capacity: limits.total, lanes: limits });
  const twins = new Twins(limits, full);
  for (const step of commands) {
    await twins.run(step);
    await twins.check();
  }
  await twins.checkDisplaced();
}

describe('the queue in SQL', () => {
  it('admits, displaces and serves as core/queue does', async () => {
    const commands = fc.array(command, { maxLength: 14 });
    await fc.assert(fc.asyncProperty(policy, bounds, commands, compare), { numRuns: LONG ? 120 : 8 });
  }, 120_000);

  it('gives overdue batch tasks their turns as core/queue does, however many slots are offered at once', async () => {
    const roomy = { total: 100, interactive: 100, batch: 100 };
    const some = (one: Priority) => fc.array(fc.constant(one), { minLength: 1, maxLength: 8 });
    const crowd = fc.record({ do: fc.constant('offer' as const), priorities: some('interactive') });
    const late = fc.record({ do: fc.constant('offer' as const), priorities: some('batch') });
    const contest = fc
      .tuple(some('batch'), fc.array(fc.oneof({ weight: 6, arbitrary: command }, crowd, late), { maxLength: 10 }))
      .map(([priorities, rest]): Command[] => [{ do: 'offer', priorities }, { do: 'age' }, ...rest]);
    await fc.assert(fc.asyncProperty(policy, fc.constant(roomy), contest, compare), { numRuns: LONG ? 120 : 8 });
  }, 120_000);
});
