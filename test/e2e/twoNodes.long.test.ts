/** A node that stands still for longer than its leases last: the other goes on, and the one that wakes writes nothing. */
import { afterEach, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfServer, planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { nodeConfig, poolsAt, TestNode } from '../support/nodes.js';
import { indicesOf, post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { ReturningReader } from '../support/returningReader.js';
import { startWorld } from '../support/world.js';

const LENGTH = 600;
const STILL_MS = 20_000;
const POOL = { id: 'shared', slots: 1, tokensPerSecond: 20 };

const nodes: TestNode[] = [];
afterEach(async () => {
  for (const node of nodes.splice(0)) await node.remove();
});

function request(overrides: Record<string, unknown> = {}) {
  const task = { model_ref: 'shared-7b', seed: 3, max_tokens: LENGTH, deadline_ms: 240_000, determinism: 'strict' };
  return taskRequest({ ...task, ...overrides });
}

/** Submits tasks until one runs on `node`; those that the other takes are cancelled. */
async function taskOn(
  database: TestDatabase,
  node: TestNode,
  other: TestNode,
  overrides: Record<string, unknown>,
): Promise<string> {
  const sql = `SELECT n.url FROM tasks t JOIN replicas r ON r.id = t.replica_id JOIN nodes n ON n.id = r.node_id
    WHERE t.id = $1 AND t.tokens_out > 5`;
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const task = request(overrides);
    expect((await post(node.url, '/v1/tasks', task)).status).toBe(202);
    const where = async () => (await database.query(sql, [task.task_id]))[0]?.url ?? null;
    await expect.poll(where).not.toBeNull();
    if ((await where()) === node.url) return task.task_id;
    expect((await post(other.url, `/v1/tasks/${task.task_id}/cancel`, {})).status).toBe(204);
  }
  throw new Error(`no task came to ${node.url}`);
}

/** Everything that is kept of a task, as it is now. */
async function keptOf(database: TestDatabase, taskId: string) {
  const [task] = await database.query('SELECT to_jsonb(t) AS task FROM tasks t WHERE id = $1', [taskId]);
  const log = await database.query(
    'SELECT ord, kind, first_seq, last_seq, payload FROM stream_chunks WHERE task_id = $1 ORDER BY ord',
    [taskId],
  );
  const leases = await database.query('SELECT to_jsonb(l) AS lease FROM leases l WHERE task_id = $1 ORDER BY id', [
    taskId,
  ]);
  return { task, log, leases };
}

/** The one of two tasks that runs on a node, once both stream. */
async function runsOn(database: TestDatabase, nodeUrl: string, taskIds: readonly string[]): Promise<string> {
  const sql = `SELECT t.id FROM tasks t JOIN replicas r ON r.id = t.replica_id JOIN nodes n ON n.id = r.node_id
    WHERE t.id = ANY($1) AND n.url = $2 AND t.tokens_out > 5 AND t.status = 'STREAMING'`;
  const found = async () => (await database.query(sql, [taskIds, nodeUrl])).map(({ id }) => id);
  await expect.poll(found).toHaveLength(1);
  return (await found())[0];
}

async function bothReady(url: string): Promise<void> {
  const states = async () => (await poolsAt(url)).get('shared')?.replicas.map(({ state }) => state);
  await expect.poll(states, { timeout: 25_000 }).toEqual(['READY', 'READY']);
}

describe('a node that stood still', () => {
  it('SIGSTOP: the other runs its tasks to their ends, and nothing is written after it wakes', async () => {
    await using database = await createDatabase();
    await callWitness(database);
    const calls = await logCalls();
    const pools = [{ ...POOL, slots: 2, env: calls.env }];
    const a = await TestNode.make(database, pools);
    const b = await TestNode.make(database, pools);
    nodes.push(a, b);
    await Promise.all([a.start(), b.start()]);
    await bothReady(a.url);
    const planes = [planeOfServer('node a', () => a.server), planeOfServer('node b', () => b.server)];
    const watch = await SystemWatch.begin({ database, planes, calls, request: { model_ref: 'shared-7b' } });
    const strict = await taskOn(database, b, a, { determinism: 'strict', max_tokens: 200 });
    const loose = await taskOn(database, b, a, { determinism: 'best_effort', max_tokens: 200 });
    const readersOf = (id: string) => [a, b].map(({ url }) => ({ url, reader: new ReturningReader(id) }));
    const readers = [...readersOf(strict), ...readersOf(loose)];
    const reading = readers.map(({ url, reader }) => reader.readToEnd(() => url, 150_000));

    b.server.signal('SIGSTOP');
    const statuses = async () => {
      const rows = await database.query('SELECT id, status FROM tasks WHERE id = ANY($1)', [[strict, loose]]);
      return Object.fromEntries(rows.map(({ id, status }) => [id, status]));
    };
    await expect.poll(statuses, { timeout: 60_000 }).toEqual({ [strict]: 'SUCCEEDED', [loose]: 'FAILED' });
    const kept = [await keptOf(database, strict), await keptOf(database, loose)];
    expect(kept.map(({ leases }) => leases.map(({ lease }) => lease.release_reason))).toEqual([
      ['holder_lost', 'completed'],
      ['holder_lost'],
    ]);
    // Its engine has gone on: all that is left of both streams waits in its sockets.
    b.server.signal('SIGCONT');

    await Promise.all(reading);
    const [strictHere, strictThere, looseHere, looseThere] = readers.map(({ reader }) => reader.frames);
    expect(strictHere?.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 200 } });
    expect(indicesOf(strictHere ?? [])).toEqual(Array.from({ length: 200 }, (_, index) => index));
    expect(tokensOf(strictThere ?? [])).toEqual(tokensOf(strictHere ?? []));
    expect(looseHere?.at(-1)).toMatchObject({ event: 'error', data: { code: 'WORKER_RESET' } });
    expect(looseThere?.at(-1)).toEqual(looseHere?.at(-1));
    expect(tokensOf(looseThere ?? [])).toEqual(tokensOf(looseHere ?? []));
    await bothReady(a.url);
    const after = await taskOn(database, b, a, { max_tokens: 100 });
    expect((await readStream(a.url, after)).at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 100 } });
    expect([await keptOf(database, strict), await keptOf(database, loose)]).toEqual(kept);
    // Byte for byte what an undisturbed run gives.
    const same = request({ max_tokens: 200 });
    expect((await post(a.url, '/v1/tasks', same)).status).toBe(202);
    expect(tokensOf(await readStream(a.url, same.task_id))).toEqual(tokensOf(strictHere ?? []));
    const evidence = await watch.evidence({
      ...{ acknowledged: new Map([strict, loose, after].map((id) => [id, null])), patienceMs: 60_000 },
      readers: readers.map(({ reader }) => reader),
    });
    await expectInvariants('faults 12 and 17, a node that was stopped', evidence);
  }, 240_000);

  it('a stalled event loop: the same', async () => {
    const calls = await logCalls();
    const pools = [{ ...POOL, env: calls.env }];
    await using world = await startWorld({ config: nodeConfig(pools) });
    const { database } = world;
    await callWitness(database);
    const b = await TestNode.make(database, pools);
    nodes.push(b);
    await b.start();
    await bothReady(b.url);
    const planes = [planeOfWorld(world), planeOfServer('the other node', () => b.server)];
    const watch = await SystemWatch.begin({ database, planes, calls, request: { model_ref: 'shared-7b' } });
    const tasks = [request(), request()];
    for (const task of tasks) expect((await post(b.url, '/v1/tasks', task)).status).toBe(202);
    const ids = tasks.map(({ task_id }) => task_id);
    const onWorld = await runsOn(database, world.url, ids);
    // Timers, sockets and renewals of the world's control plane stand still with this process.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STILL_MS);
    const readers = ids.map((id) => new ReturningReader(id));
    await Promise.all(readers.map((reader) => reader.readToEnd(() => b.url, 150_000)));
    for (const reader of readers) {
      expect(reader.frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: LENGTH } });
      expect(indicesOf(reader.frames)).toEqual(Array.from({ length: LENGTH }, (_, index) => index));
    }
    expect(new Set(readers.map(({ frames }) => tokensOf(frames).join(''))).size).toBe(1);
    const kept = await keptOf(database, onWorld);
    expect(kept.leases.map(({ lease }) => lease.release_reason)).toEqual(['holder_lost', 'completed']);
    expect(world.logLines().join('')).not.toContain('unhandled');
    const acknowledged = new Map(ids.map((id) => [id, null]));
    const evidence = await watch.evidence({ readers, acknowledged, patienceMs: 60_000 });
    await expectInvariants('fault 12, an event loop that stood still', evidence);
    await b.end('SIGINT');
    await b.remove();
    nodes.pop();
  }, 200_000);
});
