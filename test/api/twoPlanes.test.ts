/** What one node tells of pools that others serve too, or alone: two control planes in this process, on one database. */

import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { gql } from '../support/graphql.js';
import { ask, get, post, readStream, taskRequest } from '../support/rest.js';
import { startWorld, type World } from '../support/world.js';

interface PoolOptions {
  readonly id: string;
  readonly policy?: string;
  readonly capacity?: number;
}

function config(pools: readonly PoolOptions[]): string {
  const one = ({ id, policy = 'reject', capacity = 4 }: PoolOptions) => `
  - id: ${id}
    engine: llamacpp
    model: ${id}-7b
    ctx: 4096
    devices: [0]
    slots: 1
    queue: { capacity: ${capacity}, full_policy: ${policy} }
    timeouts: { wall_ms: 60000, idle_ms: 5000 }
    provisioning:
      mode: simulated
      simulated: { tokens_per_second: 50, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }`;
  return `gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }\npools:${pools.map(one).join('')}\n`;
}

let a: World;
let b: World;
beforeAll(async () => {
  a = await startWorld({ config: config([{ id: 'both' }]) });
  const pools = [{ id: 'both', policy: 'drop-lru', capacity: 9 }, { id: 'far' }];
  b = await startWorld({ config: config(pools), databaseUrl: async () => a.database.url });
  // Each looks for the other once a second.
  const question =
    '{ explainPlacement(input: { pool: "both", prompt: "x", maxTokens: 1 }) { candidates { pool score { slotsFree } } } }';
  const slots = async ({ url }: World) => {
    const { candidates } = (await gql(url, question)).data.explainPlacement;
    return candidates.find(({ pool }: { pool: string }) => pool === 'both')?.score.slotsFree;
  };
  for (const node of [a, b]) {
    const both = async () => (await slots(node)) === 2;
    if (!(await pollUntil(both, { everyMs: 50, deadlineMs: 15_000 })))
      throw new Error('one node does not see the other');
  }
});
afterAll(async () => {
  await b[Symbol.asyncDispose]();
  await a[Symbol.asyncDispose]();
});

function send(world: World, pool: string, overrides: Record<string, unknown> = {}) {
  const task = taskRequest({ model_ref: `${pool}-7b`, max_tokens: 3000, deadline_ms: 120_000, ...overrides });
  return post(world.url, '/v1/tasks', task);
}

async function submit(world: World, pool: string, overrides: Record<string, unknown> = {}): Promise<string> {
  const task_id = randomUUID();
  const answer = await send(world, pool, { task_id, ...overrides });
  expect(answer.status, await answer.text()).toBe(202);
  return task_id;
}

async function running(world: World, pool: string): Promise<string> {
  const id = await submit(world, pool);
  await readStream(world.url, id, { until: (frame) => frame.event === 'token' });
  return id;
}

const cancel = (ids: readonly string[]) => Promise.all(ids.map((id) => post(a.url, `/v1/tasks/${id}/cancel`, {})));
const basisOf = async (id: string) =>
  (await a.database.query('SELECT start_basis AS basis FROM tasks WHERE id = $1', [id]))[0]?.basis;

/** Of the interactive lane, as a node tells it. */
async function quoteAt(world: World, pool: string) {
  const query = `{ pool(name: "${pool}") { queue { lanes { priority quote { p50Ms sampleCount } quoteWithheldBecause { code } } } } }`;
  const { data } = await gql(world.url, query);
  return data.pool.queue.lanes.find((lane: { priority: string }) => lane.priority === 'INTERACTIVE');
}

describe('a pool of two nodes', () => {
  it('has the queue settings of the first; the other says in its log and in its reasons that its own do not hold', async () => {
    const told = 'full_policy is reject, not drop-lru; capacity is 4, not 9';
    const { pools } = (await (await fetch(`${b.url}/ready`)).json()) as { pools: { id: string; reasons: unknown[] }[] };
    expect(pools.find(({ id }) => id === 'both')?.reasons).toEqual([
      expect.objectContaining({ code: 'SETTINGS_IGNORED', message: expect.stringContaining(told) }),
    ]);
    expect(b.logLines().some((line) => line.includes('SETTINGS_IGNORED') && line.includes(told))).toBe(true);
    expect(a.logLines().some((line) => line.includes('SETTINGS_IGNORED'))).toBe(false);
    expect(await (await fetch(`${a.url}/ready`)).json()).toMatchObject({ pools: [{ id: 'both', reasons: [] }] });
  });

  it('counts the slots of both, and tells the policy that holds', async () => {
    await expect.poll(async () => (await quoteAt(a, 'both'))?.quote?.p50Ms).toBe(0);
    const busy = [await running(a, 'both'), await running(b, 'both')];
    const waiting: string[] = [];
    for (const world of [a, b, a, b]) waiting.push(await submit(world, 'both'));
    for (const id of waiting) expect(await basisOf(id)).toMatchObject({ slotsTotal: 2, slotsReady: 2 });
    for (const world of [a, b]) {
      const refused = await send(world, 'both');
      expect(refused.status).toBe(429);
      expect(await refused.json()).toMatchObject({ code: 'ADMISSION_REJECT', policy_label: 'reject' });
    }
    await cancel([...waiting, ...busy]);
  });
});

