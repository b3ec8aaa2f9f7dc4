/** Tasks that wait while their pool is given another model: who follows, who moves, who ends, and that none is forgotten. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { beginOperation, endOf, readOperation, statesOf } from '../support/operations.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { startWorld, type World } from '../support/world.js';

/** `sim` is reloaded; `twin` serves the same model, and is not. One slot each. */
function twoPools(memoryBytes: number): string {
  const pool = (id: string, device: number) => `
  - id: ${id}
    engine: llamacpp
    model: sim-7b
    ctx: 4096
    devices: [${device}]
    slots: 1
    timeouts: { wall_ms: 60000, idle_ms: 5000 }
    provisioning:
      mode: simulated
      simulated: { tokens_per_second: 100, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }`;
  const devices = ['A', 'B'].map((name) => `{ name: ${name}, memory_bytes: ${memoryBytes} }`).join(', ');
  return `gpu: { mode: simulated, devices: [${devices}] }\npools:${pool('sim', 0)}${pool('twin', 1)}\n`;
}

let world: World;
const reloadTo = (model: string, drainDeadlineMs = 20_000) =>
  beginOperation(
    world.url,
    `reloadPool(input: { pool: "sim", newModelRef: "${model}", drainDeadlineMs: ${drainDeadlineMs} })`,
  );

/** For whatever the pool serves. */
async function follow(maxTokens: number): Promise<string> {
  const document = `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) {
    __typename ... on TaskAccepted { taskId } ... on Refusal { code message } } }`;
  const { data } = await gql(world.url, document, { input: { pool: 'sim', prompt: 'The sea.', maxTokens } });
  expect(data?.submitTask.__typename, JSON.stringify(data)).toBe('TaskAccepted');
  return data.submitTask.taskId;
}

/** For a model by its name. */
async function ask(overrides: Record<string, unknown>): Promise<string> {
  const task = taskRequest({ max_tokens: 10, deadline_ms: 60_000, determinism: 'strict', ...overrides });
  const answer = await post(world.url, '/v1/tasks', task, { 'x-correlation-id': `corr-${task.task_id}` });
  expect(answer.status, await answer.text()).toBe(202);
  return task.task_id;
}
const pinned = (pool: string, rest = {}) => ask({ placement: { mode: 'pin', pin_pool_id: pool }, ...rest });
const preferring = (pool: string, rest = {}) => ask({ placement: { mode: 'prefer', prefer_pools: [pool] }, ...rest });

async function untilItRuns(taskId: string): Promise<string> {
  await readStream(world.url, taskId, { until: (frame) => frame.event === 'token' });
  return taskId;
}

async function ranOf(taskId: string) {
  const [row] = await world.database.query(
    `SELECT t.pool_id AS pool, t.model_ref AS model, a.content->>'model_ref' AS told, t.status
     FROM tasks t JOIN artifacts a ON a.id = t.transcript_id WHERE t.id = $1`,
    [taskId],
  );
  return row;
}

function logged(msg: string): Record<string, unknown>[] {
  const lines = world.logLines().map((line) => JSON.parse(line) as Record<string, unknown>);
  return lines.filter((line) => line.msg === msg);
}

function expectWhole(frames: readonly SseFrame[], tokens: number): void {
  expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: tokens } });
  expect(tokensOf(frames)).toHaveLength(tokens);
}

function expectStranded(frames: readonly SseFrame[], from: string, to: string): void {
  expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'POOL_UNAVAILABLE', retriable: true } });
  expect(frames.at(-1)?.data.message).toContain(`a reload gave pool sim the model ${to} in place of ${from}`);
}

const depths = async () =>
  (await world.database.query('SELECT depth FROM queue_lanes ORDER BY pool_id, priority')).map(({ depth }) => depth);

const cancel = (ids: readonly string[]) => Promise.all(ids.map((id) => post(world.url, `/v1/tasks/${id}/cancel`, {})));

async function untilItWaits(operation: string): Promise<void> {
  const waits = async () => statesOf(await readOperation(world.url, operation)).wait_for_running_tasks;
  await expect.poll(waits, { interval: 20 }).toBe('RUNNING');
}

