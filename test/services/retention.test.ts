import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { retentionBounds } from '../../src/config/catalogSchema.js';
import { parseConfig } from '../../src/config/load.js';
import type { Retained } from '../../src/core/retention.js';
import { systemClock } from '../../src/runtime/clock.js';
import { ReaderPresence } from '../../src/services/readers/presence.js';
import { Retention } from '../../src/services/retention.js';
import { StreamHub } from '../../src/services/streams/hub.js';
import { insertArtifact } from '../../src/store/artifacts.js';
import { submitTasks } from '../../src/store/queue.js';
import { prune } from '../../src/store/retention.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createLogger } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { openDatabase } from '../support/database.js';
import { newTask, SUBMIT, seedPool } from '../support/tasks.js';
import { simConfig } from '../support/world.js';

type Opened = Awaited<ReturnType<typeof openDatabase>>;
const SOON = { timeout: 20_000, interval: 20 };
let opened: Opened;
let metrics: ReturnType<typeof createMetrics>;
let inUse: string[] = [];

beforeAll(async () => {
  opened = await openDatabase();
  await seedPool(opened.db, { capacity: 1000 });
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});

/** Runs retention with this section of the configuration until `done` says so, twice at the same time. */
async function forget(section: string, done: () => Promise<void>): Promise<void> {
  const config = parseConfig(`${simConfig()}\nretention: { every_ms: 100, ${section} }\n`, 'test.yaml');
  metrics = createMetrics();
  const lines: string[] = [];
  const telemetry = new Telemetry(createLogger({ write: (line: string) => void lines.push(line) }), metrics);
  const runs = [1, 2].map(
    () =>
      new Retention({
        ...{ db: opened.db, clock: systemClock, telemetry, everyMs: config.retention.every_ms },
        ...{ bounds: retentionBounds(config.retention), tasksInUse: () => inUse },
      }),
  );
  for (const run of runs) run.start();
  try {
    await done();
  } finally {
    await Promise.all(runs.map((run) => run.stop()));
  }
  expect(lines.filter((line) => line.includes('background'))).toEqual([]);
}

async function removed(kind: Retained): Promise<number> {
  const { values } = await metrics.retentionRemoved.get();
  return values.find(({ labels }) => labels.kind === kind)?.value ?? 0;
}

/** A task that ended so many days ago, with all that it leaves behind. */
async function endedTask(daysAgo: number, status = 'SUCCEEDED'): Promise<string> {
  const { taskId } = newTask();
  await submitTasks(opened.db, 'p', [newTask({ taskId, sessionId: taskId })], SUBMIT);
  const transcript = `sha256:${taskId}`;
  const at = `now() - interval '${daysAgo} days'`;
  await opened.query(
    `INSERT INTO artifacts (id, kind, content, tags, created_at) VALUES ($1, 'trace', '{}', '{}', ${at})`,
    [transcript],
  );
  await opened.query(
    `WITH lease AS (INSERT INTO leases (task_id, replica_id, slot, holder, expires_at, released_at)
       VALUES ($1, 'p-0', 0, $3, ${at}, ${at}), ($1, 'p-0', 0, $3, ${at}, ${at}) RETURNING id)
     UPDATE tasks SET status = $2::task_status, ended_at = CASE WHEN $2 = 'STREAMING' THEN NULL ELSE ${at} END,
       transcript_id = $4, lease_id = (SELECT max(id) FROM lease) WHERE id = $1`,
    [taskId, status, randomUUID(), transcript],
  );
  await opened.query(
    `INSERT INTO stream_chunks (task_id, ord, kind, first_seq, last_seq, payload, at) VALUES ($1, 0, 'started', 0, 0, '{}', now())`,
    [taskId],
  );
  await opened.query(
    `INSERT INTO quote_grades (task_id, pool_id, priority, basis, sample_count, p50_ms, p90_ms, actual_ms)
     VALUES ($1, 'p', 'interactive', 'b', 1, 1, 1, 1)`,
    [taskId],
  );
  return taskId;
}

async function ids(table: string, key = 'id'): Promise<string[]> {
  return (await opened.query<{ key: string }>(`SELECT ${key}::text AS key FROM ${table}`)).map((row) => row.key);
}

async function clear(): Promise<void> {
  for (const table of ['task_verifications', 'leases', 'tasks']) await opened.query(`DELETE FROM ${table}`);
}

