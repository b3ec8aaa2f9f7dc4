/** Two control planes on one database: any admits and serves any stream, and what one leaves behind the other takes up. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gql, wsClient } from '../support/graphql.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfServer, SystemWatch } from '../support/invariantWatch.js';
import { type PoolView, poolsAt, TestNode } from '../support/nodes.js';
import { askFor, beginOperation, endOf } from '../support/operations.js';
import { RealEngine } from '../support/realEngine.js';
import { indicesOf, post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { ReturningReader } from '../support/returningReader.js';
import { makeHome, processesOf, runToEnd } from '../support/server.js';

/** The kinds of events that a subscription tells, to its end. */
async function watch(url: string, taskId: string): Promise<string[]> {
  const client = wsClient(url);
  try {
    const types: string[] = [];
    const query = `subscription { taskEvents(taskId: "${taskId}") { __typename } }`;
    for await (const { data } of client.iterate<{ taskEvents: { __typename: string } }>({ query })) {
      if (data != null) types.push(data.taskEvents.__typename);
    }
    return types;
  } finally {
    await client.dispose();
  }
}

/** 15 s of trust in a lease, 2 s between looks, and what a slow machine adds. */
const HEALED_MS = 17_000 + 5_000;

let database: TestDatabase;
let a: TestNode;
let b: TestNode;
let watched: SystemWatch;

const shared = { id: 'shared' };

beforeAll(async () => {
  database = await createDatabase({ empty: true });
  const calls = await logCalls();
  const { env } = calls;
  const beta = { id: 'beta', slots: 1, flags: ['--slot-save-path', '/nonexistent'], env };
  a = await TestNode.make(database, [
    { id: 'alpha', env },
    { ...shared, env },
  ]);
  b = await TestNode.make(database, [beta, { ...shared, env }]);
  // At the same moment, on an empty database: one of them migrates it.
  await Promise.all([a.start(), b.start()]);
  await callWitness(database);
  await allReady();
  const planes = [planeOfServer('node a', () => a.server), planeOfServer('node b', () => b.server)];
  watched = await SystemWatch.begin({ database, planes, calls, request: { model_ref: 'shared-7b' } });
});
afterAll(async () => {
  await Promise.all([a.remove(), b.remove()]);
  await database[Symbol.asyncDispose]();
});

function taskFor(pool: string, overrides: Record<string, unknown> = {}) {
  return taskRequest({ model_ref: `${pool}-7b`, seed: 7, ...overrides });
}

async function submit(url: string, task: Record<string, unknown>): Promise<void> {
  const answer = await post(url, '/v1/tasks', task);
  expect(answer.status, await answer.text()).toBe(202);
}

async function rowOf(taskId: string) {
  const sql = `SELECT t.status, t.attempts, t.chunks, t.tokens_out AS "tokensOut", t.error ->> 'code' AS code,
    t.cancel_slot_free_at AS "slotFreeAt", r.node_id AS "nodeId"
    FROM tasks t LEFT JOIN replicas r ON r.id = t.replica_id WHERE t.id = $1`;
  const [row] = await database.query(sql, [taskId]);
  if (row === undefined) throw new Error(`no task ${taskId}`);
  return row;
}

async function seamsOf(taskId: string): Promise<number> {
  const sql = `SELECT count(*)::int AS seams FROM stream_chunks WHERE task_id = $1 AND kind = 'seam'`;
  return (await database.query(sql, [taskId]))[0]?.seams;
}

async function poolAt(url: string, name: string): Promise<PoolView> {
  const pool = (await poolsAt(url)).get(name);
  if (pool === undefined) throw new Error(`no pool ${name}`);
  return pool;
}

async function allReady(): Promise<void> {
  const notReady = async () =>
    [...(await poolsAt(a.url)).values()].filter(
      ({ ready, replicas }) => !ready || replicas.some(({ state }) => state !== 'READY'),
    );
  const areReady = async () => (await notReady()).length === 0;
  expect(await pollUntil(areReady, { everyMs: 50, deadlineMs: 25_000 })).toBe(true);
}

