/** docs/four-engines.yaml as a user runs it: every engine streams through both doors and can be cancelled. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gql, sseSubscription } from '../support/graphql.js';
import { indicesOf, post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { makeHome, processesOf, type ServerProcess, startServer } from '../support/server.js';

const ENGINES = ['llamacpp', 'vllm', 'tgi', 'triton'] as const;
type Engine = (typeof ENGINES)[number];

let home: Awaited<ReturnType<typeof makeHome>> | null = null;
let server: ServerProcess;
beforeAll(async () => {
  home = await makeHome();
  server = await startServer(home.path, { args: ['--config', 'docs/four-engines.yaml'] });
}, 60_000);
afterAll(async () => {
  try {
    if (home === null || server === undefined) return; // the start failed, and said so
    server.signal('SIGINT');
    expect(await server.exited).toEqual({ code: 0, signal: null });
    expect(processesOf(home.path)).toEqual([]);
  } finally {
    await home?.remove();
  }
}, 60_000);

const SUBMIT = `mutation ($input: SubmitTaskInput!) {
  submitTask(input: $input) { ... on TaskAccepted { taskId } ... on Refusal { code message } } }`;
const EVENTS = `subscription ($taskId: UUID!) { taskEvents(taskId: $taskId) {
  __typename seq ... on TaskTokens { firstIndex tokens } ... on TaskEnded { tokensOut finishReason }
  ... on TaskFailed { error { code message } } } }`;

async function throughRest(engine: Engine, over: Record<string, unknown> = {}) {
  const request = taskRequest({ engine, model_ref: `demo-${engine}`, seed: 11, max_tokens: 12, ...over });
  const response = await post(server.url, '/v1/tasks', request);
  expect(response.status).toBe(202);
  return request.task_id;
}

describe('four engines side by side', () => {
  it('are all ready, simulated, and say so', async () => {
    const { data } = await gql(
      server.url,
      '{ pools { name engine ready simulated replicas { state engineVersion slotsTotal } } }',
    );
    const replicas = [{ state: 'READY', engineVersion: expect.stringMatching(/\d/), slotsTotal: 2 }];
    const pools = ENGINES.map((engine) => ({
      ...{ name: engine, engine: engine.toUpperCase(), ready: true, simulated: true, replicas },
    }));
    expect(data.pools).toHaveLength(4);
    expect(data.pools).toEqual(expect.arrayContaining(pools));
  });

  it.each(ENGINES)('%s: streams the same text through REST and GraphQL', async (engine) => {
    const frames = await readStream(server.url, await throughRest(engine));
    expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 12 } });
    expect(indicesOf(frames)).toEqual(Array.from({ length: 12 }, (_, index) => index));

    const input = { pool: engine, prompt: 'Tell me about the sea.', seed: '11', maxTokens: 12 };
    const { data, errors } = await gql(server.url, SUBMIT, { input });
    expect(errors).toBeUndefined();
    const events = await sseSubscription(server.url, EVENTS, { taskId: data.submitTask.taskId });
    const seen = events.map((event) => event.data?.taskEvents);
    const tokens = seen.filter((event) => event?.__typename === 'TaskTokens').flatMap((event) => event.tokens);
    expect(tokens.join('')).toBe(tokensOf(frames).join(''));
    expect(seen.at(-1)).toMatchObject({ __typename: 'TaskEnded', tokensOut: 12, finishReason: 'length' });
  });

  it.each(ENGINES)('%s: a cancel is confirmed, and the slot serves the next task', async (engine) => {
    const taskId = await throughRest(engine, { max_tokens: 3_000 });
    await readStream(server.url, taskId, { until: (_frame, all) => indicesOf(all).length >= 3 });
    expect((await post(server.url, `/v1/tasks/${taskId}/cancel`, {})).status).toBe(204);
    const frames = await readStream(server.url, taskId);
    expect(frames.at(-1)).toMatchObject({ event: 'end', data: { canceled: true } });
    const query = 'query ($id: UUID!) { task(taskId: $id) { status cancellation { slotFreeAt } } }';
    const { data } = await gql(server.url, query, { id: taskId });
    expect(data.task).toEqual({ status: 'CANCELED', cancellation: { slotFreeAt: expect.any(String) } });
    const next = await readStream(server.url, await throughRest(engine));
    expect(next.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 12 } });
  });
});
