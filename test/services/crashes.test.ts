/** Crash records as they are kept: bounded, clean, compared with the last good start, and not lost with a connection. */

import { randomUUID } from 'node:crypto';
import { Writable } from 'node:stream';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Outbox } from '../../src/services/outbox.js';
import { PoolEvents } from '../../src/services/poolEvents.js';
import { type CrashedReplica, Crashes, type CrashFacts } from '../../src/services/supervision/crashes.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createLogger } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { openDatabase } from '../support/database.js';
import { LONG } from '../support/long.js';
import { seedPool } from '../support/tasks.js';

let opened: Awaited<ReturnType<typeof openDatabase>>;
let crashes: Crashes;
let outbox: Outbox;
const MAX_PENDING = 256;
let logLines: string[];
let nowMs = 0;

beforeAll(async () => {
  opened = await openDatabase();
});
afterAll(() => opened[Symbol.asyncDispose]());
beforeEach(async () => {
  nowMs = Date.parse('2026-01-01T00:00:00Z');
  await opened.query('TRUNCATE crash_records, pool_events, pools CASCADE');
  await seedPool(opened.db, { replicas: 2 });
  crashes = newLife();
});
afterEach(() => outbox.stop());

/** As after a start of the control plane: it remembers nothing. */
function newLife(): Crashes {
  logLines = [];
  const logTo = new Writable({
    write: (line, _encoding, done) => {
      logLines.push(String(line));
      done();
    },
  });
  const telemetry = new Telemetry(createLogger(logTo), createMetrics());
  const { db } = opened;
  const clock = { nowMs: () => (nowMs += 1), monotonicMs: () => nowMs };
  outbox = new Outbox(telemetry, MAX_PENDING);
  outbox.start();
  return new Crashes({ db, clock, events: new PoolEvents(db, telemetry), telemetry, outbox });
}

const REPLICA: CrashedReplica = { id: 'p-0', poolId: 'p', engine: 'llamacpp' };

function facts(over: Partial<CrashFacts> = {}): CrashFacts {
  return {
    modelRef: 'm',
    engineVersion: 'b1',
    exit: { code: 3, signal: null },
    reason: { code: 'ENGINE_EXITED', message: 'the engine process ended with code 3', fix: 'Look at its log.' },
    lastLines: ['one', 'two'],
    launchArgs: ['--ctx', '4096'],
    ranForMs: 12.5,
    readyForMs: null,
    ...over,
  };
}

interface Row {
  readonly message: string;
  readonly last_lines: string[];
  readonly launch_args: string[] | null;
  readonly flag_changes: unknown[];
}

/** Oldest first, once there are so many. */
async function rows(count: number, replicaId = REPLICA.id): Promise<Row[]> {
  const read = () => opened.query<Row>('SELECT * FROM crash_records WHERE replica_id = $1 ORDER BY at', [replicaId]);
  await expect.poll(async () => (await read()).length).toBe(count);
  return read();
}

async function theRow(): Promise<Row> {
  const [row] = await rows(1);
  if (row === undefined) throw new Error('no row');
  return row;
}