const numberOf = async (node: TestNode): Promise<number> => {
  const [row] = await database.query('SELECT number FROM nodes WHERE url = $1', [node.url]);
  return row?.number;
};

const nameAt = async (pool: string, node: TestNode): Promise<string> => {
  const number = await numberOf(node);
  return `${pool}-0${number === 0 ? '' : `@${number}`}`;
};

describe('two nodes', () => {
  it('see all pools; a pool of both has the replicas of both', async () => {
    await allReady();
    const numbers = await Promise.all([a, b].map(numberOf));
    expect([...numbers].sort()).toEqual([0, 1]);
    const known = (await gql(b.url, '{ controlPlanes { number url stoppedAt pools } }')).data.controlPlanes;
    expect(known).toEqual(
      [
        { number: numbers[0], url: a.url, stoppedAt: null, pools: ['alpha', 'shared'] },
        { number: numbers[1], url: b.url, stoppedAt: null, pools: ['beta', 'shared'] },
      ].sort((one, other) => Number(one.number) - Number(other.number)),
    );
    for (const { url } of [a, b]) {
      const pools = await poolsAt(url);
      expect([...pools.keys()]).toEqual(['alpha', 'beta', 'shared']);
      expect(
        pools
          .get('shared')
          ?.replicas.map(({ name }) => name)
          .sort(),
      ).toEqual(['shared-0', 'shared-0@1']);
      expect(pools.get('alpha')?.replicas.map(({ name }) => name)).toEqual([await nameAt('alpha', a)]);
      const status = await (await fetch(`${url}/pools/beta/status`)).json();
      expect(status).toMatchObject({ live: true, ready: true, draining: false, slots_total: 1, slots_free: 1 });
      const { engines } = (await (await fetch(`${url}/v1/capabilities`)).json()) as { engines: unknown[] };
      expect(engines).toMatchObject([{ engine: 'llamacpp', features: { concurrency: 7 } }]);
    }
  });

  it('admit to a pool that only the other serves, and show its stream while it runs', async () => {
    const task = taskFor('beta', { max_tokens: 30 });
    await submit(a.url, task);
    const [here, there] = await Promise.all([readStream(a.url, task.task_id), readStream(b.url, task.task_id)]);
    expect(here.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 30 } });
    expect(tokensOf(here)).toEqual(tokensOf(there));
    expect(indicesOf(here)).toEqual(Array.from({ length: 30 }, (_, index) => index));
    const explain = `query { explainPlacement(input: { pool: "beta", prompt: "x", maxTokens: 1 }) { chosen } }`;
    expect((await gql(a.url, explain)).data.explainPlacement.chosen).toBe('beta');
  });

  it('take one task once, however often it is sent to either', async () => {
    const task = taskFor('beta', { max_tokens: 3 });
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, n) => post(n % 2 ? a.url : b.url, '/v1/tasks', task)),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(202));
    const receipts = await Promise.all(answers.map((answer) => answer.json() as Promise<{ queue_position: number }>));
    expect(new Set(receipts.map((receipt) => receipt.queue_position)).size).toBe(1);
    expect((await readStream(a.url, task.task_id)).at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 3 } });
    expect(await rowOf(task.task_id)).toMatchObject({ status: 'SUCCEEDED', attempts: 1 });
  });

  it('empty the slot of a session that was deleted at the other', async () => {
    const task = taskFor('beta', { max_tokens: 3 });
    await submit(a.url, task);
    await readStream(a.url, task.task_id);
    const engine = await RealEngine.of({ database }, await nameAt('beta', b));
    expect((await fetch(`${a.url}/v1/sessions/${task.session_id}`, { method: 'DELETE' })).status).toBe(204);
    await expect.poll(() => database.query('SELECT 1 FROM session_evictions')).toEqual([]);
    expect(await engine.erase(0)).toBe(0);
    await submit(a.url, { ...task, task_id: crypto.randomUUID() });
    await expect.poll(() => engine.erase(0)).toBeGreaterThan(0);
  });

  it('cancel what the other runs: no token after it, and the engine has let go', async () => {
    const task = taskFor('beta', { max_tokens: 2_000 });
    await submit(a.url, task);
    const readers = [a, b].map(({ url }) => readStream(url, task.task_id));
    await readStream(a.url, task.task_id, { until: ({ event }) => event === 'token' });
    expect((await post(a.url, `/v1/tasks/${task.task_id}/cancel`, {})).status).toBe(204);
    const { tokensOut, ...row } = await rowOf(task.task_id);
    expect(row).toMatchObject({ status: 'CANCELED', slotFreeAt: expect.any(Date) });
    for (const frames of await Promise.all(readers)) {
      expect(frames.at(-1)).toMatchObject({ event: 'end', data: { canceled: true } });
      expect(tokensOf(frames)).toHaveLength(tokensOut);
    }
    // The only slot of the pool takes the next one.
    const next = taskFor('beta', { max_tokens: 3 });
    await submit(a.url, next);
    expect((await readStream(a.url, next.task_id)).at(-1)).toMatchObject({ event: 'end' });
  });

  it('refuse what only the other can do, and name it', async () => {
    const foreign = { __typename: 'Conflict', field: 'pool', message: expect.stringContaining(b.url) };
    expect(await askFor(a.url, 'drainPool(input: { pool: "beta" })')).toMatchObject(foreign);
    expect(await askFor(a.url, 'reloadPool(input: { pool: "beta", newModelRef: "m" })')).toMatchObject(foreign);
    const both = { ...foreign, message: expect.stringMatching(/a reload needs a pool of one node/) };
    expect(await askFor(a.url, 'reloadPool(input: { pool: "shared", newModelRef: "m" })')).toMatchObject(both);
    const replica = await nameAt('shared', b);
    const restart = await askFor(a.url, `restartReplica(input: { replica: "${replica}" })`);
    expect(restart).toMatchObject({ ...foreign, field: 'replica' });
  });

  it('drain a pool of both as one, and resume it from either', async () => {
    const tasks = Array.from({ length: 4 }, () => taskFor('shared', { max_tokens: 100 }));
    for (const task of tasks) await submit(a.url, task);
    // Two slots each: all four run, two on either node.
    const rows = () => Promise.all(tasks.map(({ task_id }) => rowOf(task_id)));
    const streaming = async () => (await rows()).every(({ tokensOut }) => tokensOut > 0);
    await expect.poll(streaming).toBe(true);
    expect(new Set((await rows()).map(({ nodeId }) => nodeId)).size).toBe(2);
    const id = await beginOperation(a.url, 'drainPool(input: { pool: "shared", deadlineMs: 200 })');
    const drained = await endOf(b.url, id);
    expect(drained).toMatchObject({
      state: 'SUCCEEDED',
      outcome: expect.stringMatching(/[12] stopped on other nodes$/),
    });
    expect(new Set((await rows()).map(({ status }) => status))).toEqual(new Set(['QUEUED']));
    const states = async () => (await poolAt(a.url, 'shared')).replicas.map(({ state }) => state);
    await expect.poll(states).toEqual(['DRAINING', 'DRAINING']);
    const refused = await post(b.url, '/v1/tasks', taskFor('shared'));
    expect(refused.status).toBe(503);
    await endOf(b.url, await beginOperation(b.url, 'resumePool(input: { pool: "shared" })'));
    for (const { task_id } of tasks) {
      const frames = await readStream(b.url, task_id);
      expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 100 } });
      expect(await seamsOf(task_id)).toBe(1);
    }
    await expect.poll(states).toEqual(['READY', 'READY']);
  }, 60_000);

  it('leave each other alone at a start', async () => {
    const before = await poolAt(a.url, 'alpha');
    const engines = processesOf(a.home).sort();
    expect(await b.end('SIGINT')).toBe(0);
    await expect.poll(async () => (await poolAt(a.url, 'shared')).ready).toBe(true);
    expect(await poolAt(a.url, 'beta')).toMatchObject({ ready: false });
    await b.start();
    await allReady();
    expect(await poolAt(b.url, 'alpha')).toEqual(before);
    expect(processesOf(a.home).sort()).toEqual(engines);
    expect((await poolAt(a.url, 'shared')).replicas).toHaveLength(2);
  }, 60_000);

  it('do not serve two models under one name', async () => {
    const home = await makeHome();
    const node = await TestNode.make(database, [{ ...shared, model: 'another' }]);
    const { code, output } = await runToEnd(['up', ...node.args], {
      ...node.env,
      LLAMA_ORCH_HOME: home.path,
      ORCHD_ADDR: '127.0.0.1:0',
    });
    expect(code).toBe(1);
    expect(output).toMatch(/Pool shared is served by node [01] .*model another here, shared-7b there/);
    await Promise.all([node.remove(), home.remove()]);
  });

  it('heal what a kill -9 of the other cut off', async () => {
    const length = 400;
    const tasks = Array.from({ length: 4 }, () => taskFor('shared', { max_tokens: length, deadline_ms: 200_000 }));
    const waiting = taskFor('beta', { max_tokens: length, deadline_ms: 200_000 });
    for (const task of [...tasks, waiting]) await submit(a.url, task);
    const all = [...tasks, waiting].map(({ task_id }) => new ReturningReader(task_id));
    const [bId] = await database.query('SELECT id FROM nodes WHERE url = $1', [b.url]);
    const streaming = async () => Promise.all(all.map(async ({ taskId }) => (await rowOf(taskId)).tokensOut > 5));
    await expect.poll(streaming).toEqual(Array(5).fill(true));
    const rows = await Promise.all(all.map(({ taskId }) => rowOf(taskId)));
    const onB = all.filter((_, index) => rows[index]?.nodeId === bId?.id);
    expect(onB).toHaveLength(3);
    const reading = all.map((reader) => reader.readToEnd(() => a.url, 110_000));
    const watching = watch(a.url, waiting.task_id);

    const killedAt = Date.now();
    await b.end('SIGKILL');
    // Node A takes back what ran on B, and runs what it can on its own replica as soon as that has a slot.
    const released = async () => {
      const sql = `SELECT count(*)::int AS held FROM leases l JOIN replicas r ON r.id = l.replica_id
        WHERE l.released_at IS NULL AND r.node_id = $1`;
      return (await database.query(sql, [bId?.id]))[0]?.held;
    };
    await expect.poll(released, { timeout: 30_000 }).toBe(0);
    expect(Date.now() - killedAt).toBeLessThan(HEALED_MS);
    const lost = async () => (await poolAt(a.url, 'beta')).notReadyBecause.map(({ code }) => code);
    await expect.poll(lost, { timeout: 25_000 }).toEqual(['NODE_LOST']);
    expect(await rowOf(waiting.task_id)).toMatchObject({ status: 'QUEUED', attempts: 1 });
    expect((await post(a.url, '/v1/tasks', taskFor('beta'))).status).toBe(503);

    // Only B has that pool; its engine is taken over, and readers of A see the rest.
    await b.start();
    await Promise.all(reading);
    const seen = await watching;
    expect(seen.filter((type) => type === 'TaskSeam')).toHaveLength(1);
    expect(seen.at(-1)).toBe('TaskEnded');
    const [first] = all;
    for (const reader of all) {
      expect(reader.frames.at(-1), reader.taskId).toMatchObject({ event: 'end', data: { tokens_out: length } });
      expect(indicesOf(reader.frames)).toEqual(Array.from({ length }, (_, index) => index));
      expect(await seamsOf(reader.taskId)).toBe(onB.includes(reader) ? 1 : 0);
    }
    const texts = new Set(
      all.filter((one) => one.taskId !== waiting.task_id).map(({ frames }) => tokensOf(frames).join('')),
    );
    expect(texts.size).toBe(1);
    expect(tokensOf(await readStream(b.url, first?.taskId ?? ''))).toEqual(tokensOf(first?.frames ?? []));
    await allReady();
    expect((await poolAt(a.url, 'beta')).replicas[0]).toMatchObject({ state: 'READY', restartCount: 0 });
    const acknowledged = new Map(all.map(({ taskId }) => [taskId, null]));
    const evidence = await watched.evidence({ readers: all, acknowledged, patienceMs: 60_000 });
    await expectInvariants('two nodes, one of them killed', evidence);
  }, 150_000);
});