/** Both slots are taken, five tasks wait, and the pool gets another model. */
async function reloadUnderLoad(from: string, to: string): Promise<void> {
  const busy = await Promise.all([
    pinned('sim', { model_ref: from, max_tokens: 3000 }),
    pinned('twin', { max_tokens: 3000 }),
  ]);
  for (const id of busy) await untilItRuns(id);
  const followers = [await follow(10), await follow(10)];
  const movers = [await preferring('sim'), await preferring('sim')];
  const stuck = await pinned('sim', { model_ref: from });
  const operation = await reloadTo(to);
  await untilItWaits(operation);
  await cancel(busy);
  expect(await endOf(world.url, operation)).toMatchObject({ state: 'SUCCEEDED', outcome: `serving ${to}` });
  for (const id of followers) {
    expectWhole(await readStream(world.url, id), 10);
    expect(await ranOf(id)).toEqual({ pool: 'sim', model: to, told: to, status: 'SUCCEEDED' });
  }
  for (const id of movers) {
    expectWhole(await readStream(world.url, id), 10);
    expect(await ranOf(id)).toEqual({ pool: 'twin', model: from, told: from, status: 'SUCCEEDED' });
    const moved = logged('task moved').find((line) => line.job_id === id);
    expect(moved).toMatchObject({ correlation_id: `corr-${id}`, from: 'sim', pool_id: 'twin', model_id: from });
    expect(moved?.human).not.toMatch(/sim|twin/);
  }
  expect(logged('pool reloaded').at(-1)).toMatchObject({ pool_id: 'sim', correlation_id: expect.any(String) });
  expectStranded(await readStream(world.url, stuck), from, to);
  expect(await ranOf(stuck)).toMatchObject({ pool: 'sim', model: from, status: 'DROPPED' });
  expect(await depths()).toEqual([0, 0, 0, 0]);
}

describe('with room beside the old engines', () => {
  beforeAll(async () => {
    world = await startWorld({ config: twoPools(24 * 1024 ** 3) });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  it('a reload drops none that follows its pool, moves those that may go elsewhere, and ends the others', async () => {
    await reloadUnderLoad('sim-7b', 'sim-8b');
  });

  it.runIf(LONG)('the way back does the same for those that named the model that was taken back', async () => {
    const running = await untilItRuns(await follow(3000));
    const id = await reloadTo('sim-9b', 1_000);
    await untilItWaits(id);
    const stopped = await untilItRuns(await follow(3000));
    const stuck = await pinned('sim', { model_ref: 'sim-9b' });
    const follower = await follow(10);
    expect(await endOf(world.url, id)).toMatchObject({ state: 'ROLLED_BACK', error: { code: 'DRAIN_TIMEOUT' } });
    for (const one of [stopped, stuck]) expectStranded(await readStream(world.url, one), 'sim-9b', 'sim-8b');
    await cancel([running]);
    expectWhole(await readStream(world.url, follower), 10);
    expect(await depths()).toEqual([0, 0, 0, 0]);
  });

  it('a run of the old model that lost its engine after the switch is not gone on with by another model', async () => {
    const old = await world.database.query<{ id: string; pid: number }>(
      `SELECT id, pid FROM replicas WHERE pool_id = 'sim' AND NOT retired`,
    );
    const running = await untilItRuns(await follow(3000));
    const id = await reloadTo('sim-10b');
    await untilItWaits(id);
    expect(old).toHaveLength(1);
    for (const { pid } of old) process.kill(pid, 'SIGKILL');
    expectStranded(await readStream(world.url, running), 'sim-8b', 'sim-10b');
    expect((await endOf(world.url, id)).state).toBe('SUCCEEDED');
    expect(await depths()).toEqual([0, 0, 0, 0]);
  });
});

describe('without room', () => {
  beforeAll(async () => {
    world = await startWorld({ config: twoPools(1_600_000_000) });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  it('the same, once the new model is ready', async () => {
    await reloadUnderLoad('sim-7b', 'sim-8b');
  });
});