describe('a pool of the other node alone', () => {
  it('is quoted by what that node measures, as long as both run', async () => {
    expect(await quoteAt(a, 'far')).toMatchObject({ quote: { p50Ms: 0 }, quoteWithheldBecause: null });
    for (let n = 0; n < 6; n += 1) await readStream(a.url, await submit(a, 'far', { max_tokens: 2 }));
    await expect.poll(async () => (await quoteAt(a, 'far'))?.quote?.sampleCount).toBe(6);
    expect((await quoteAt(b, 'far'))?.quote?.sampleCount).toBe(6);
  });
});

describe('a run whose lease was lost', () => {
  it('is not counted as a service', async () => {
    const before = (await quoteAt(b, 'far'))?.quote?.sampleCount;
    const id = await running(b, 'far');
    await a.database.query(
      `WITH lost AS (UPDATE leases SET released_at = now(), release_reason = 'holder_lost' WHERE task_id = $1)
       UPDATE tasks SET status = 'QUEUED', lease_id = NULL, replica_id = NULL WHERE id = $1`,
      [id],
    );
    const attempts = async () =>
      (await a.database.query('SELECT attempts FROM tasks WHERE id = $1', [id]))[0]?.attempts;
    await expect.poll(attempts).toBe(2);
    await cancel([id]);
    await readStream(b.url, await submit(b, 'far', { max_tokens: 2 }));
    await expect.poll(async () => (await quoteAt(b, 'far'))?.quote?.sampleCount).toBe(before + 2);
  });
});

describe('the nodes', () => {
  it('have one catalog: a model that one was given is known to all, with its state, and refused by all', async () => {
    const model = { id: 'far-7b', digest: `sha256:${'e'.repeat(64)}`, tags: ['kept'] };
    expect((await post(a.url, '/v1/catalog/models', model)).status).toBe(201);
    expect((await post(a.url, '/v1/catalog/models/far-7b/state', { state: 'Retired' })).status).toBe(202);
    expect(await (await get(b.url, '/v1/catalog/models/far-7b')).json()).toMatchObject(model);
    await expect.poll(async () => (await send(b, 'far', { max_tokens: 2 })).status).toBe(410);
    expect((await ask(b.url, 'DELETE', '/v1/catalog/models/far-7b')).status).toBe(204);
    expect((await get(a.url, '/v1/catalog/models/far-7b')).status).toBe(404);
    await expect.poll(async () => (await send(a, 'far', { max_tokens: 2 })).status).toBe(202);
  });

  const ears = () =>
    a.database.query<{ pid: number }>(`SELECT pid FROM pg_stat_activity WHERE application_name = 'llama-orch wakes'
      AND datname = current_database() AND query IN ('LISTEN llama_orch_wake', 'SELECT 1')`);

  it('wake each other for queues, logs and cancels, and listen again when their connections were cut', async () => {
    await expect.poll(ears).toHaveLength(2);
    const cut = (await ears()).map(({ pid }) => pid);
    await a.database.query('SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS p(pid)', [cut]);
    const fresh = async () => (await ears()).filter(({ pid }) => !cut.includes(pid));
    await expect.poll(fresh).toHaveLength(2);
    const client = new pg.Client({ connectionString: a.database.url });
    const heard = new Set<string>();
    client.on('notification', ({ payload }) => heard.add(payload?.split(' ')[0] ?? ''));
    await client.connect();
    try {
      await client.query('LISTEN llama_orch_wake');
      await cancel([await running(a, 'far')]);
      await expect.poll(() => [...heard].sort()).toEqual(['log', 'queue', 'stop']);
    } finally {
      await client.end();
    }
  });
});
