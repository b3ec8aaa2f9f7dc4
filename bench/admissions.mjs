/**
 * Durable admissions per second at 16 callers, against plain single-row INSERTs of rows of equal size: same PostgreSQL,
 * fsync on, 16 callers on a pool of 16 connections. Measured at the service (Admission.submit in this process, so that
 * both sides are one Node process and PostgreSQL) and over REST (where HTTP and a second process come on top). Every
 * task brings a session of its own. The pool's one slot is held by a slow task, so nothing but admission runs; each
 * round begins with an empty queue, which then grows to the number of its calls. The rounds alternate.
 */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { destination } from 'pino';
import { AUTO_PLACEMENT } from '../dist/core/placement.js';
import { Admission } from '../dist/services/admission.js';
import { Database } from '../dist/store/database.js';
import { Telemetry } from '../dist/telemetry/events.js';
import { createLogger } from '../dist/telemetry/log.js';
import { createMetrics } from '../dist/telemetry/metrics.js';
import { keepAliveAgent, post, taskBody } from './http.mjs';
import { count, median } from './stats.mjs';
import { MODEL, startEngine, startServer } from './world.mjs';

const CALLERS = 16;
const CTX = 4096;
const ROUND_LIMIT_MS = 20_000;

export async function measureAdmissions({ scope, postgres, quick, nodeArgs, say }) {
  const perRound = quick ? 1_500 : 5_000;
  const rounds = quick ? 3 : 5;
  const engine = await startEngine(scope, { tokensPerSecond: 1, slots: 1, ctx: CTX });
  const databaseUrl = await postgres.createDatabase();
  const server = await startServer(scope, { engineUrl: engine.url, databaseUrl, slots: 1, ctx: CTX, nodeArgs });
  const raw = new pg.Pool({ connectionString: databaseUrl, max: CALLERS });
  scope.defer('pool of the baseline', () => raw.end());
  const agent = keepAliveAgent(CALLERS);
  const database = new Database(databaseUrl, (error) => say(error.message));
  scope.defer('pool of the service', () => database.close());
  const admission = admissionOn(database);
  const viaRest = () => post(`${server.url}/v1/tasks`, taskBody({ max_tokens: 900 }), { agent });
  await viaRest(); // takes the one slot, for as long as we measure
  const insert = await equalRow(raw, viaRest);
  const ways = {
    insert,
    service: () => admission.submit(submission(), { correlationId: randomUUID(), identity: 'localhost' }),
    rest: viaRest,
  };
  for (const call of Object.values(ways)) await rate(call, 500);
  const rates = { insert: [], service: [], rest: [] };
  for (let round = 1; round <= rounds; round += 1) {
    for (const [name, call] of Object.entries(ways)) {
      await emptyQueue(raw);
      rates[name].push(await rate(call, perRound));
    }
    say(`round ${round} of ${rounds}: ${describe(rates)}`);
  }
  await emptyQueue(raw);
  agent.destroy();
  for (const child of [server, engine]) await child.stop();
  return rowsOf(rates, perRound);
}

/** The service as `up` makes it, over a fleet of one ready pool that has no free slot and a dispatcher that rests. */
function admissionOn(db) {
  const pool = {
    ...{ id: 'bench', engine: 'llamacpp', modelRef: MODEL, contextLength: CTX },
    ...{ deviceMask: '', draining: false, ready: true, recoverable: true },
  };
  const NO_FORECAST = { earliestMs: null, startMs: null, endMs: null };
  const startBasis = { slotsTotal: 1, slotsFree: 0, serviceMs: 0 };
  return new Admission({
    db,
    fleet: { candidates: () => [pool], ready: () => [], limits: () => ({ fullPolicy: 'reject' }) },
    dispatcher: {
      startBasis: () => startBasis,
      slotsFree: () => 0,
      queueDepth: () => 0,
      forecast: () => NO_FORECAST,
      retryAfterMs: () => 0,
      wake: () => {},
    },
    hub: { announce: () => {} },
    rateLimits: { take: () => null },
    // Log lines are made as in the server, and written where they cost nothing more.
    telemetry: new Telemetry(createLogger(destination({ dest: '/dev/null', sync: true })), createMetrics()),
    places: { lastReplica: async () => null },
    sessions: { ttlMs: 600_000, maxTurns: 8, limits: { tokens: null, timeMs: null, costMicros: null } },
    priceMicros: () => 0,
  });
}

function submission() {
  return {
    ...{ taskId: randomUUID(), sessionId: randomUUID(), workload: 'completion', modelRef: MODEL, engine: 'llamacpp' },
    ...{ ctx: 1024, priority: 'interactive', seed: null, determinism: 'strict', samplerProfileVersion: null },
    ...{
      prompt: 'Tell me about the sea.',
      maxTokens: 4,
      deadlineMs: 3_600_000,
      inputs: [],
      kvHint: null,
      followsPool: false,
      disconnectGraceMs: null,
      placement: AUTO_PLACEMENT,
    },
  };
}

/** A plain table, and an INSERT whose rows are as large as those of the tasks. */
async function equalRow(raw, viaRest) {
  await viaRest();
  const { rows } = await raw.query(
    "SELECT avg(pg_column_size(t.*))::int AS bytes FROM tasks t WHERE status = 'QUEUED'",
  );
  // 24 bytes of row header and 16 of the id are in the size; the text's own header is 1 or 4 bytes.
  const body = 'x'.repeat(Math.max(1, rows[0].bytes - 24 - 16 - 4));
  await raw.query('CREATE TABLE bench_rows (id uuid PRIMARY KEY, body text NOT NULL)');
  await raw.query('ALTER TABLE bench_rows ALTER body SET STORAGE PLAIN');
  const statement = { name: 'row', text: 'INSERT INTO bench_rows (id, body) VALUES ($1, $2)' };
  return () => raw.query({ ...statement, values: [randomUUID(), body] });
}

/**
 * What waits becomes history, as it does in a server that has run for a while. Deleting it instead would leave
 * statistics of an empty table, by which PostgreSQL then plans scans of the whole of a growing one.
 */
async function emptyQueue(raw) {
  await raw.query("UPDATE tasks SET status = 'SUCCEEDED', ended_at = now() WHERE status = 'QUEUED'");
  for (const name of ['tasks', 'sessions', 'bench_rows']) await raw.query(`VACUUM (ANALYZE) ${name}`);
}

/** Calls per second of 16 callers that each wait for one answer before the next call. */
async function rate(call, total) {
  let left = total;
  const startedMs = performance.now();
  const caller = async () => {
    while (left > 0) {
      left -= 1;
      await call();
      if (performance.now() - startedMs > ROUND_LIMIT_MS) throw new Error(`a round took over ${ROUND_LIMIT_MS} ms`);
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  return (total * 1000) / (performance.now() - startedMs);
}

function describe(rates) {
  return Object.entries(rates)
    .map(([name, list]) => `${name} ${count(list[list.length - 1])}/s`)
    .join(', ');
}

function rowsOf({ insert, service, rest }, depth) {
  const row = (what, list, aim) => ({
    what,
    ours: count(median(list)),
    raw: `${count(median(insert))} (INSERT)`,
    result: `${median(list.map((value, round) => value / insert[round])).toFixed(2)} of INSERT`,
    aim,
  });
  return [
    row(`durable admissions/s, service (queue from 0 to ${depth})`, service, '≥ 1.0 of INSERT'),
    row(`durable admissions/s, REST (queue from 0 to ${depth})`, rest, ''),
  ];
}