describe('retention', () => {
  it('removes old tasks with all that is theirs, and keeps what somebody needs', async () => {
    const [old, young, running, read, checked] = [
      await endedTask(40),
      await endedTask(1),
      await endedTask(40, 'STREAMING'),
      await endedTask(40),
      await endedTask(40),
    ];
    const verdict = (taskId: string, result: string | null) =>
      opened.query(`INSERT INTO task_verifications (id, task_id, verdict) VALUES ($1, $2, $3::verification_verdict)`, [
        ...[randomUUID(), taskId, result],
      ]);
    await verdict(old, 'IDENTICAL');
    await verdict(checked, null);
    inUse = [read];
    const left = [young, running, read, checked].sort();
    await forget('tasks: { days: 30 }, leases: { days: 0 }, artifacts: { days: 0 }', async () => {
      await expect.poll(async () => (await ids('tasks')).sort(), SOON).toEqual(left);
    });
    for (const [table, key] of [
      ['stream_chunks', 'task_id'],
      ['quote_grades', 'task_id'],
    ] as const) {
      expect((await ids(table, key)).sort()).toEqual(left);
    }
    expect(new Set(await ids('leases', 'task_id'))).toEqual(new Set(left));
    expect(await removed('tasks')).toBe(1);
    expect(await ids('artifacts')).toContain(`sha256:${old}`);

    // What a task names stays with it; what none names any more goes; of leases the last one stays.
    inUse = [];
    await opened.query(`UPDATE task_verifications SET verdict = 'IDENTICAL'`);
    await forget('tasks: { days: 60 }, leases: { days: 30 }, artifacts: { days: 30 }', async () => {
      await expect
        .poll(async () => (await ids('artifacts')).sort(), SOON)
        .toEqual(left.map((id) => `sha256:${id}`).sort());
      await expect.poll(() => removed('leases'), SOON).toBe(3);
    });
    expect(new Set(await ids('leases', 'task_id'))).toEqual(new Set(left));
  });

  it('keeps so many, or so many bytes, of the newest, and nothing young goes', async () => {
    await clear();
    await opened.query('DELETE FROM artifacts');
    const insert = (n: number, ago: string, parent: number | null) =>
      opened.query(
        `INSERT INTO artifacts (id, kind, content, tags, parent, created_at)
         VALUES ($1, 'other', $2, '{}', $3, now() - interval '${ago}')`,
        [`a${n}`, JSON.stringify({ text: 'x'.repeat(988) }), parent === null ? null : `a${parent}`],
      );
    for (let n = 0; n < 10; n += 1) await insert(n, `${20 - n} hours`, n === 5 ? 1 : null);
    await forget('artifacts: { days: 0, max_count: 7 }', async () => {
      await expect.poll(() => removed('artifacts'), SOON).toBe(2);
    });
    // The parent of one that stays, stays.
    expect((await ids('artifacts')).sort()).toEqual(['a1', 'a3', 'a4', 'a5', 'a6', 'a7', 'a8', 'a9']);
    await forget('artifacts: { days: 0, max_count: 0, max_bytes: 3000 }', async () => {
      await expect.poll(async () => (await ids('artifacts')).sort(), SOON).toEqual(['a7', 'a8', 'a9']);
    });
    await opened.query(`UPDATE artifacts SET created_at = now() - interval '10 minutes'`);
    await insert(11, '2 hours', null);
    await forget('artifacts: { days: 0, max_count: 1 }', async () => {
      await expect.poll(async () => (await ids('artifacts')).sort(), SOON).toEqual(['a7', 'a8', 'a9']);
    });
    // What somebody has written once more is as young as if it were new.
    await opened.query(`UPDATE artifacts SET created_at = now() - interval '2 hours'`);
    const again = {
      id: 'a8',
      digest: 'a8',
      kind: 'other' as const,
      content: '{}',
      metadata: null,
      tags: [],
      parent: null,
    };
    expect(await insertArtifact(opened.db, again)).toMatchObject({ id: 'a8' });
    await forget('artifacts: { days: 0.05, max_count: 0 }', async () => {
      await expect.poll(async () => ids('artifacts'), SOON).toEqual(['a8']);
    });
  });

  it('ends the readers of a task that it removes', async () => {
    const fail = (name: string, error: unknown) => expect.fail(`${name}: ${error}`);
    const presence = new ReaderPresence({ db: opened.db, nodeId: randomUUID(), onError: fail });
    const hub = new StreamHub({ db: opened.db, presence, onChange: () => {}, onError: fail });
    const task = newTask();
    await submitTasks(opened.db, 'p', [task], SUBMIT);
    hub.start();
    try {
      const reader = await hub.open(task.taskId, -1);
      const end = reader.next();
      await opened.query('DELETE FROM tasks WHERE id = $1', [task.taskId]);
      expect(await end).toBeNull();
      expect(hub.readerCount).toBe(0);
    } finally {
      await hub.stop();
    }
  });

  it('removes old events, grades and crashes', async () => {
    await clear();
    const task = await endedTask(0);
    await opened.query(`UPDATE quote_grades SET at = now() - interval '50 days' WHERE task_id = $1`, [task]);
    for (const [n, days] of [50, 50, 0].entries()) {
      const at = `now() - interval '${days} days'`;
      await opened.query(
        `INSERT INTO pool_events (seq, pool_id, kind, message, at) VALUES ($1, 'p', 'k', 'm', ${at})`,
        [n + 1],
      );
      await opened.query(
        `INSERT INTO crash_records (id, pool_id, replica_id, at, model_ref, fault, message, last_lines, flag_changes, ran_for_ms)
         VALUES ($1, 'p', 'p-0', ${at}, 'm', 'f', 'm', '[]', '[]', 1)`,
        [randomUUID()],
      );
    }
    const kinds = ['pool_events', 'quote_grades', 'crash_records'] as const;
    const section = kinds.map((kind) => `${kind}: { days: 30 }`).join(', ');
    await forget(section, async () => {
      await expect.poll(() => Promise.all(kinds.map(removed)), SOON).toEqual([2, 1, 2]);
    });
    expect(await ids('pool_events', 'seq')).toEqual(['3']);
    expect(await ids('tasks')).toEqual([task]);
  });

  it('takes a few rows at a time, and two that do it at once take each row once', async () => {
    await opened.query('DELETE FROM pool_events');
    await opened.query(
      `INSERT INTO pool_events (seq, pool_id, kind, message, at) SELECT n, 'p', 'k', 'm', now() - interval '90 days' FROM generate_series(1, 1200) n`,
    );
    const order = { upToMs: Date.now(), limit: 100, inUse: [] };
    const taken = await Promise.all(Array.from({ length: 4 }, () => prune(opened.db, 'pool_events', order)));
    expect(Math.max(...taken)).toBeLessThanOrEqual(100);
    expect(await ids('pool_events', 'seq')).toHaveLength(1200 - taken.reduce((sum, n) => sum + n, 0));
    await forget('pool_events: { days: 30 }', async () => {
      await expect.poll(() => ids('pool_events', 'seq'), SOON).toEqual([]);
    });
  });
});