describe('a crash', () => {
  it('becomes a row, an event and a log line', async () => {
    crashes.record(REPLICA, facts({ readyForMs: 3 }));
    expect(await theRow()).toMatchObject({
      ...{ pool_id: 'p', replica_id: 'p-0', model_ref: 'm', engine_version: 'b1', exit_code: 3, signal: null },
      ...{ fault: 'ENGINE_EXITED', message: 'the engine process ended with code 3', fix: 'Look at its log.' },
      ...{ last_lines: ['one', 'two'], launch_args: ['--ctx', '4096'], flag_changes: [] },
      ...{ ran_for_ms: 12.5, ready_for_ms: 3, at: new Date('2026-01-01T00:00:00.001Z') },
    });
    const events = () => opened.query('SELECT * FROM pool_events');
    await expect.poll(events).toHaveLength(1);
    const detail = { fault: 'ENGINE_EXITED', exit_code: 3, signal: null, flag_changes: [] };
    expect((await events())[0]).toMatchObject({
      ...{ pool_id: 'p', replica_id: 'p-0', kind: 'replica_crashed', message: 'the engine process ended with code 3' },
      detail: { ...detail, crash: expect.stringMatching(/^[0-9a-f-]{36}$/) },
    });
    expect(logLines.join('')).toContain('"replica_id":"p-0"');
  });

  it('keeps the end of a long log, within its bounds', async () => {
    const lines = Array.from({ length: 1_000 }, (_, at) => `${at} ${'é'.repeat(150)}`);
    crashes.record(REPLICA, facts({ lastLines: [...lines, 'x'.repeat(5_000), '\u{1F600}'.repeat(2_000)] }));
    const { last_lines: kept } = await theRow();
    expect(kept.length).toBeLessThanOrEqual(40);
    expect(kept.length).toBeGreaterThan(30);
    expect(Buffer.byteLength(kept.join(''))).toBeLessThanOrEqual(16 * 1024);
    expect(kept.at(-3)).toBe(lines.at(-1));
    for (const line of kept) expect(Buffer.byteLength(line)).toBeLessThanOrEqual(2 * 1024);
    expect(kept.at(-2)).toMatch(/^x{2000,} …$/);
    expect(kept.at(-1)).toMatch(/^\u{1F600}{500,} …$/u);
  });

  it('shows no secret, no escape, and nothing that the database refuses', async () => {
    const bad = 'a\u0000b \u001b[31mred\u001b[0m \u0007bell \ud800 Authorization: Bearer abcdef123 hf_abcdefghij';
    const reason = { code: 'X', message: bad, fix: bad };
    crashes.record(REPLICA, facts({ reason, lastLines: [bad], modelRef: 'https://u:pass@host/m', engineVersion: bad }));
    const text = JSON.stringify(await theRow());
    const clean = 'a b red  bell \ufffd Authorization: [redacted] [redacted]';
    expect(await theRow()).toMatchObject({ message: clean, fix: clean, engine_version: clean, last_lines: [clean] });
    expect(text).not.toMatch(/abcdef|pass@|\\u00/);
  });

  it('has bounds for everything that is written', async () => {
    const huge = 'x '.repeat(100_000);
    const launchArgs = Array.from({ length: 5_000 }, (_, at) => `--flag-${at}=${huge.slice(0, 3_000)}`);
    crashes.ready(REPLICA.id, []);
    crashes.record(REPLICA, facts({ reason: { code: huge, message: huge, fix: huge }, modelRef: huge, launchArgs }));
    const row = await theRow();
    expect(row.flag_changes).toHaveLength(64);
    expect(JSON.stringify(row).length).toBeLessThan(512 * 1024);
  });

  it('of an engine that somebody else started has no arguments', async () => {
    crashes.ready(REPLICA.id, null);
    crashes.record(REPLICA, facts({ launchArgs: null, exit: null }));
    expect(await theRow()).toMatchObject({ launch_args: null, flag_changes: [], exit_code: null, signal: null });
  });
});

describe('the newest 20', () => {
  it('of each replica are kept', async () => {
    crashes.record({ ...REPLICA, id: 'p-1' }, facts());
    for (let at = 0; at < 25; at += 1) {
      crashes.record(REPLICA, facts({ reason: { code: 'X', message: String(at), fix: null } }));
    }
    await outbox.stop();
    expect((await rows(20)).map(({ message }) => message)).toEqual(Array.from({ length: 20 }, (_, at) => `${at + 5}`));
    await rows(1, 'p-1');
    expect(await opened.query('SELECT FROM pool_events')).toHaveLength(26);
  });
});

