/** Sessions and their budgets as callers see them, over both doors; and what the engine does meanwhile. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sendSignal } from '../../src/host/procfs.js';
import { gql, sseSubscription } from '../support/graphql.js';
import { RealEngine } from '../support/realEngine.js';
import { post, readStream, type SseFrame, taskRequest } from '../support/rest.js';
import { startWorld, type World } from '../support/world.js';

const POOL = (id: string, model: string, tokensPerSecond: number) => `
  - id: ${id}
    engine: llamacpp
    model: ${model}
    ctx: 4096
    devices: [0]
    slots: 2
    provisioning:
      mode: simulated
      flags: [--slot-save-path, /nonexistent]
      simulated: { tokens_per_second: ${tokensPerSecond}, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }`;
const CONFIG = `
gpu:
  mode: simulated
  devices: [{ name: Big, memory_bytes: 25769803776 }]
budgets: { tokens: 1000, cost: 0.5, price_per_1k_tokens: 0.25 }
pools:${POOL('fast', 'sim-7b', 0)}${POOL('steady', 'sim-1b', 200)}
`;
const SOON = { timeout: 15_000, interval: 20 };
/** Of the simulator's tokenizer, begin-of-sequence included. */
const PROMPT_TOKENS = 9;

let world: World;

beforeAll(async () => {
  world = await startWorld({ config: CONFIG });
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

async function send(overrides: Record<string, unknown>): Promise<{ response: Response; taskId: string }> {
  const request = taskRequest({ ctx: 4096, ...overrides });
  return { response: await post(world.url, '/v1/tasks', request), taskId: request.task_id };
}

async function run(overrides: Record<string, unknown>): Promise<SseFrame[]> {
  const { response, taskId } = await send(overrides);
  expect(response.status, await response.clone().text()).toBe(202);
  return readStream(world.url, taskId);
}

async function info(sessionId: string): Promise<Record<string, unknown>> {
  const response = await fetch(`${world.url}/v1/sessions/${sessionId}`);
  return (await response.json()) as Record<string, unknown>;
}

async function setBudget(input: Record<string, unknown>) {
  const answer = await gql(
    world.url,
    `mutation ($input: SetSessionBudgetInput!) { setSessionBudget(input: $input) { __typename
       ... on SessionBudgetSet { session { turns budget { limits { tokens timeMs cost } remaining { tokens timeMs cost } } } }
       ... on Refusal { message field retriable } } }`,
    { input },
  );
  expect(answer.errors).toBeUndefined();
  return answer.data.setSessionBudget;
}

function budgetHeaders({ headers }: Response) {
  const names = ['tokens-remaining', 'time-remaining-ms', 'cost-remaining'];
  return names.map((name) => headers.get(`x-budget-${name}`));
}

function last(frames: readonly SseFrame[]): SseFrame | undefined {
  return frames.at(-1);
}

describe('a token and cost budget', () => {
  it('is reserved by a task, told at every door, and charged what was used', async () => {
    const session_id = randomUUID();
    const { response, taskId } = await send({ session_id, max_tokens: 100 });
    const reserved = PROMPT_TOKENS + 100;
    expect(response.status).toBe(202);
    expect(budgetHeaders(response)).toEqual([String(1000 - reserved), null, String(0.5 - reserved * 0.00025)]);
    const stream = await fetch(`${world.url}/v1/tasks/${taskId}/stream`);
    expect(stream.headers.get('x-budget-tokens-remaining')).toMatch(/^\d+$/);
    await stream.text();
    const frames = await readStream(world.url, taskId);
    const metrics = frames.find(({ event }) => event === 'metrics')?.data;
    expect(metrics).toMatchObject({ tokens_budget_remaining: 1000 - reserved });
    expect(metrics).not.toHaveProperty('time_budget_remaining_ms');
    const out = Number(last(frames)?.data.tokens_out);
    const left = { tokens_budget_remaining: 1000 - PROMPT_TOKENS - out };
    expect(await info(session_id)).toMatchObject({ turns: 1, ...left });
    const { data } = await gql(
      world.url,
      `query ($id: UUID!, $task: UUID!) { session(sessionId: $id) { budget { spent { tokens cost } reserved { tokens } } }
         task(taskId: $task) { tokensIn tokensOut } }`,
      { id: session_id, task: taskId },
    );
    expect(data.task).toEqual({ tokensIn: PROMPT_TOKENS, tokensOut: out });
    expect(data.session.budget).toEqual({
      spent: { tokens: String(PROMPT_TOKENS + out), cost: expect.closeTo((PROMPT_TOKENS + out) * 0.00025, 5) },
      reserved: { tokens: '0' },
    });
  });

  it('refuses what it will never pay for, and sends away what it may pay for once others have ended', async () => {
    const session_id = randomUUID();
    const never = await send({ session_id, max_tokens: 1500 });
    expect(never.response.status).toBe(400);
    expect(await never.response.json()).toMatchObject({
      code: 'INVALID_PARAMS',
      field: 'max_tokens',
      retriable: false,
    });
    expect((await fetch(`${world.url}/v1/sessions/${session_id}`)).status).toBe(404);

    const slow = await send({ session_id, model_ref: 'sim-1b', max_tokens: 900 });
    expect(slow.response.status).toBe(202);
    const later = await send({ session_id, max_tokens: 500 });
    expect(later.response.status).toBe(429);
    expect(await later.response.json()).toMatchObject({ code: 'ADMISSION_REJECT', policy_label: 'session-budget' });
    expect(later.response.headers.get('retry-after')).toBe('1');
    const low = await setBudget({ sessionId: session_id, tokens: 10 });
    expect(low).toMatchObject({ __typename: 'InvalidParams', field: 'tokens' });
    expect(low.message).toContain('909 tokens');

    expect((await post(world.url, `/v1/tasks/${slow.taskId}/cancel`, '')).status).toBe(204);
    await run({ session_id, max_tokens: 500 });
    // The first receipt stands, however little is left now.
    await setBudget({ sessionId: session_id, tokens: 1000, cost: null });
    expect(
      (await send({ session_id, task_id: slow.taskId, model_ref: 'sim-1b', max_tokens: 900 })).response.status,
    ).toBe(202);
  });
});

describe('GraphQL', () => {
  it('tells what is left with the receipt and in the metrics of the stream', async () => {
    const input = { pool: 'fast', prompt: 'Tell me about the sea.', maxTokens: 10 };
    const { data } = await gql(
      world.url,
      `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) {
         ... on TaskAccepted { taskId budget { tokens timeMs cost } } } }`,
      { input },
    );
    const tokens = String(1000 - PROMPT_TOKENS - 10);
    expect(data.submitTask.budget).toEqual({ tokens, timeMs: null, cost: expect.closeTo(0.49525, 5) });
    const events = await sseSubscription(
      world.url,
      `subscription ($id: UUID!) { taskEvents(taskId: $id) { __typename ... on TaskMetrics { budget { tokens } }
         ... on TaskStarted { promptCache { used because } } ... on TaskEnded { finishReason } } }`,
      { id: data.submitTask.taskId },
    );
    const told = events.map((event) => event.data.taskEvents);
    expect(told).toContainEqual({ __typename: 'TaskMetrics', budget: { tokens } });
    const because = 'strict determinism reads the whole prompt';
    expect(told[0]).toEqual({ __typename: 'TaskStarted', promptCache: { used: false, because } });
  });
});

describe('a time budget', () => {
  it('cuts a stream off when it runs out: what was said stands, the engine stops, and nothing more is admitted', async () => {
    const sessionId = randomUUID();
    const set = await setBudget({ sessionId, tokens: null, cost: null, timeMs: 700 });
    expect(set.session).toEqual({
      turns: 0,
      budget: {
        limits: { tokens: null, timeMs: '700', cost: null },
        remaining: { tokens: null, timeMs: '700', cost: null },
      },
    });
    const { response, taskId } = await send({ session_id: sessionId, model_ref: 'sim-1b', max_tokens: 3000 });
    expect(budgetHeaders(response)).toEqual([null, '0', null]);
    const frames = await readStream(world.url, taskId);
    const tokens = frames.filter(({ event }) => event === 'token').length;
    expect(tokens).toBeGreaterThan(20);
    expect(tokens).toBeLessThan(600);
    expect(last(frames)).toMatchObject({ event: 'end', data: { tokens_out: tokens, finish_reason: 'budget' } });
    const engine = await RealEngine.of(world, 'steady-0');
    await expect.poll(() => engine.busySlots(), SOON).toEqual([]);
    const leases = () => world.database.query('SELECT 1 FROM leases WHERE released_at IS NULL');
    await expect.poll(leases, SOON).toEqual([]);
    const after = await send({ session_id: sessionId, model_ref: 'sim-1b' });
    expect(after.response.status).toBe(400);
    expect(await after.response.json()).toMatchObject({
      field: 'session_id',
      message: expect.stringContaining('0 ms of its time budget of 700 ms left'),
    });
    expect(await info(sessionId)).toMatchObject({ turns: 1, time_budget_remaining_ms: 0 });
  });

  it('is taken in slices while a task runs, and what it did not use comes back', async () => {
    const sessionId = randomUUID();
    await setBudget({ sessionId, tokens: null, cost: null, timeMs: 60_000 });
    const { response, taskId } = await send({ session_id: sessionId, model_ref: 'sim-1b', max_tokens: 650 });
    expect(budgetHeaders(response)).toEqual([null, '55000', null]);
    const reserved = () => info(sessionId).then(({ time_budget_remaining_ms: left }) => 60_000 - Number(left));
    // It asks for more before it needs it.
    await expect.poll(reserved, SOON).toBe(10_000);
    await readStream(world.url, taskId);
    const spent = await reserved();
    expect(spent).toBeGreaterThan(2_500);
    expect(spent).toBeLessThan(9_000);
  }, 20_000);
});

describe('a session', () => {
  it('has its turns, and says so to the next', async () => {
    const session_id = randomUUID();
    for (let turn = 0; turn < 8; turn += 1) await run({ session_id, max_tokens: 2 });
    const { response } = await send({ session_id, max_tokens: 2 });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'INVALID_PARAMS', field: 'session_id', retriable: false });
    expect((await info(session_id)).turns).toBe(8);
  });

  it('reads less of a prompt that its engine has, unless it is strict, cold or deleted', async () => {
    const session_id = randomUUID();
    const engine = await RealEngine.of(world, 'fast-0');
    // Begins as no other prompt here does: a cache knows no sessions.
    const prompt = 'A river, a stone, a garden and what the lantern in the window tells of them.';
    const read = async (overrides: Record<string, unknown>) => {
      const before = await engine.promptTokens();
      const frames = await run({ session_id, prompt, max_tokens: 2, determinism: 'best_effort', ...overrides });
      expect(last(frames)?.event).toBe('end');
      const after = await engine.promptTokens();
      return { read: after.read - before.read, cached: after.cached - before.cached };
    };
    const first = await read({});
    expect(first.cached).toBeLessThan(2);
    const whole = first.read + first.cached;
    expect(await read({ kv_hint: 'reuse' })).toEqual({ read: 1, cached: whole - 1 });
    expect(await read({ kv_hint: 'reuse', determinism: 'strict' })).toEqual({ read: whole, cached: 0 });
    expect(await read({ kv_hint: 'cold' })).toEqual({ read: whole, cached: 0 });
    expect((await read({})).read).toBe(1);
    // Nobody else ran in its slot; the engine is told to drop what it holds.
    expect((await fetch(`${world.url}/v1/sessions/${session_id}`, { method: 'DELETE' })).status).toBe(204);
    const asked = () => world.database.query('SELECT 1 FROM session_evictions');
    await expect.poll(asked, SOON).toEqual([]);
    expect(await read({})).toEqual({ read: whole, cached: 0 });
  });

  it('that has expired is deleted, with what it holds', async () => {
    const session_id = randomUUID();
    await run({ session_id, max_tokens: 2 });
    await world.database.query(`UPDATE sessions SET expires_at = now() WHERE id = $1`, [session_id]);
    const left = () => world.database.query('SELECT 1 FROM sessions WHERE id = $1', [session_id]);
    await expect.poll(left, SOON).toEqual([]);
    expect((await fetch(`${world.url}/v1/sessions/${session_id}`)).status).toBe(404);
  });

  it('says why a run did not use a cache', async () => {
    const { taskId } = await send({ kv_hint: 'reuse', max_tokens: 2 });
    await readStream(world.url, taskId);
    const rows = await world.database.query<{ content: { run: { prompt_cache: unknown } } }>(
      'SELECT a.content FROM artifacts a JOIN tasks t ON t.transcript_id = a.id WHERE t.id = $1',
      [taskId],
    );
    const because = 'strict determinism reads the whole prompt; kv_hint reuse gives way to it';
    expect(rows[0]?.content.run.prompt_cache).toEqual({ used: false, because });
  });
});

describe('an engine that is killed', () => {
  it('costs its session nothing: a strict run that is repeated is charged once', async () => {
    const session_id = randomUUID();
    const { taskId } = await send({ session_id, model_ref: 'sim-1b', max_tokens: 150 });
    const engine = await RealEngine.of(world, 'steady-0');
    let killed = false;
    const frames = await readStream(world.url, taskId, {
      until: ({ event, data }) => {
        if (!killed && event === 'token' && data.i === 20) killed = sendSignal(engine.pid, 'SIGKILL');
        return false;
      },
    });
    expect(last(frames)?.event).toBe('end');
    const [task] = await world.database.query('SELECT attempts, tokens_in, tokens_out FROM tasks WHERE id = $1', [
      taskId,
    ]);
    expect(task).toMatchObject({ attempts: 2, tokens_in: PROMPT_TOKENS });
    expect(await info(session_id)).toMatchObject({
      tokens_budget_remaining: 1000 - PROMPT_TOKENS - Number(task?.tokens_out),
    });
  }, 25_000);
});
