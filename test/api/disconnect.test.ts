/** Tasks that end with their readers, over every transport, and tasks that do not. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gql, wsClient } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { bodyReader, post, type Reader, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;
beforeAll(async () => {
  world = await startWorld({ config: simConfig({ tokensPerSecond: 20, replicas: 1, slots: 6 }) });
});
afterAll(() => world[Symbol.asyncDispose]());

async function submit(input: Record<string, unknown>): Promise<string> {
  const document = `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) {
    __typename ... on TaskAccepted { taskId } ... on Refusal { code message field } } }`;
  const variables = { input: { pool: 'sim', prompt: 'The sea.', maxTokens: 3000, ...input } };
  const { data, errors } = await gql(world.url, document, variables);
  expect(data?.submitTask.__typename, JSON.stringify({ data, errors })).toBe('TaskAccepted');
  return data.submitTask.taskId;
}

type Open = (taskId: string) => Promise<Reader>;

const SUBSCRIPTION = 'subscription ($id: UUID!) { taskEvents(taskId: $id) { __typename seq } }';

const overRest =
  (query: string): Open =>
  (id) =>
    bodyReader(`${world.url}/v1/tasks/${id}/stream${query}`);
const overSse: Open = (id) => {
  const headers = { 'content-type': 'application/json', accept: 'text/event-stream' };
  const body = JSON.stringify({ query: SUBSCRIPTION, variables: { id } });
  return bodyReader(`${world.url}/graphql`, { method: 'POST', headers, body });
};
const overSocket: Open = async (id) => {
  const client = wsClient(world.url);
  let seen = 0;
  const reading = (async () => {
    for await (const _event of client.iterate({ query: SUBSCRIPTION, variables: { id } })) seen += 1;
  })().catch(() => {});
  await expect.poll(() => seen).toBeGreaterThan(0);
  return {
    leave: async () => {
      client.terminate();
      await reading;
    },
  };
};

const readersOf = (taskId: string) =>
  world.database.query('SELECT gone_at IS NULL AS here FROM task_readers WHERE task_id = $1', [taskId]);
const isRead = (taskId: string) => expect.poll(() => readersOf(taskId)).toEqual([{ here: true }]);

async function rowOf(taskId: string) {
  const [row] = await world.database.query(
    `SELECT status, finish_reason AS reason, cancel_slot_free_at IS NOT NULL AS free FROM tasks WHERE id = $1`,
    [taskId],
  );
  return row;
}
const endedWithReaders = (taskId: string) =>
  expect
    .poll(() => rowOf(taskId), { timeout: 10_000 })
    .toEqual({ status: 'CANCELED', reason: 'disconnect', free: true });

async function canceledBy(reason: string): Promise<number> {
  const text = await (await fetch(`${world.url}/metrics`)).text();
  const lines = text
    .split('\n')
    .filter((line) => line.startsWith('tasks_canceled_total') && line.includes(`reason="${reason}"`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

describe('a running task that ends with its readers', () => {
  it.each([
    ['the REST stream that asked for it', {}, overRest('?cancel_on_disconnect=1000')],
    ['the REST stream', { cancelOnDisconnect: 1000 }, overRest('')],
    ['GraphQL over SSE', { cancelOnDisconnect: 1000 }, overSse],
    ['GraphQL over WebSocket', { cancelOnDisconnect: 1000 }, overSocket],
  ] as const)('is over after %s is gone', async (_name, input, open) => {
    const before = await canceledBy('disconnect');
    const taskId = await submit(input);
    const reader = await open(taskId);
    await isRead(taskId);
    expect((await rowOf(taskId))?.status).toMatch(/QUEUED|LEASED|STREAMING/);
    await reader.leave();
    await endedWithReaders(taskId);
    expect((await readStream(world.url, taskId)).at(-1)).toMatchObject({ event: 'end', data: { canceled: true } });
    expect(await canceledBy('disconnect')).toBe(before + 1);
  });

  it.runIf(LONG)('goes on while one of its readers is there, whichever, and when one comes back in time', async () => {
    const [two, back, left, plain] = [
      await submit({ cancelOnDisconnect: 1000 }),
      await submit({ cancelOnDisconnect: 3000, maxTokens: 80 }),
      await submit({ cancelOnDisconnect: 2000 }),
      await submit({}),
    ];
    const [rest, socket] = [await overRest('')(two), await overSocket(two)];
    const leaving = await Promise.all([back, left, plain].map(overSse));
    for (const id of [two, back, left]) await isRead(id);
    await Promise.all([rest, ...leaving].map((reader) => reader.leave()));
    await expect.poll(() => readersOf(back)).toEqual([{ here: false }]);
    const reading = readStream(world.url, back);
    // Longer than the grace of the first, which has a reader left, and than what the second was alone.
    await endedWithReaders(left);
    expect(await rowOf(two)).toMatchObject({ status: 'STREAMING' });
    expect(tokensOf(await reading)).toHaveLength(80);
    await socket.leave();
    await endedWithReaders(two);
    expect(await rowOf(plain)).toMatchObject({ status: 'STREAMING' });
    expect(await readersOf(plain)).toEqual([]);
    await post(world.url, `/v1/tasks/${plain}/cancel`, {});
    expect(await rowOf(plain)).toMatchObject({ status: 'CANCELED', reason: 'canceled' });
    await expect.poll(() => readersOf(two), { timeout: 10_000 }).toEqual([]);
  });
});

describe('a waiting task that ends with its readers', () => {
  it.runIf(LONG)('is over when they are gone, and waits on when none ever came', async () => {
    const running = await Promise.all(Array.from({ length: 6 }, () => submit({})));
    for (const id of running) await expect.poll(async () => (await rowOf(id))?.status).toBe('STREAMING');
    const unread = await submit({ cancelOnDisconnect: 1000 });
    const read = await submit({ cancelOnDisconnect: true });
    const byQuery = taskRequest({ placement: { mode: 'pin', pin_pool_id: 'sim' } });
    expect((await post(world.url, '/v1/tasks', byQuery)).status).toBe(202);
    const [grace] = await world.database.query('SELECT disconnect_grace_ms AS ms FROM tasks WHERE id = $1', [read]);
    expect(grace).toEqual({ ms: 5000 });
    // The last word counts.
    const readers = [
      await overRest('?cancel_on_disconnect=1000')(read),
      await overRest('?cancel_on_disconnect=1000')(byQuery.task_id),
    ];
    for (const id of [read, byQuery.task_id]) await isRead(id);
    await Promise.all(readers.map((reader) => reader.leave()));
    await endedWithReaders(read);
    await endedWithReaders(byQuery.task_id);
    expect(await rowOf(unread)).toMatchObject({ status: 'QUEUED' });
    for (const id of [unread, ...running]) await post(world.url, `/v1/tasks/${id}/cancel`, {});
  });
});

describe('what cannot be', () => {
  it.each(['maybe', '-1', '999', '5.5', '1e999', ''])('?cancel_on_disconnect=%s is refused', async (given) => {
    const taskId = await submit({ maxTokens: 1 });
    const answer = await fetch(`${world.url}/v1/tasks/${taskId}/stream?cancel_on_disconnect=${given}`);
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ code: 'INVALID_PARAMS' });
  });

  it('is refused in GraphQL too, and an ended task is read as ever', async () => {
    const document = `mutation { submitTask(input: { pool: "sim", prompt: "x", maxTokens: 1, cancelOnDisconnect: 10 }) {
      __typename ... on Refusal { code field } } }`;
    const refused = { __typename: 'InvalidParams', code: 'INVALID_PARAMS', field: 'cancel_on_disconnect' };
    expect((await gql(world.url, document)).data.submitTask).toEqual(refused);
    expect((await gql(world.url, document.replace('10', '"soon"'))).errors?.[0]?.message).toContain('DisconnectGrace');
    const taskId = await submit({ maxTokens: 1 });
    await readStream(world.url, taskId);
    const reader = await overRest('?cancel_on_disconnect=true')(taskId);
    await reader.leave();
    expect(await rowOf(taskId)).toMatchObject({ status: 'SUCCEEDED' });
  });
});
