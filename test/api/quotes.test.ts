import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Database } from '../../src/store/database.js';
import { recentServices } from '../../src/store/quotes.js';
import { gql, sseSubscription } from '../support/graphql.js';
import { scrape } from '../support/metrics.js';
import { post, readStream, type SseFrame, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

/** One slot, 200 tokens a second: a task of 20 tokens holds it for about 100 ms. */
const CONFIG = simConfig({ tokensPerSecond: 200, replicas: 1, slots: 1 }).replace(
  'full_policy: reject',
  'full_policy: reject, assumed_service_ms: 7000',
);
const SOON = { timeout: 20_000, interval: 20 };

let world: World;

beforeAll(async () => {
  world = await startWorld({ config: CONFIG });
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

interface Quote {
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly sampleCount: number;
  readonly basis: string;
}

interface Accepted {
  readonly taskId: string;
  readonly queuePosition: number;
  readonly predictedStartMs: number;
  readonly quote: Quote | null;
  readonly quoteWithheldBecause: { readonly code: string } | null;
}

const QUOTE = 'quote { p50Ms p90Ms sampleCount basis } quoteWithheldBecause { code }';

async function submit(overrides: Record<string, unknown> = {}): Promise<Accepted> {
  const input = { pool: 'sim', prompt: 'Tell me about the sea.', maxTokens: 20, ...overrides };
  const { data } = await gql(
    world.url,
    `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) { __typename
       ... on TaskAccepted { taskId queuePosition predictedStartMs ${QUOTE} } ... on Refusal { code message } } }`,
    { input },
  );
  expect(data.submitTask.__typename, JSON.stringify(data)).toBe('TaskAccepted');
  return data.submitTask;
}

async function pool() {
  const { data } = await gql(
    world.url,
    `{ pool(name: "sim") { activeLeases quoteCalibration { samples p50Coverage p90Coverage meanAbsoluteErrorMs }
       queue { lanes { priority depth ${QUOTE} calibration { samples } } } } }`,
  );
  return data.pool;
}

/** A task that holds the slot until it is cancelled. */
async function occupy(): Promise<() => Promise<void>> {
  const { taskId } = await submit({ maxTokens: 3900 });
  await readStream(world.url, taskId, { until: (frame) => frame.event === 'token' });
  return async () => {
    expect((await post(world.url, `/v1/tasks/${taskId}/cancel`, {})).status).toBe(204);
  };
}

interface Grade {
  readonly task_id: string;
  readonly basis: string;
  readonly p50_ms: number;
  readonly p90_ms: number;
  readonly actual_ms: number;
}

function gradesOf(tasks: readonly Accepted[]): Promise<Grade[]> {
  return world.database.query<Grade>('SELECT * FROM quote_grades WHERE task_id = ANY($1::uuid[])', [
    tasks.map(({ taskId }) => taskId),
  ]);
}

function onTime(frames: readonly SseFrame[]): unknown[] {
  return frames.filter(({ event }) => event === 'metrics').map(({ data }) => data.on_time_probability);
}

// In order: what is known grows from one to the next.
describe('start quotes', () => {
  it('are 0 where a slot is free, and withheld with a reason while little has been measured', async () => {
    expect((await pool()).queue.lanes).toMatchObject([
      { priority: 'INTERACTIVE', quote: { p50Ms: 0, p90Ms: 0, sampleCount: 0, basis: 'SLOT_FREE' } },
      { priority: 'BATCH', quote: { p50Ms: 0, p90Ms: 0, sampleCount: 0, basis: 'SLOT_FREE' } },
    ]);
    const release = await occupy();
    const waits = await submit();
    expect(waits).toMatchObject({ queuePosition: 0, quote: null, quoteWithheldBecause: { code: 'THIN_DATA' } });
    // The numbers that the old contract demands come from the configured default, less what has passed of it.
    expect(waits.predictedStartMs).toBeGreaterThan(1000);
    expect(waits.predictedStartMs).toBeLessThanOrEqual(7000);
    const rest = await post(world.url, '/v1/tasks', taskRequest({ priority: 'batch' }));
    expect(((await rest.json()) as { predicted_start_ms: number }).predicted_start_ms).toBeGreaterThan(7000);
    expect((await pool()).queue.lanes[1]).toMatchObject({ quote: null, quoteWithheldBecause: { code: 'THIN_DATA' } });
    await release();
    await readStream(world.url, waits.taskId);
    expect((await pool()).quoteCalibration).toEqual({
      samples: 0,
      p50Coverage: null,
      p90Coverage: null,
      meanAbsoluteErrorMs: null,
    });
  });

  it('come from measured service times, and are graded against the wait that came', async () => {
    for (let n = 0; n < 8; n += 1) await readStream(world.url, (await submit()).taskId);
    const release = await occupy();
    const waiting: Accepted[] = [];
    for (let n = 0; n < 6; n += 1) waiting.push(await submit());
    const quotes = waiting.flatMap(({ quote }) => quote ?? []);
    expect(quotes.map(({ basis }) => basis)).toEqual(Array(6).fill('SERVICE_TIMES'));
    expect(waiting.map(({ queuePosition }) => queuePosition)).toEqual([0, 1, 2, 3, 4, 5]);
    for (const [index, { p50Ms, p90Ms, sampleCount }] of quotes.entries()) {
      expect(p90Ms).toBeGreaterThanOrEqual(p50Ms);
      expect(p50Ms).toBe(waiting[index]?.predictedStartMs);
      expect(sampleCount).toBeGreaterThanOrEqual(5);
      expect(p50Ms).toBeGreaterThanOrEqual(quotes[index - 1]?.p50Ms ?? 0);
    }
    // Five services of about 100 ms lie between the first and the last of them.
    expect((quotes[5]?.p50Ms ?? 0) - (quotes[0]?.p50Ms ?? 0)).toBeGreaterThan(250);
    await release();
    await Promise.all(waiting.map(({ taskId }) => readStream(world.url, taskId)));
    await expect.poll(async () => (await gradesOf(waiting)).length, SOON).toBe(6);
    for (const { actual_ms: actualMs, task_id: taskId } of await gradesOf(waiting)) {
      const { data } = await gql(
        world.url,
        `query ($taskId: UUID!) { task(taskId: $taskId) { ${QUOTE} quoteGrade { actualMs errorMs verdict } } }`,
        { taskId },
      );
      const { quote, quoteGrade } = data.task;
      expect(quote).toEqual(waiting.find((task) => task.taskId === taskId)?.quote);
      expect(quoteGrade).toMatchObject({ actualMs, errorMs: actualMs - quote.p50Ms });
      const isOver = actualMs > quote.p90Ms + 50;
      expect(quoteGrade.verdict).toMatch(isOver ? /^OVER_P90$/ : /^WITHIN_P[59]0$/);
    }
  });

  it('are calibrated in GraphQL and in the metrics, by the grades that are stored', async () => {
    const rows = await world.database.query<Grade>('SELECT * FROM quote_grades');
    const waits = rows.filter(({ basis }) => basis === 'service_times');
    const within = (of: 'p50_ms' | 'p90_ms') => waits.filter((row) => row.actual_ms <= row[of] + 50).length;
    const errorMs = waits.reduce((sum, row) => sum + Math.abs(row.actual_ms - row.p50_ms), 0);
    expect(waits.length).toBeGreaterThanOrEqual(6);
    const { quoteCalibration, queue } = await pool();
    expect(quoteCalibration.samples).toBe(waits.length);
    expect(quoteCalibration.p50Coverage).toBeCloseTo(within('p50_ms') / waits.length, 9);
    expect(quoteCalibration.p90Coverage).toBeCloseTo(within('p90_ms') / waits.length, 9);
    expect(quoteCalibration.meanAbsoluteErrorMs).toBeCloseTo(errorMs / waits.length, 6);
    expect(queue.lanes.map((lane: { calibration: { samples: number } }) => lane.calibration.samples)).toEqual([
      waits.length,
      0,
    ]);
    const metrics = await scrape(world.url);
    const verdicts = metrics.get('start_quotes_total') ?? [];
    const count = (of: (verdict: string) => boolean) =>
      verdicts.reduce((sum, { labels, value }) => sum + (of(labels.verdict ?? '') ? value : 0), 0);
    expect(count((verdict) => verdict !== 'withheld')).toBe(rows.length);
    // Every task so far, and each was either graded or had no quote; of these, two had none for sure.
    expect(count(() => true)).toBe(18);
    expect(count((verdict) => verdict === 'withheld')).toBeGreaterThanOrEqual(2);
    const errors = (metrics.get('start_quote_error_ms_count') ?? []).reduce((sum, { value }) => sum + value, 0);
    expect(errors).toBe(rows.length);
  });
});

describe('a deadline', () => {
  it('that cannot be met is refused with 400 DEADLINE_UNMET, and nothing is written; a known task keeps its receipt', async () => {
    const release = await occupy();
    const request = taskRequest({ deadline_ms: 30_000 });
    const first = await post(world.url, '/v1/tasks', request);
    expect(first.status).toBe(202);
    const receipt = await first.text();
    const waiting = await Promise.all(Array.from({ length: 12 }, () => submit()));
    await expect.poll(async () => (await pool()).queue.lanes[0].quote?.p50Ms ?? 0, SOON).toBeGreaterThan(300);
    const infeasible = taskRequest({ deadline_ms: 100 });
    const refused = await post(world.url, '/v1/tasks', infeasible);
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({ code: 'DEADLINE_UNMET', field: 'deadline_ms', retriable: true });
    const { data } = await gql(
      world.url,
      `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) { __typename ... on Refusal { code field retryAfterMs } } }`,
      { input: { pool: 'sim', prompt: 'x', maxTokens: 5, deadlineMs: 100 } },
    );
    expect(data.submitTask).toMatchObject({
      __typename: 'InvalidParams',
      code: 'DEADLINE_UNMET',
      field: 'deadline_ms',
    });
    expect(data.submitTask.retryAfterMs).toBeGreaterThan(0);
    expect(await world.database.query('SELECT 1 FROM tasks WHERE id = $1', [infeasible.task_id])).toEqual([]);
    expect(await (await post(world.url, '/v1/tasks', request)).text()).toBe(receipt);
    await release();
    await Promise.all(waiting.map(({ taskId }) => readStream(world.url, taskId)));
    await readStream(world.url, request.task_id);
  });

  it('that passes while the task waits ends it with DEADLINE_UNMET, for its readers too, and no engine sees it', async () => {
    const release = await occupy();
    // Longer than what is quoted, shorter than the 19 s for which the slot can be held: it is taken, and waits in vain.
    const request = taskRequest({ deadline_ms: 3_000 });
    const answer = await post(world.url, '/v1/tasks', request);
    expect(answer.status, await answer.clone().text()).toBe(202);
    const frames = await readStream(world.url, request.task_id);
    expect(frames).toMatchObject([{ event: 'error', data: { code: 'DEADLINE_UNMET', retriable: true } }]);
    const { data } = await gql(
      world.url,
      `query ($id: UUID!) { task(taskId: $id) { status attempts error { code } finishReason transcript { artifactId } } }`,
      { id: request.task_id },
    );
    expect(data.task).toMatchObject({
      ...{ status: 'EXPIRED', attempts: 0, error: { code: 'DEADLINE_UNMET' }, finishReason: 'deadline' },
      transcript: { artifactId: expect.stringMatching(/^sha256:/) },
    });
    expect((await pool()).queue.lanes[0].depth).toBe(0);
    await release();
  });
});

describe('the chance to end in time', () => {
  it('stands in the metrics frames of a stream, and falls as the deadline comes nearer than the end', async () => {
    const [early, ...later] = onTime(await readStream(world.url, (await submit({ deadlineMs: 60_000 })).taskId));
    expect(early).toBe(1);
    expect(later).toEqual([]);
    // 700 tokens take 3.5 s; after 2 s it is plain that a deadline of 2.8 s will be missed.
    const { taskId } = await submit({ maxTokens: 700, deadlineMs: 2_800 });
    const frames = await readStream(world.url, taskId);
    const [start, atTwoSeconds] = onTime(frames);
    expect(start).toBeLessThan(0.5);
    expect(atTwoSeconds).toBeLessThan(0.2);
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'DECODE_TIMEOUT' } });
  });

  it('is the same in GraphQL', async () => {
    const { taskId } = await submit();
    const events = await sseSubscription(
      world.url,
      'subscription ($taskId: UUID!) { taskEvents(taskId: $taskId) { ... on TaskMetrics { onTimeProbability kvWarmth } } }',
      { taskId },
    );
    const metrics = events.map(({ data }) => data.taskEvents).filter((event) => 'onTimeProbability' in event);
    expect(metrics).toEqual([{ onTimeProbability: 1, kvWarmth: false }]);
  });
});

describe('after a restart', () => {
  it('quotes rest on the leases of the past', async () => {
    const services = await world.database.query<{ n: number }>(
      `SELECT count(*)::int AS n FROM leases WHERE release_reason IN ('completed', 'failed', 'canceled')`,
    );
    await using db = new Database(world.database.url, () => {});
    const samples = await recentServices(db, randomUUID(), new Date(0));
    expect(samples).toHaveLength(services[0]?.n ?? 0);
    expect(samples.every(({ poolId, heldMs }) => poolId === 'sim' && heldMs >= 0)).toBe(true);
  });
});
