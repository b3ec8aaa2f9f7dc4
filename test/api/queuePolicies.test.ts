/** What callers of a full queue see, and those whose tasks make room for others: through GraphQL and REST. */

import { randomUUID } from 'node:crypto';
import { createClient } from 'graphql-ws';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { OVERDUE_AFTER_MS } from '../../src/core/queue.js';
import { gql, sseSubscription } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { scrape } from '../support/metrics.js';
import { post, readStream, type SseFrame, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const SUBMIT = `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) { __typename
  ... on TaskAccepted { taskId queuePosition } ... on Refusal { code message retriable retryAfterMs policyLabel } } }`;
const EVENTS = `subscription ($id: UUID!) { taskEvents(taskId: $id) { __typename
  ... on TaskFailed { seq error { code message retriable retryAfterMs } } } }`;

type Priority = 'interactive' | 'batch';

/** A pool with one slot, which one endless task has; so what comes next waits until that is cancelled. */
class FullPool {
  readonly world: World;
  readonly holder: string;

  private constructor(world: World, holder: string) {
    this.world = world;
    this.holder = holder;
  }

  static async open(options: Parameters<typeof simConfig>[0]): Promise<FullPool> {
    const world = await startWorld({ config: simConfig({ replicas: 1, slots: 1, tokensPerSecond: 20, ...options }) });
    const request = taskRequest({ max_tokens: 4000, deadline_ms: 600_000 });
    await post(world.url, '/v1/tasks', request);
    await readStream(world.url, request.task_id, { until: (frame) => frame.event === 'token' });
    return new FullPool(world, request.task_id);
  }

  async submit(priority: Priority): Promise<{ id: string; response: Response }> {
    const request = taskRequest({ priority, max_tokens: 2 });
    return { id: request.task_id, response: await post(this.world.url, '/v1/tasks', request) };
  }

  async admit(priority: Priority): Promise<string> {
    const { id, response } = await this.submit(priority);
    expect(response.status, await response.clone().text()).toBe(202);
    return id;
  }

  submitViaGraphQL(priority: Priority) {
    const input = { pool: 'sim', prompt: 'hello', maxTokens: 2, priority: priority.toUpperCase() };
    return gql(this.world.url, SUBMIT, { input }).then((answer) => answer.data?.submitTask);
  }

  /** Ends the waiting tasks, so that each test begins with an empty queue. */
  async empty(): Promise<void> {
    const rows = await this.world.database.query<{ id: string }>(`SELECT id FROM tasks WHERE status = 'QUEUED'`);
    for (const { id } of rows) await post(this.world.url, `/v1/tasks/${id}/cancel`, {});
  }

  async depths(): Promise<number[]> {
    const answer = await gql(this.world.url, `{ pool(name: "sim") { queue { depth capacity lanes { depth } } } }`);
    const { depth, capacity, lanes } = answer.data.pool.queue;
    return [depth, capacity, ...lanes.map((lane: { depth: number }) => lane.depth)];
  }

  /** The sum of a counter's samples with these labels. */
  async counter(name: string, labels: Readonly<Record<string, string>>): Promise<number> {
    const samples = (await scrape(this.world.url)).get(name) ?? [];
    const wanted = Object.entries(labels);
    const of = samples.filter((sample) => wanted.every(([key, value]) => sample.labels[key] === value));
    return of.reduce((sum, sample) => sum + sample.value, 0);
  }
}

/** What a refused caller gets, whatever refused it. */
async function expectPushedBack(response: Response, code: string, label: string): Promise<void> {
  const body = (await response.json()) as Record<string, unknown>;
  expect(response.status).toBe(429);
  expect(body).toMatchObject({ code, policy_label: label, retriable: true });
  const waitMs = Number(body.retry_after_ms);
  expect(waitMs).toBeGreaterThan(0);
  expect(response.headers.get('x-backoff-ms')).toBe(String(waitMs));
  expect(response.headers.get('retry-after')).toBe(String(Math.ceil(waitMs / 1000)));
}

/** Its whole stream, read until it ends by itself. */
function endOf(frames: readonly SseFrame[]): unknown {
  expect(frames).toHaveLength(1);
  return { event: frames[0]?.event, id: frames[0]?.id, code: frames[0]?.data.code };
}
const DROPPED = { event: 'error', id: '1', code: 'QUEUE_FULL_DROP_LRU' };

describe('drop-lru', () => {
  let pool: FullPool;
  beforeAll(async () => {
    pool = await FullPool.open({ capacity: 2, fullPolicy: 'drop-lru' });
  });
  afterAll(() => pool.world[Symbol.asyncDispose]());

  it('admits the newcomer, and ends the oldest batch task for its readers at once, by GraphQL and by SSE', async () => {
    const [oldest, newer] = [await pool.admit('batch'), await pool.admit('batch')];
    const reading = readStream(pool.world.url, oldest);
    const following = sseSubscription(pool.world.url, EVENTS, { id: oldest });
    expect(await pool.submitViaGraphQL('interactive')).toMatchObject({ __typename: 'TaskAccepted', queuePosition: 0 });
    expect(endOf(await reading)).toEqual(DROPPED);
    const events = await following;
    expect(events.map((event) => event.data.taskEvents)).toMatchObject([
      { __typename: 'TaskFailed', seq: 1, error: { code: 'QUEUE_FULL_DROP_LRU', retriable: true } },
    ]);
    expect(await pool.depths()).toEqual([2, 2, 1, 1]);
    await pool.admit('interactive');
    expect(endOf(await readStream(pool.world.url, newer))).toEqual(DROPPED);
    expect(await pool.depths()).toEqual([2, 2, 2, 0]);
    const query = `query ($id: UUID!) { task(taskId: $id) { status finishReason error { code } transcript { content } } }`;
    const answer = await gql(pool.world.url, query, { id: oldest });
    expect(answer.data.task).toMatchObject({
      status: 'DROPPED',
      finishReason: 'displaced',
      error: { code: 'QUEUE_FULL_DROP_LRU' },
      transcript: { content: { task_id: oldest, status: 'DROPPED', text: '', error: { code: 'QUEUE_FULL_DROP_LRU' } } },
    });
  });

  it('refuses a batch newcomer that could only displace interactive tasks, and displaces the oldest of those for their like', async () => {
    await pool.empty();
    const [first] = [await pool.admit('interactive'), await pool.admit('interactive')];
    const { response } = await pool.submit('batch');
    await expectPushedBack(response, 'QUEUE_FULL_DROP_LRU', 'drop-lru');
    expect(await pool.submitViaGraphQL('batch')).toMatchObject({
      __typename: 'Backpressure',
      code: 'QUEUE_FULL_DROP_LRU',
      policyLabel: 'drop-lru',
      retriable: true,
      retryAfterMs: expect.any(Number),
    });
    await pool.admit('interactive');
    expect(endOf(await readStream(pool.world.url, first))).toEqual(DROPPED);
  });

  it('counts what it drops and what it refuses, and a drop once', async () => {
    const dropped = await pool.world.database.query(`SELECT 1 FROM tasks WHERE status = 'DROPPED'`);
    expect(await pool.counter('tasks_dropped_total', { policy: 'drop-lru', pool_id: 'sim' })).toBe(dropped.length);
    const refused = await pool.counter('tasks_rejected_total', { reason: 'QUEUE_FULL_DROP_LRU' });
    expect(refused).toBeGreaterThan(0);
    const events = await pool.counter('admission_backpressure_events_total', { policy: 'drop-lru' });
    expect(events).toBe(dropped.length + refused);
  });

  it('keeps its bound under 100 submissions at once, and ends every stream', async () => {
    await pool.empty();
    const sent = await Promise.all(
      Array.from({ length: 100 }, (_, n) => pool.submit(n % 2 === 0 ? 'batch' : 'interactive')),
    );
    const admitted = sent.filter(({ response }) => response.status === 202).map(({ id }) => id);
    expect(sent.every(({ response }) => response.status === 202 || response.status === 429)).toBe(true);
    expect(await pool.depths()).toEqual([2, 2, 2, 0]);
    const waiting = await pool.world.database.query<{ id: string }>(`SELECT id FROM tasks WHERE status = 'QUEUED'`);
    const gone = admitted.filter((id) => !waiting.some((row) => row.id === id));
    expect(gone).toHaveLength(admitted.length - 2);
    for (const id of gone) expect(endOf(await readStream(pool.world.url, id))).toEqual(DROPPED);
  });
});

describe('shed-low-priority', () => {
  let pool: FullPool;
  beforeAll(async () => {
    pool = await FullPool.open({ capacity: 2, fullPolicy: 'shed-low-priority' });
  });
  afterAll(() => pool.world[Symbol.asyncDispose]());

  it('refuses batch newcomers, and ends the newest batch task for an interactive one', async () => {
    const [older, newest] = [await pool.admit('batch'), await pool.admit('batch')];
    await expectPushedBack((await pool.submit('batch')).response, 'ADMISSION_REJECT', 'shed-low-priority');
    const reading = readStream(pool.world.url, newest);
    await pool.admit('interactive');
    expect(endOf(await reading)).toEqual(DROPPED);
    await pool.admit('interactive');
    expect(endOf(await readStream(pool.world.url, older))).toEqual(DROPPED);
    await expectPushedBack((await pool.submit('interactive')).response, 'ADMISSION_REJECT', 'shed-low-priority');
    expect(await pool.submitViaGraphQL('interactive')).toMatchObject({
      code: 'ADMISSION_REJECT',
      policyLabel: 'shed-low-priority',
    });
    expect(await pool.counter('admission_backpressure_events_total', { policy: 'shed-low-priority' })).toBe(5);
  });
});

describe('reject', () => {
  it('tells a refused caller when to come back by the measured rate of the pool', async () => {
    const config = simConfig({ replicas: 1, slots: 1, tokensPerSecond: 20, capacity: 4 });
    await using world = await startWorld({ config });
    const send = (max_tokens: number, overrides = {}) => {
      const request = taskRequest({ max_tokens, ...overrides });
      return post(world.url, '/v1/tasks', request).then((response) => ({ id: request.task_id, response }));
    };
    // Two tasks of one and a half seconds each, and one that does not end, one after the other in the one slot.
    await send(30);
    await send(30);
    const { id } = await send(4000);
    await readStream(world.url, id, { until: (frame) => frame.event === 'started' });
    for (let n = 0; n < 4; n += 1) expect((await send(1)).response.status).toBe(202);
    const { response } = await send(1);
    const waitMs = Number(response.headers.get('x-backoff-ms'));
    await expectPushedBack(response, 'ADMISSION_REJECT', 'reject');
    // While nothing is measured the first caller is told a second.
    expect(waitMs).toBeGreaterThan(1200);
  });
});

describe('ageing', () => {
  it.runIf(LONG)('serves an overdue batch task as every fourth while interactive ones wait', async () => {
    const pool = await FullPool.open({ capacity: 20 });
    await using world = pool.world;
    const late = [await pool.admit('batch'), await pool.admit('batch')];
    await world.database.query(
      `UPDATE tasks SET created_at = created_at - $1 * interval '1 ms' WHERE status = 'QUEUED'`,
      [OVERDUE_AFTER_MS],
    );
    const urgent: string[] = [];
    for (let n = 0; n < 7; n += 1) urgent.push(await pool.admit('interactive'));
    // The dispatcher has looked at the lanes since: their ages come with their depths.
    await expect.poll(() => pool.counter('queue_depth', { priority: 'interactive' })).toBe(7);
    await post(world.url, `/v1/tasks/${pool.holder}/cancel`, {});
    for (const id of [...late, ...urgent]) expect((await readStream(world.url, id)).at(-1)?.event).toBe('end');
    const leases = await world.database.query<{ id: string }>(
      'SELECT task_id AS id FROM leases WHERE task_id <> $1 ORDER BY leases.id',
      [pool.holder],
    );
    const [a, b, c, d, e, f, g] = urgent;
    expect(leases.map(({ id }) => id)).toEqual([a, b, c, late[0], d, e, f, late[1], g]);
  });
});

describe('rate limits', () => {
  const TOKEN = 'a-token-of-some-length';
  let world: World;
  beforeAll(async () => {
    const priorities = [{ name: 'interactive', rate_limit_rps: 0.02 }];
    const env = { AUTH_TOKEN: TOKEN, AUTH_OPTIONAL: 'true' };
    world = await startWorld({ config: simConfig({ priorities }), env });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  it('are kept per caller and priority, before anything is written, and never against a task that is known', async () => {
    const admitted = taskRequest();
    const first = await post(world.url, '/v1/tasks', admitted);
    expect(first.status).toBe(202);
    const refused = taskRequest();
    await expectPushedBack(await post(world.url, '/v1/tasks', refused), 'ADMISSION_REJECT', 'rate-limit');
    expect(await world.database.query('SELECT 1 FROM tasks WHERE id = $1', [refused.task_id])).toEqual([]);
    const again = await post(world.url, '/v1/tasks', admitted);
    expect(await again.json()).toEqual(await first.json());
    expect((await post(world.url, '/v1/tasks', taskRequest({ priority: 'batch' }))).status).toBe(202);
    const metrics = await scrape(world.url);
    expect(metrics.get('tasks_rate_limited_total')).toMatchObject([{ labels: { priority: 'interactive' }, value: 1 }]);
    expect(metrics.get('admission_backpressure_events_total') ?? []).toEqual([]);
  });

  it('know a caller by its token on every transport', async () => {
    const input = { pool: 'sim', prompt: 'hello', maxTokens: 2 };
    const client = createClient({
      url: `${world.url.replace('http', 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      retryAttempts: 0,
      connectionParams: { token: TOKEN },
    });
    const viaSocket = async () => {
      for await (const answer of client.iterate<{ submitTask: unknown }>({ query: SUBMIT, variables: { input } })) {
        return answer.data?.submitTask;
      }
    };
    expect(await viaSocket()).toMatchObject({ __typename: 'TaskAccepted' });
    expect(await viaSocket()).toMatchObject({
      __typename: 'Backpressure',
      code: 'ADMISSION_REJECT',
      policyLabel: 'rate-limit',
    });
    await client.dispose();
    const withToken = { authorization: `Bearer ${TOKEN}` };
    await expectPushedBack(
      await post(world.url, '/v1/tasks', taskRequest(), withToken),
      'ADMISSION_REJECT',
      'rate-limit',
    );
    // A token that is not the one we know is no new caller, but none.
    const unknown = { authorization: `Bearer ${randomUUID()}` };
    expect((await post(world.url, '/v1/tasks', taskRequest(), unknown)).status).toBe(401);
  });
});
