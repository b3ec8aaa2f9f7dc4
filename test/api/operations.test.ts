import { randomUUID } from 'node:crypto';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { planned } from '../../src/core/operation.js';
import { systemClock } from '../../src/runtime/clock.js';
import { OperationFeed, OperationReader } from '../../src/services/operations/feed.js';
import { Operations } from '../../src/services/operations/operations.js';
import { StepFailure } from '../../src/services/operations/run.js';
import { PoolEvents } from '../../src/services/poolEvents.js';
import { Pools } from '../../src/services/pools.js';
import type { Database } from '../../src/store/database.js';
import { migrate, readMigrations } from '../../src/store/migrate.js';
import { abandonOperations, insertOperation, type OperationRecord, readOperation } from '../../src/store/operations.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { createDatabase, openDatabase } from '../support/database.js';
import { gql, sseSubscription, wsClient } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import {
  askFor,
  beginOperation,
  detailOf,
  endOf,
  FOLLOW_OPERATION,
  followOperation,
  metricOf,
  type OperationView,
  readOperation as readView,
  statesOf,
} from '../support/operations.js';
import { get, post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { seedPool } from '../support/tasks.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;

beforeAll(async () => {
  world = await startWorld({ config: simConfig({ tokensPerSecond: 50 }) });
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

const ask = (mutation: string) => askFor(world.url, mutation);
const begin = (mutation: string) => beginOperation(world.url, mutation);
const read = (id: string) => readView(world.url, id);
const followWs = (id: string) => followOperation(world.url, id);
const metric = (name: string) => metricOf(world.url, name);
const finished = async (mutation: string) => endOf(world.url, await begin(mutation));

/** A task whose first tokens are there. */
async function running(overrides: Record<string, unknown>): Promise<string> {
  const request = taskRequest(overrides);
  expect((await post(world.url, '/v1/tasks', request)).status).toBe(202);
  await readStream(world.url, request.task_id, { until: (frame) => frame.event === 'token' });
  return request.task_id;
}

/** Every step that was begun has both times, and they follow one another. */
function checkTimes(view: OperationView): void {
  const times = view.steps.flatMap(({ state, startedAt, endedAt }) => {
    if (state === 'SKIPPED') expect([startedAt, endedAt]).toEqual([null, null]);
    return state === 'SKIPPED' ? [] : [startedAt ?? 'missing', endedAt ?? 'missing'];
  });
  const all = [view.createdAt, view.startedAt ?? 'missing', ...times, view.endedAt ?? 'missing'];
  expect(all).not.toContain('missing');
  expect(all).toEqual(all.toSorted());
}

function checkCourse(views: readonly OperationView[]): void {
  const progress = views.map((view) => view.progress);
  expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  expect(progress.at(-1)).toBe(1);
  expect(views.slice(0, -1).every((view) => view.state === 'RUNNING' || view.state === 'PENDING')).toBe(true);
}

describe('drain', () => {
  it('lets a short task finish, refuses others at once, and tells every step over WebSocket', async () => {
    const drains = await metric('drain_duration_ms_count');
    const taskId = await running({ max_tokens: 300 });
    const id = await begin(`drainPool(input: { pool: "sim", deadlineMs: 20000 })`);
    await expect.poll(async () => statesOf(await read(id)).wait_for_running_tasks).toBe('RUNNING');
    expect((await post(world.url, '/v1/tasks', taskRequest())).status).toBe(503);
    const inProgress = await gql(world.url, `{ pool(name: "sim") { operation { id kind } } }`);
    expect(inProgress.data.pool.operation).toEqual({ id, kind: 'DRAIN' });
    const views = await followWs(id);
    checkCourse(views);
    expect(views.map((view) => statesOf(view).wait_for_running_tasks)).toEqual(['RUNNING', 'SUCCEEDED', 'SUCCEEDED']);
    const [last] = views.slice(-1);
    if (last === undefined) throw new Error('nothing was told');
    expect(last).toMatchObject({ kind: 'DRAIN', state: 'SUCCEEDED', error: null });
    expect(last.outcome).toBe('drained: 1 task finished, 0 force-stopped');
    expect(statesOf(last)).toEqual({
      refuse_new_leases: 'SUCCEEDED',
      wait_for_running_tasks: 'SUCCEEDED',
      force_stop: 'SKIPPED',
    });
    expect(detailOf(last, 'wait_for_running_tasks')).toBe('1 task finished');
    checkTimes(last);
    expect(tokensOf(await readStream(world.url, taskId))).toHaveLength(300);
    expect(await metric('drain_duration_ms_count')).toBe(drains + 1);
    expect((await gql(world.url, `{ pool(name: "sim") { operation { id } } }`)).data.pool.operation).toBeNull();
    expect(statesOf(await finished(`resumePool(input: { pool: "sim" })`))).toEqual({
      grant_leases: 'SUCCEEDED',
      retry_quarantined: 'SUCCEEDED',
    });
  });

  it.runIf(LONG)(
    'force-stops a long task at the deadline, counts both kinds, tells it over SSE, and the task goes on later',
    async () => {
      const long = await running({ max_tokens: 200 });
      const short = await running({ max_tokens: 40 });
      const id = await begin(`drainPool(input: { pool: "sim", deadlineMs: 2000 })`);
      const answers = await sseSubscription(world.url, FOLLOW_OPERATION, { id });
      const views = answers.map((answer) => answer.data.operation as OperationView);
      checkCourse(views);
      const [last] = views.slice(-1);
      if (last === undefined) throw new Error('nothing was told');
      checkTimes(last);
      expect(last.outcome).toBe('drained: 1 task finished, 1 force-stopped');
      expect(detailOf(last, 'wait_for_running_tasks')).toBe('1 task finished; 1 ran on at the deadline of 2000 ms');
      expect(detailOf(last, 'force_stop')).toBe('1 force-stopped, 1 of them run again when the pool takes work');
      expect(views.some((view) => statesOf(view).force_stop === 'RUNNING')).toBe(true);
      expect(tokensOf(await readStream(world.url, short))).toHaveLength(40);
      const events = await world.database.query<{ detail: Record<string, unknown> }>(
        `SELECT detail FROM pool_events WHERE kind = 'drain_ended' ORDER BY seq DESC LIMIT 1`,
      );
      expect(events[0]?.detail).toMatchObject({ finished: 1, forceStopped: 1 });
      await finished(`resumePool(input: { pool: "sim" })`);
      expect(tokensOf(await readStream(world.url, long))).toHaveLength(200);
      expect(await metric('streams_dropped_by_reload_total')).toBe(0);
    },
  );

  it('is refused while another operation is under way, naming that one', async () => {
    const taskId = await running({ max_tokens: 4000 });
    const id = await begin(`drainPool(input: { pool: "sim", deadlineMs: 1000 })`);
    const [, uuid] = Buffer.from(id, 'base64').toString().split(':');
    const second = await ask(`reloadPool(input: { pool: "sim", newModelRef: "sim-8b" })`);
    expect(second).toMatchObject({ __typename: 'Conflict', field: 'pool' });
    expect(second.message).toContain(`drain ${uuid}`);
    const rest = await post(world.url, '/v1/pools/sim/drain', { deadline_ms: 5 });
    expect(rest.status).toBe(409);
    await followWs(id);
    expect((await post(world.url, `/v1/tasks/${taskId}/cancel`, {})).status).toBeLessThan(300);
    await finished(`resumePool(input: { pool: "sim" })`);
  });
});

describe('reload', () => {
  it('swaps the model, in steps that REST shows at its Location', async () => {
    const taskId = await running({ max_tokens: 20 });
    const successes = await metric('reload_success_total');
    const durations = await metric('reload_duration_ms_count');
    const accepted = await post(world.url, '/v1/pools/sim/reload', { new_model_ref: 'sim-8b' });
    expect(accepted.status).toBe(202);
    const { operation_id: operationId } = (await accepted.json()) as { operation_id: string };
    const location = accepted.headers.get('location') ?? '';
    expect(location).toBe(`/v1/operations/${operationId}`);
    const poll = async () =>
      (await (await fetch(`${world.url}${location}`, { signal: AbortSignal.timeout(10_000) })).json()) as {
        state: string;
        steps: { name: string; state: string; started_at: string | null; ended_at: string | null }[];
      };
    await expect.poll(async () => (await poll()).state, { timeout: 20_000 }).toBe('SUCCEEDED');
    const body = await poll();
    expect(body).toMatchObject({
      operation_id: operationId,
      pool_id: 'sim',
      kind: 'RELOAD',
      progress: 1,
      outcome: 'serving sim-8b',
      error: null,
    });
    expect(body.steps.map(({ name, state }) => `${name} ${state}`)).toEqual([
      'check_model SUCCEEDED',
      'start_beside SUCCEEDED',
      'switch_over SUCCEEDED',
      'refuse_new_leases SKIPPED',
      'wait_for_running_tasks SUCCEEDED',
      'swap_model SKIPPED',
      'verify SUCCEEDED',
      'stop_old SUCCEEDED',
      'roll_back SKIPPED',
      'grant_leases SKIPPED',
    ]);
    expect(body.steps[4]?.started_at).toMatch(/^\d{4}-.*Z$/);
    expect(tokensOf(await readStream(world.url, taskId))).toHaveLength(20);
    expect(await metric('reload_success_total')).toBe(successes + 1);
    expect(await metric('reload_duration_ms_count')).toBe(durations + 1);
    expect((await gql(world.url, `{ pool(name: "sim") { modelRef ready draining } }`)).data.pool).toEqual({
      modelRef: 'sim-8b',
      ready: true,
      draining: false,
    });
  });

  it('to the model that is served already does nothing, at once, and says so', async () => {
    const pids = await world.database.query(`SELECT id, pid FROM replicas ORDER BY id`);
    const view = await finished(`reloadPool(input: { pool: "sim", newModelRef: "sim-8b" })`);
    expect(view).toMatchObject({ state: 'SUCCEEDED', outcome: 'already serving sim-8b, nothing was done' });
    expect(detailOf(view, 'check_model')).toContain('nothing to do');
    const [first, ...others] = view.steps;
    expect(first?.state).toBe('SUCCEEDED');
    expect(others.every((step) => step.state === 'SKIPPED')).toBe(true);
    expect(await world.database.query(`SELECT id, pid FROM replicas ORDER BY id`)).toEqual(pids);
  });
});

describe('restart', () => {
  it('ends the engine of one replica and is over when the new one serves', async () => {
    const [replica] = await world.database.query<{ id: string }>(
      `SELECT id FROM replicas WHERE NOT retired ORDER BY id`,
    );
    const id = replica?.id ?? '';
    const pid = async () =>
      (await world.database.query<{ pid: number }>(`SELECT pid FROM replicas WHERE id = $1`, [id]))[0]?.pid;
    const before = await pid();
    const view = await finished(`restartReplica(input: { replica: "${id}" })`);
    expect(view).toMatchObject({ kind: 'RESTART', state: 'SUCCEEDED', outcome: `${id} was restarted` });
    expect(statesOf(view)).toEqual({ stop_engine: 'SUCCEEDED', verify: 'SUCCEEDED' });
    expect(await pid()).not.toBe(before);
    expect((await ask(`restartReplica(input: { replica: "none" })`)).__typename).toBe('NotFound');
  });
});

describe('bad input', () => {
  it('answers 404 for operations that are not there, and refuses to follow them', async () => {
    for (const id of [randomUUID(), 'nonsense']) {
      expect((await get(world.url, `/v1/operations/${id}`)).status).toBe(404);
    }
    const id = Buffer.from(`Operation:${randomUUID()}`).toString('base64');
    expect(
      (await gql(world.url, `query ($id: ID!) { operation(id: $id) { state } }`, { id })).data.operation,
    ).toBeNull();
    const client = wsClient(world.url);
    const following = client.iterate({ query: FOLLOW_OPERATION, variables: { id } }).next();
    const told = await following.then((result) => JSON.stringify(result.value), String);
    await client.dispose();
    expect(told).toContain('not found');
  });

  it.each([
    [`reloadPool(input: { pool: "sim", newModelRef: "" })`, 'new_model_ref'],
    [`reloadPool(input: { pool: "sim", newModelRef: "a\\u0000b" })`, 'new_model_ref'],
    [`reloadPool(input: { pool: "sim", newModelRef: "m", drainDeadlineMs: 0 })`, 'drain_deadline_ms'],
    [`drainPool(input: { pool: "sim", deadlineMs: -1 })`, 'deadline_ms'],
  ])('%s is InvalidParams', async (mutation, field) => {
    expect(await ask(mutation)).toMatchObject({ __typename: 'InvalidParams', field });
  });
});

const NODE_ID = randomUUID();

function servicesOn(db: Database) {
  const telemetry = new Telemetry(pino({ level: 'silent' }), createMetrics());
  const events = new PoolEvents(db, telemetry);
  return { db, clock: systemClock, telemetry, events, nodeId: NODE_ID };
}

describe('the row of an operation', () => {
  it('is told from PENDING to its end, every change once, to a reader that was there first', async () => {
    await using opened = await openDatabase();
    await seedPool(opened.db);
    const operations = new Operations(servicesOn(opened.db));
    let open = () => {};
    const opening = new Promise<void>((resolve) => {
      open = resolve;
    });
    const id = await operations.begin('p', 'RESUME', {}, async (run) => {
      await opening;
      await run.step('grant_leases', async (say) => say('done'));
      await run.step('retry_quarantined', async () => {
        throw new StepFailure({ code: 'X', message: 'broken \0 pipe', fix: null });
      });
      throw new Error('not reached');
    });
    const reader = await operations.open(id);
    const told: OperationRecord[] = [...((await reader.next()) ?? [])];
    open();
    for (let batch = await reader.next(); batch !== null; batch = await reader.next()) told.push(...batch);
    const steps = told
      .filter(({ state }) => state !== 'PENDING')
      .map((record) => record.steps.map((step) => step.state).join(' '));
    expect(steps).toEqual([
      'PENDING PENDING',
      'RUNNING PENDING',
      'SUCCEEDED PENDING',
      'SUCCEEDED RUNNING',
      'SUCCEEDED FAILED',
      'SUCCEEDED FAILED',
    ]);
    expect(told.at(-1)).toMatchObject({
      state: 'FAILED',
      progress: 1,
      error: { code: 'X', message: 'broken \uFFFD pipe' },
    });
    await operations.stop();
  });

  it('is told without a gap when changes come while a reader looks at the row, which is further on', async () => {
    await using opened = await openDatabase();
    await seedPool(opened.db);
    const operations = new Operations(servicesOn(opened.db));
    let end = () => {};
    const ending = new Promise<void>((resolve) => {
      end = resolve;
    });
    const id = await operations.begin('p', 'RESUME', {}, async () => {
      await ending;
      return { end: 'succeed', outcome: 'done', error: null };
    });
    await expect.poll(async () => (await readOperation(opened.db, id))?.state).toBe('RUNNING');
    const feed = new OperationFeed();
    const reader = new OperationReader(opened.db, id, feed);
    const [first] = (await reader.next()) ?? [];
    if (first === undefined) throw new Error('there is no such row');
    const changed = (by: number) => ({ ...first, revision: first.revision + by });
    await opened.query('UPDATE operations SET revision = $2 WHERE id = $1', [id, changed(2).revision]);
    const looking = reader.next();
    feed.publish(changed(1));
    expect((await looking)?.map(({ revision }) => revision)).toEqual([changed(1).revision, changed(2).revision]);
    reader.close();
    end();
    await operations.stop();
  });

  it('ends as interrupted when the control plane stops in the middle', async () => {
    await using opened = await openDatabase();
    await seedPool(opened.db);
    const operations = new Operations(servicesOn(opened.db));
    const id = await operations.begin('p', 'RESUME', {}, async (run) => {
      await run.step(
        'grant_leases',
        () => new Promise<void>((resolve) => run.signal.addEventListener('abort', () => resolve())),
      );
      await run.step('retry_quarantined', async () => {});
      throw new Error('not reached');
    });
    await expect.poll(async () => (await readOperation(opened.db, id))?.steps[0]?.state).toBe('RUNNING');
    await operations.stop();
    expect(await readOperation(opened.db, id)).toMatchObject({ state: 'FAILED', error: { code: 'INTERRUPTED' } });
  });

  it('is closed at the next start when its writer died', async () => {
    await using opened = await openDatabase();
    await seedPool(opened.db);
    const id = randomUUID();
    const [first, ...others] = planned('RELOAD').steps;
    if (first === undefined) throw new Error('a reload has steps');
    const steps = [{ ...first, state: 'RUNNING' as const, startedAtMs: 1_000 }, ...others];
    await insertOperation(opened.db, {
      id,
      poolId: 'p',
      kind: 'RELOAD',
      steps,
      input: {},
      createdAtMs: 1_000,
      nodeId: NODE_ID,
    });
    await abandonOperations(opened.db, NODE_ID, 'and ours');
    const row = await readOperation(opened.db, id);
    expect(row).toMatchObject({ state: 'FAILED', progress: 1, revision: 1, error: { code: 'INTERRUPTED' } });
    expect(row?.steps.map((step) => step.state)).toEqual(['FAILED', ...others.map(() => 'SKIPPED')]);
    expect(row?.steps.map((step) => step.name)).toEqual(planned('RELOAD').steps.map((step) => step.name));
    expect(row?.steps[0]?.endedAtMs).toBeGreaterThan(1_000);
  });

  it('fails before anything is disturbed when the model is refused', async () => {
    await using opened = await openDatabase();
    await seedPool(opened.db);
    const touched: string[] = [];
    const stub = (name: string, answers: Record<string, unknown>) =>
      new Proxy(answers, { get: (target, key) => target[String(key)] ?? touched.push(`${name}.${String(key)}`) });
    const refuse = (modelRef: string) => ({ code: 'MODEL_MISSING', message: `no ${modelRef}`, fix: null });
    const pool = stub('pool', { recipe: { check: refuse } });
    const pools = new Pools({
      ...servicesOn(opened.db),
      supervisor: stub('supervisor', { poolIds: () => ['p'], pool: () => pool }) as never,
      dispatcher: stub('dispatcher', {}) as never,
      gpus: stub('gpus', {}) as never,
      fleet: stub('fleet', {}) as never,
      membership: stub('membership', { checkAlone: async () => {} }) as never,
      elsewhere: stub('elsewhere', {}) as never,
      leases: stub('leases', {}) as never,
      modelFor: async (_pool, ref) => ref,
      rateLimits: stub('rateLimits', {}) as never,
    });
    const reader = await pools.followOperation(await pools.reload('p', 'gone', 1_000));
    let last: OperationRecord | undefined;
    for (let batch = await reader.next(); batch !== null; batch = await reader.next()) last = batch.at(-1);
    expect(last).toMatchObject({ state: 'FAILED', error: { code: 'MODEL_MISSING', message: 'no gone' } });
    expect(last?.steps.map((step) => step.state)).toEqual(['FAILED', ...Array(9).fill('SKIPPED')]);
    expect(touched).toEqual([]);
    await pools.stop();
  });

  it('of an earlier version is brought into the shape of this one', async () => {
    await using database = await createDatabase({ empty: true });
    const folder = await mkdtemp(join(tmpdir(), 'llama-orch-migrations-'));
    try {
      const [spine, ...later] = readMigrations('prisma/migrations').map((migration) => migration.name);
      expect(later).toContain('20261121130000_operation_steps');
      await cp(join('prisma/migrations', spine ?? ''), join(folder, spine ?? ''), { recursive: true });
      await migrate(database.url, folder);
      await database.query(`INSERT INTO pools (id, engine, model_ref, context_length, device_mask, slots_per_replica,
        full_policy, simulated, config_hash) VALUES ('p', 'llamacpp', 'm', 1, '0', 1, 'reject', true, 'h')`);
      await database.query(
        `INSERT INTO operations (id, pool_id, kind, state, steps, input) VALUES ($1, 'p', 'DRAIN', 'SUCCEEDED', $2, '{}')`,
        [randomUUID(), JSON.stringify([{ name: 'refuse new leases', startedAtMs: 5, endedAtMs: 9 }])],
      );
      await migrate(database.url, 'prisma/migrations');
      const rows = await database.query(`SELECT steps, started_at = created_at AS begun FROM operations`);
      const step = { name: 'refuse_new_leases', state: 'SUCCEEDED', startedAtMs: 5, endedAtMs: 9, detail: null };
      expect(rows).toEqual([{ steps: [step], begun: true }]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
