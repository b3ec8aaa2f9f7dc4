import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, followTask, request, type TaskEvent } from '../../src/client/connection.js';
import { cancelTaskDocument, poolsDocument, submitTaskDocument } from '../../src/client/operations.js';
import { type GraphQLAnswer, gql, sseSubscription, wsClient } from '../support/graphql.js';
import { readStream, tokensOf } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;

beforeAll(async () => {
  world = await startWorld({ config: simConfig({ tokensPerSecond: 300 }) });
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

const SUBMIT = `mutation ($input: SubmitTaskInput!) {
  submitTask(input: $input) {
    __typename
    ... on TaskAccepted { taskId queuePosition predictedStartMs task { status pool { name } } }
    ... on Refusal { code message field retriable retryAfterMs }
  }
}`;
const EVENTS = `subscription ($taskId: UUID!, $after: Int) {
  taskEvents(taskId: $taskId, after: $after) {
    __typename seq
    ... on TaskTokens { firstIndex tokens }
    ... on TaskEnded { tokensOut canceled finishReason }
    ... on TaskFailed { error { code message } }
  }
}`;

async function submit(overrides: Record<string, unknown> = {}): Promise<string> {
  const input = { pool: 'sim', prompt: 'Tell me about the sea.', maxTokens: 20, ...overrides };
  const answer = await gql(world.url, SUBMIT, { input });
  expect(answer.data?.submitTask.__typename, JSON.stringify(answer)).toBe('TaskAccepted');
  return answer.data.submitTask.taskId;
}

async function follow(taskId: string): Promise<TaskEvent[]> {
  const client = connect(world.url, null);
  const events: TaskEvent[] = [];
  for await (const event of followTask(client, taskId, { patienceMs: 0, retryEveryMs: 10, onLost: () => {} }))
    events.push(event);
  await client.dispose();
  return events;
}

function textOf(events: readonly TaskEvent[]): string[] {
  return events.flatMap((event) => (event.__typename === 'TaskTokens' ? event.tokens : []));
}

describe('a task through GraphQL', () => {
  it('streams the same tokens over WebSocket, SSE and REST, and keeps them', async () => {
    const taskId = await submit({ maxTokens: 25 });
    const [ws, sse, rest] = await Promise.all([
      follow(taskId),
      sseSubscription(world.url, EVENTS, { taskId }),
      readStream(world.url, taskId),
    ]);
    const kinds = ws.map((event) => event.__typename);
    expect(kinds[0]).toBe('TaskStarted');
    expect(kinds.at(-1)).toBe('TaskEnded');
    const bySse = sse.flatMap((answer) => answer.data.taskEvents.tokens ?? []);
    expect(textOf(ws)).toHaveLength(25);
    expect(bySse).toEqual(textOf(ws));
    expect(tokensOf(rest)).toEqual(textOf(ws));
    const { data } = await gql(
      world.url,
      `query ($id: UUID!) { task(taskId: $id) { status text tokensOut tokensIn seed attempts pool { name simulated } replica { name }
         lease { fencingToken releaseReason slot } transcript { artifactId kind } placement { chosen candidates { pool } } } }`,
      { id: taskId },
    );
    expect(data.task).toMatchObject({
      status: 'SUCCEEDED',
      text: textOf(ws).join(''),
      tokensOut: 25,
      attempts: 1,
      pool: { name: 'sim', simulated: true },
      lease: { releaseReason: 'completed' },
      transcript: { artifactId: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) },
      placement: { chosen: 'sim' },
    });
  });

  it('resumes after any event with exactly the rest', async () => {
    const taskId = await submit({ maxTokens: 10 });
    const whole = textOf(await follow(taskId));
    for (let after = 0; after <= 11; after += 1) {
      const rest = await sseSubscription(world.url, EVENTS, { taskId, after });
      expect(rest.flatMap((answer) => answer.data.taskEvents.tokens ?? [])).toEqual(whole.slice(after));
      expect(rest.at(-1)?.data.taskEvents).toMatchObject({ __typename: 'TaskEnded', tokensOut: 10 });
    }
  });

  it('cancels a running and a queued task, confirmed', async () => {
    const running = await Promise.all([1, 2, 3, 4].map(() => submit({ maxTokens: 4000, ctx: 4096, prompt: 'x' })));
    const queued = await submit();
    await expect
      .poll(async () => (await gql(world.url, `{ pool(name: "sim") { activeLeases queue { depth } } }`)).data.pool)
      .toEqual({ activeLeases: 4, queue: { depth: 1 } });
    const waiting = await gql(
      world.url,
      `query ($id: UUID!) { task(taskId: $id) { queuePosition waitingBecause { code } } }`,
      { id: queued },
    );
    expect(waiting.data.task.queuePosition).toBe(0);
    expect(waiting.data.task.waitingBecause).not.toEqual([]);
    const client = connect(world.url, null);
    for (const taskId of [queued, ...running]) {
      const { cancelTask } = await request(client, cancelTaskDocument, { input: { taskId } });
      expect(cancelTask).toMatchObject({ __typename: 'TaskCanceled', canceled: true, slotFree: true });
      expect((await follow(taskId)).at(-1)).toMatchObject({ __typename: 'TaskEnded', canceled: true });
    }
    const again = await request(client, cancelTaskDocument, { input: { taskId: queued } });
    expect(again.cancelTask).toMatchObject({ __typename: 'TaskCanceled', canceled: false });
    await client.dispose();
  });
});

describe('bad input', () => {
  const refused: [string, Record<string, unknown>, string][] = [
    ['an unknown pool', { pool: 'nowhere' }, 'placement.pin_pool_id'],
    ['an unknown model', { pool: undefined, modelRef: 'no-such' }, 'model_ref'],
    ['an engine the pool does not run', { engine: 'VLLM' }, 'engine'],
    ['zero ctx', { ctx: 0 }, 'ctx'],
    ['negative ctx', { ctx: -1 }, 'ctx'],
    ['zero maxTokens', { maxTokens: 0 }, 'max_tokens'],
    ['negative maxTokens', { maxTokens: -3 }, 'max_tokens'],
    ['zero deadline', { deadlineMs: 0 }, 'deadline_ms'],
    ['a prompt that does not fit', { prompt: 'sea '.repeat(5000), maxTokens: 10 }, 'prompt'],
  ];
  it.each(refused)('%s is InvalidParams naming the field, and writes nothing', async (_name, overrides, field) => {
    const sessionId = randomUUID();
    const input = { pool: 'sim', prompt: 'p', maxTokens: 5, sessionId, ...overrides };
    const answer = await gql(world.url, SUBMIT, { input });
    expect(answer.data?.submitTask, JSON.stringify(answer)).toMatchObject({
      __typename: 'InvalidParams',
      code: 'INVALID_PARAMS',
      field,
    });
    expect(await world.database.query(`SELECT id FROM tasks WHERE session_id = $1`, [sessionId])).toEqual([]);
  });

  const malformed: [string, Record<string, unknown>][] = [
    ['a malformed uuid', { taskId: 'not-a-uuid' }],
    ['an unknown engine', { engine: 'CUDA' }],
    ['a body of the wrong shape', { prompt: 7 }],
    ['a fraction for an integer', { maxTokens: 1.5 }],
    ['an unknown field', { promt: 'x' }],
  ];
  it.each(malformed)('%s is an error with the code of the contract', async (_name, overrides) => {
    const answer = await gql(world.url, SUBMIT, { input: { pool: 'sim', prompt: 'p', maxTokens: 5, ...overrides } });
    expect(answer.data ?? null).toBeNull();
    expect(answer.errors?.[0]?.extensions).toMatchObject({ code: 'INVALID_PARAMS' });
    expect(answer.errors?.[0]?.message).toContain(Object.keys(overrides)[0] ?? '');
  });

  it('a conflict, an unknown task and a 10 MB prompt are typed, on every transport', async () => {
    const taskId = await submit();
    const conflict = await gql(world.url, SUBMIT, { input: { taskId, pool: 'sim', prompt: 'other', maxTokens: 5 } });
    expect(conflict.data.submitTask).toMatchObject({ __typename: 'Conflict', field: 'task_id' });
    expect(
      (await gql(world.url, `query ($id: UUID!) { task(taskId: $id) { status } }`, { id: randomUUID() })).data.task,
    ).toBeNull();
    const client = wsClient(world.url);
    const [answer] = await collect(client.iterate({ query: EVENTS, variables: { taskId: randomUUID() } }));
    expect(answer?.errors?.[0]?.extensions).toMatchObject({ code: 'INVALID_PARAMS' });
    await client.dispose();
    const [bySse] = await sseSubscription(world.url, EVENTS, { taskId: randomUUID() });
    expect(bySse?.errors?.[0]?.extensions).toMatchObject({ code: 'INVALID_PARAMS' });
    const large = await fetch(`${world.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        query: SUBMIT,
        variables: { input: { pool: 'sim', prompt: 'x'.repeat(10_000_000), maxTokens: 5 } },
      }),
    });
    expect(large.status).toBe(413);
    expect((await fetch(`${world.url}/health`)).status).toBe(200);
  });
});

async function collect(iterator: AsyncIterable<unknown>): Promise<GraphQLAnswer[]> {
  const answers: GraphQLAnswer[] = [];
  for await (const answer of iterator) answers.push(answer as GraphQLAnswer);
  return answers;
}

describe('what GraphQL shows', () => {
  it('pools, replicas, GPUs, queues, tasks, leases and sessions in one round trip', async () => {
    const sessionId = randomUUID();
    const taskId = await submit({ sessionId });
    await follow(taskId);
    const answer = await gql(
      world.url,
      `query ($session: UUID!) {
        pools { id name engine modelRef ready live draining notReadyBecause { code } contextLength devices { uuid }
          queue { capacity policy depth lanes { priority depth capacity } }
          replicas { id name state health engineVersion slotsTotal slotsFree deviceMask restartCount }
          tasks(first: 1) { edges { node { taskId } cursor } pageInfo { hasNextPage } } }
        gpus { uuid index name memoryTotalBytes memoryFreeBytes simulated replicas { name } }
        leases(first: 3) { edges { node { fencingToken task { taskId } replica { name } } } }
        session(sessionId: $session) { turns }
        capabilities { engines { engine } }
      }`,
      { session: sessionId },
    );
    expect(answer.errors).toBeUndefined();
    const [pool] = answer.data.pools;
    expect(pool).toMatchObject({
      name: 'sim',
      engine: 'LLAMACPP',
      ready: true,
      notReadyBecause: [],
      queue: { capacity: 64, policy: 'REJECT', depth: 0 },
    });
    expect(pool.replicas.map((replica: { state: string }) => replica.state)).toEqual(['READY', 'READY']);
    expect(answer.data.gpus.map((gpu: { memoryTotalBytes: string }) => gpu.memoryTotalBytes)).toEqual([
      '25769803776',
      '12884901888',
    ]);
    expect(Number(answer.data.gpus[0].memoryFreeBytes)).toBe(25_769_803_776 - 1_073_741_824);
    expect(answer.data.session).toEqual({ turns: 1 });
    const node = await gql(world.url, `query ($id: ID!) { node(id: $id) { __typename ... on Pool { name } } }`, {
      id: pool.id,
    });
    expect(node.data.node).toEqual({ __typename: 'Pool', name: 'sim' });
  });

  it('uses typed documents', async () => {
    const client = connect(world.url, null);
    const { pools } = await request(client, poolsDocument, {});
    expect(pools.map((pool) => pool.name)).toEqual(['sim']);
    const { submitTask } = await request(client, submitTaskDocument, {
      input: { pool: 'sim', prompt: 'p', maxTokens: 2 },
    });
    expect(submitTask.__typename).toBe('TaskAccepted');
    await client.dispose();
  });
});

describe('operating a pool', () => {
  it('drains, resumes and reloads, each an operation and a run of pool events', async () => {
    const client = wsClient(world.url);
    const sofar = await gql(world.url, `{ pool(name: "sim") { events(first: 100) { edges { cursor } } } }`);
    const after = sofar.data.pool.events.edges.at(-1).cursor;
    const events: string[] = [];
    const watching = (async () => {
      const query = `subscription ($after: String) { poolEvents(pool: "sim", after: $after) { kind } }`;
      for await (const answer of client.iterate<{ poolEvents: { kind: string } }>({
        query,
        variables: { after },
      })) {
        events.push(answer.data?.poolEvents.kind ?? 'none');
        if (events.at(-1) === 'reload_ended') return;
      }
    })();
    const operate = async (mutation: string) => {
      const answer = await gql(
        world.url,
        `mutation { op: ${mutation} { __typename ... on OperationAccepted { operation { id } } ... on Refusal { code message } } }`,
      );
      expect(answer.data?.op.__typename, JSON.stringify(answer)).toBe('OperationAccepted');
      const state = async () =>
        (await gql(world.url, `query ($id: ID!) { operation(id: $id) { state } }`, { id: answer.data.op.operation.id }))
          .data.operation.state;
      await expect.poll(state, { timeout: 15_000 }).toBe('SUCCEEDED');
    };
    await operate(`drainPool(input: { pool: "sim", deadlineMs: 5000 })`);
    const refused = await gql(world.url, SUBMIT, { input: { pool: 'sim', prompt: 'p', maxTokens: 2 } });
    expect(refused.data.submitTask).toMatchObject({
      __typename: 'Unavailable',
      code: 'POOL_UNAVAILABLE',
      retriable: true,
    });
    await operate(`resumePool(input: { pool: "sim" })`);
    await operate(`reloadPool(input: { pool: "sim", newModelRef: "sim-8b" })`);
    await watching;
    await client.dispose();
    expect(events.filter((kind) => !kind.startsWith('replica_'))).toEqual([
      'drain_started',
      'drain_ended',
      'resume_started',
      'resume_ended',
      'reload_started',
      'reload_ended',
    ]);
    expect((await gql(world.url, `{ pool(name: "sim") { modelRef ready draining } }`)).data.pool).toEqual({
      modelRef: 'sim-8b',
      ready: true,
      draining: false,
    });
    expect(textOf(await follow(await submit()))).toHaveLength(20);
    const unknown = await gql(
      world.url,
      `mutation { drainPool(input: { pool: "none", deadlineMs: 5 }) { __typename } }`,
    );
    expect(unknown.data.drainPool.__typename).toBe('NotFound');
  });
});