describe('changes of flags', () => {
  const changed = [{ flag: '--ctx', before: '4096', after: '8192' }];

  it('are told against the last good start, not against later ones', async () => {
    crashes.ready(REPLICA.id, ['--ctx', '4096', '--port', '4001']);
    crashes.record(REPLICA, facts({ launchArgs: ['--port', '4002', '--ctx', '8192'] }));
    crashes.ready(REPLICA.id, ['--ctx', '8192', '--port', '4003']);
    crashes.record(REPLICA, facts({ launchArgs: ['--ctx', '8192', '--port', '4004'] }));
    expect((await rows(2)).map((row) => row.flag_changes)).toEqual([changed, []]);
  });

  it('survive a restart of the control plane', async () => {
    crashes.ready(REPLICA.id, ['--ctx', '4096']);
    await outbox.stop();
    crashes = newLife();
    crashes.record(REPLICA, facts({ launchArgs: ['--ctx', '8192'] }));
    expect((await theRow()).flag_changes).toEqual(changed);
  });

  it('are none before a replica was ever ready', async () => {
    crashes.record(REPLICA, facts());
    crashes.record({ ...REPLICA, id: 'p-9' }, facts());
    expect((await theRow()).flag_changes).toEqual([]);
    expect((await rows(1, 'p-9'))[0]?.flag_changes).toEqual([]);
  });
});

describe('a database', () => {
  it('that went away gets what it missed, once, in order', async () => {
    const other = new pg.Client({ connectionString: opened.url });
    await other.connect();
    try {
      await other.query('BEGIN; LOCK TABLE crash_records IN ACCESS EXCLUSIVE MODE');
      const waiting =
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
      crashes.record(REPLICA, facts({ reason: { code: 'X', message: 'first', fix: null } }));
      crashes.record(REPLICA, facts({ reason: { code: 'X', message: 'second', fix: null } }));
      await expect.poll(() => opened.query(waiting)).toHaveLength(1);
      await opened.query(`SELECT pg_terminate_backend(pid) FROM (${waiting}) AS found`);
      await expect.poll(() => logLines.join('')).toContain('will be retried');
    } finally {
      await other.end();
    }
    expect((await rows(2)).map(({ message }) => message)).toEqual(['first', 'second']);
    await expect.poll(() => opened.query('SELECT FROM pool_events')).toHaveLength(2);
  });

  it.runIf(LONG)('that stays away does not fill the memory: the newest are kept', async () => {
    const other = new pg.Client({ connectionString: opened.url });
    await other.connect();
    try {
      await other.query('BEGIN; LOCK TABLE crash_records IN ACCESS EXCLUSIVE MODE');
      for (let at = 0; at < 300; at += 1) {
        crashes.record(REPLICA, facts({ reason: { code: 'X', message: String(at), fix: null } }));
      }
    } finally {
      await other.end();
    }
    await outbox.stop();
    expect((await rows(20)).map(({ message }) => message)).toEqual(
      Array.from({ length: 20 }, (_, at) => `${at + 280}`),
    );
    expect(await opened.query('SELECT FROM pool_events')).toHaveLength(256);
    expect(logLines.filter((line) => line.includes('more than 256 writes wait'))).toHaveLength(300 - 256);
  });

  it.runIf(LONG)('that cannot take one record does not hold up the others for ever', async () => {
    const missing = `p-${randomUUID()}`;
    crashes.ready(missing, ['--ctx', '1']); // has no row to be written into
    crashes.record(REPLICA, facts());
    await rows(1);
    expect(logLines.join('')).toContain(`arguments of ${missing}`);
  });

  it('that has lost the pool takes nothing, and holds up nobody', async () => {
    crashes.record({ ...REPLICA, poolId: 'gone' }, facts());
    crashes.record(REPLICA, facts());
    await rows(1);
    expect(await opened.query("SELECT FROM crash_records WHERE pool_id = 'gone'")).toEqual([]);
    expect(await opened.query("SELECT FROM pool_events WHERE pool_id = 'gone'")).toEqual([]);
    expect(logLines.join('')).not.toContain('write lost');
  });
});
