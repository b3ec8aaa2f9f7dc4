/** What a day's traffic leaves in the log and in the metrics: every field, every name, every count. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ENGINES, ERROR_CODES } from '../../src/core/errors.js';
import { FULL_POLICIES } from '../../src/core/queue.js';
import { RETAINED } from '../../src/core/retention.js';
import { pollUntil } from '../../src/runtime/wait.js';
import type { MetricRow, metricsContract } from '../../src/telemetry/contract.js';
import { gql } from '../support/graphql.js';
import { parseMetrics, type Sample } from '../support/metrics.js';
import { post, readStream, taskRequest } from '../support/rest.js';
import { startWorld, type World } from '../support/world.js';

const POOL = (id: string, engine: string, model: string, tokensPerSecond: number) => `
  - id: ${id}
    engine: ${engine}
    model: ${model}
    devices: [0]
    queue: { capacity: 1, full_policy: reject }
    provisioning:
      mode: simulated
      simulated: { tokens_per_second: ${tokensPerSecond}, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }
`;
const CONFIG = `
retention: { every_ms: 200 }
gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
pools:${POOL('zpoolslow', 'llamacpp', 'm-slow', 50)}${POOL('zpoolquick', 'vllm', 'm-quick', 0)}`;
const SLOW = { model_ref: 'm-slow', engine: 'llamacpp' };
const QUICK = { model_ref: 'm-quick', engine: 'vllm' };
const SESSION = randomUUID();
const DRAINS = { 'x-correlation-id': 'corr-drain' };
const NOT_LOGGED_TEXT = 'never-log-this-prompt';

/** Labels whose every value stands in the contract, by name or by metric and name. */
const CLOSED: Readonly<Record<string, readonly string[]>> = {
  engine: ENGINES,
  policy: FULL_POLICIES,
  priority: ['interactive', 'batch'],
  ...{ pinned: ['true', 'false'], fallback: ['true', 'false'] },
  'retention_removed_total kind': RETAINED,
  'placement_decisions_total outcome': ['assigned', 'no_capacity'],
  'replica_preload_total outcome': ['passed', 'failed', 'refused'],
  'model_state state': ['Active', 'Retired'],
  'replica_readiness_transitions_total state': ['ready', 'unready'],
  'tasks_rejected_total reason': ERROR_CODES,
};

type Line = Readonly<Record<string, unknown>>;
let world: World;
let lines: readonly Line[];
let text: string;
const ids: Record<string, string> = {};

async function submit(name: string, over: Record<string, unknown>): Promise<number> {
  const request = taskRequest({ max_tokens: 5, prompt: NOT_LOGGED_TEXT, session_id: SESSION, ...over });
  ids[name] = request.task_id;
  return (await post(world.url, '/v1/tasks', request, { 'x-correlation-id': `corr-${name}` })).status;
}

const cancel = (name: string) => post(world.url, `/v1/tasks/${ids[name]}/cancel`, {});
const firstToken = (name: string) =>
  readStream(world.url, ids[name] ?? '', { until: (frame) => frame.event === 'token' });

async function traffic(): Promise<void> {
  for (const name of ['ok1', 'ok2']) {
    expect(await submit(name, { ...QUICK, sampler_profile_version: 'sp-1', seed: 77 })).toBe(202);
    await readStream(world.url, ids[name] ?? '');
  }
  expect(await submit('wrong', { ...QUICK, ctx: 1_000_000 })).toBe(400);
  expect(await submit('running', { ...SLOW, max_tokens: 2000 })).toBe(202);
  await firstToken('running');
  const reading = new AbortController();
  const stream = fetch(`${world.url}/v1/tasks/${ids.running}/stream`, { signal: reading.signal });
  const read = (await stream).text().catch(() => {});
  await seen(async () => gauge('stream_readers', await scrapeText()) === 1);
  reading.abort();
  await read;
  expect(await submit('waiting', SLOW)).toBe(202);
  expect(await submit('toomany', SLOW)).toBe(429);
  expect((await cancel('waiting')).status).toBe(204);
  expect((await cancel('running')).status).toBe(204);
  const [row] = await world.database.query<{ endpoint: string }>(
    `SELECT endpoint FROM replicas WHERE pool_id = 'zpoolslow'`,
  );
  expect((await post(row?.endpoint ?? '', '/sim/control', { fault: ['crash-at-token:2'] })).ok).toBe(true);
  expect(await submit('failed', { ...SLOW, determinism: 'best_effort', max_tokens: 50 })).toBe(202);
  expect((await readStream(world.url, ids.failed ?? '')).at(-1)?.event).toBe('error');
  expect((await post(world.url, '/v1/pools/zpoolquick/drain', { deadline_ms: 5000 }, DRAINS)).status).toBe(202);
  await seen(async () => /drain_duration_ms_count\{[^}]*zpoolquick[^}]*\} 1/.test(await scrapeText()));
  await world.database.query(
    `UPDATE pool_events SET at = now() - interval '100 days' WHERE seq = (SELECT min(seq) FROM pool_events)`,
  );
  await seen(async () => (await scrapeText()).includes('retention_removed_total{kind="pool_events"} 1'));
  // A quote is graded once it is written down.
  const graded = (samples: readonly Sample[] = []) =>
    samples.reduce((sum, { labels, value }) => (labels.pool_id === 'zpoolquick' ? sum + value : sum), 0);
  await seen(async () => graded(parseMetrics(await scrapeText()).get('start_quotes_total')) === 2);
}

/** A metric without labels. */
function gauge(name: string, exposed: string): number | undefined {
  return parseMetrics(exposed).get(name)?.[0]?.value;
}

async function seen(look: () => Promise<boolean>): Promise<void> {
  if (!(await pollUntil(look, { everyMs: 20, deadlineMs: 20_000 }))) throw new Error(world.logLines().join(''));
}

async function scrapeText(): Promise<string> {
  return (await fetch(`${world.url}/metrics`)).text();
}

beforeAll(async () => {
  world = await startWorld({ config: CONFIG });
  await traffic();
  await seen(async () => world.logLines().some((line) => line.includes('"outcome":"FAILED"')));
  lines = world.logLines().map((line) => JSON.parse(line) as Line);
  text = await scrapeText();
});
afterAll(() => world?.[Symbol.asyncDispose]());

describe('the log', () => {
  const of = (msg: string, name: string) => lines.find((line) => line.msg === msg && line.job_id === ids[name]);
  const task = (name: string, engine: string, model: string) => ({
    job_id: ids[name],
    session_id: SESSION,
    correlation_id: `corr-${name}`,
    engine,
    model_id: model,
    human: expect.any(String),
  });

  it('tells of a task from its admission to its end, with every field that is known by then', () => {
    const quick = { ...task('ok1', 'vllm', 'm-quick'), pool_id: 'zpoolquick' };
    const known = { ...quick, seed: '77', sampler_profile_version: 'sp-1' };
    const queue = { queue_position: 0, predicted_start_ms: expect.any(Number) };
    const run = {
      ...{ ...known, ...queue, replica_id: 'zpoolquick-0', engine_version: expect.stringMatching(/./) },
      ...{ queue_time_ms: expect.any(Number), kv_warmth: false },
    };
    expect(of('task placed', 'ok1')).toMatchObject(quick);
    expect(of('task admitted', 'ok1')).toMatchObject({ ...known, ...queue, identity: 'localhost' });
    expect(of('stream started', 'ok1')).toMatchObject(run);
    const usage = { tokens_in: expect.any(Number), tokens_out: 5, decode_time_ms: expect.any(Number) };
    expect(of('stream ended', 'ok1')).toMatchObject({ ...run, ...usage, outcome: 'SUCCEEDED' });
    expect(of('stream started', 'ok2')).toMatchObject({ kv_warmth: true });
  });

  it('tells of cancels, of failures and of what was refused', () => {
    expect(of('stream canceled', 'running')).toMatchObject(task('running', 'llamacpp', 'm-slow'));
    expect(of('task canceled in queue', 'waiting')).toMatchObject(task('waiting', 'llamacpp', 'm-slow'));
    expect(of('stream ended', 'failed')).toMatchObject({ outcome: 'FAILED', code: 'WORKER_RESET' });
    const refused = { ...task('toomany', 'llamacpp', 'm-slow'), code: 'ADMISSION_REJECT', identity: 'localhost' };
    expect(of('task rejected', 'toomany')).toMatchObject(refused);
    expect(of('task rejected', 'wrong')).toMatchObject({ code: 'INVALID_PARAMS', field: 'ctx' });
    expect(lines.find((line) => line.msg === 'pool drained')).toMatchObject({
      ...{ pool_id: 'zpoolquick', correlation_id: 'corr-drain' },
    });
    const states = lines.filter((line) => line.msg === 'replica state').map((line) => line.to);
    expect(states).toEqual(expect.arrayContaining(['READY', 'BACKING_OFF']));
  });

  it('is one object of flat fields a line, says it for people without ids, and holds no prompt', () => {
    const raw = [...Object.values(ids), SESSION, 'zpool', 'corr-', '-0'];
    for (const line of lines) {
      expect(line).toMatchObject({ level: expect.any(String), time: expect.stringMatching(/^\d{4}-.*Z$/) });
      for (const id of raw) expect(String(line.human ?? '')).not.toContain(id);
    }
    expect(world.logLines().join('')).not.toContain(NOT_LOGGED_TEXT);
    const ofTasks = lines.filter((line) => typeof line.job_id === 'string');
    expect(ofTasks.length).toBeGreaterThan(15);
    for (const line of ofTasks) expect(line.correlation_id, JSON.stringify(line)).toMatch(/^corr-/);
  });
});

describe('the metrics', () => {
  const { metrics: rows, other } = JSON.parse(readFileSync('contracts/metrics.json', 'utf8')) as ReturnType<
    typeof metricsContract
  >;
  const byName = new Map(rows.map((row) => [row.name, row]));
  const exposed = () =>
    [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => ({ name, type }));

  function rowOfSample(name: string): MetricRow | undefined {
    return byName.get(name) ?? byName.get(name.replace(/_(bucket|sum|count)$/, ''));
  }

  it('are those of the contract, no more and no fewer, each with its type and its help', () => {
    const promised = rows;
    expect(
      exposed()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(promised.map(({ name }) => name).sort());
    for (const { name, type } of exposed()) {
      expect(type, name).toBe(byName.get(name)?.type);
      expect(text).toContain(`# HELP ${name} ${byName.get(name)?.help}\n`);
    }
  });

  it('have the labels and buckets of the contract, and no more values than they may', () => {
    const values = new Map<string, Set<string>>();
    for (const [name, samples] of parseMetrics(text)) {
      const row = rowOfSample(name);
      const wanted = Object.keys(row?.labels ?? {});
      for (const { labels } of samples) {
        const given = Object.keys(labels).filter((label) => !(label === 'le' && row?.type === 'histogram'));
        // Of the process: summaries and others of Node name quantiles and kinds by themselves.
        expect(given.sort(), name).toEqual([...wanted].sort());
        for (const label of given) {
          const key = `${row?.name} ${label}`;
          values.set(key, (values.get(key) ?? new Set()).add(labels[label] ?? ''));
        }
        const bound = Number(labels.le);
        if (labels.le !== undefined && labels.le !== '+Inf') expect(row?.buckets, name).toContain(bound);
      }
    }
    for (const [key, seen] of values) {
      const closed = CLOSED[key] ?? CLOSED[key.split(' ')[1] ?? ''];
      if (closed !== undefined)
        expect(closed, key).toEqual(expect.arrayContaining([...seen].filter((one) => one !== '')));
      const [name = '', label = ''] = key.split(' ');
      const most = byName.get(name)?.labels[label] ?? 0;
      expect([...seen].filter((value) => value !== '').length, key).toBeLessThanOrEqual(most);
      expect([...seen], key).not.toContain(other);
    }
  });

  it('counted what happened, once each', () => {
    const found = parseMetrics(text);
    const sum = (name: string, labels: Readonly<Record<string, string>> = {}) =>
      (found.get(name) ?? [])
        .filter((sample: Sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
        .reduce((total, { value }) => total + value, 0);
    const quick = { pool_id: 'zpoolquick' };
    const slow = { pool_id: 'zpoolslow' };
    expect(sum('tasks_enqueued_total', quick)).toBe(2);
    expect(sum('tasks_enqueued_total', slow)).toBe(3);
    expect(sum('tasks_started_total', quick)).toBe(2);
    expect(sum('tasks_started_total', slow)).toBe(2);
    expect(sum('tasks_canceled_total', slow)).toBe(2);
    expect(sum('tasks_canceled_total', { ...slow, replica_id: 'zpoolslow-0' })).toBe(1);
    expect(sum('tasks_rejected_total', { engine: 'vllm', reason: 'INVALID_PARAMS' })).toBe(1);
    expect(sum('tasks_rejected_total', { engine: 'llamacpp', reason: 'ADMISSION_REJECT' })).toBe(1);
    expect(sum('admission_backpressure_events_total', { policy: 'reject' })).toBe(1);
    expect(sum('placement_decisions_total', { outcome: 'assigned' })).toBe(6);
    expect(sum('tokens_out_total', quick)).toBe(10);
    expect(sum('tokens_in_total', quick)).toBeGreaterThan(2);
    expect(sum('latency_first_token_ms_count', quick)).toBe(2);
    expect(sum('latency_decode_ms_count', slow)).toBe(2);
    expect(sum('drain_duration_ms_count', quick)).toBe(1);
    expect(sum('start_quotes_total', quick)).toBe(2);
    expect(sum('placement_candidates_considered')).toBe(2);
  });
});

it('a correlation id comes back on every answer and stream, and one that could break a line does not', async () => {
  const ask = (path: string, id: string) => fetch(`${world.url}${path}`, { headers: { 'x-correlation-id': id } });
  for (const path of ['/health', '/metrics', '/v1/capabilities', `/v1/tasks/${ids.ok1}/stream`, '/nothing']) {
    const answer = await ask(path, 'mine-1');
    expect(answer.headers.get('x-correlation-id'), path).toBe('mine-1');
    await answer.body?.cancel();
  }
  for (const id of ['a b', 'x'.repeat(200), 'é']) {
    const answer = await ask('/health', id);
    expect(answer.headers.get('x-correlation-id')).toMatch(/^[0-9a-f-]{36}$/);
  }
  const { errors } = await gql(world.url, `{ session(sessionId: "x") { turns } }`);
  expect(errors?.[0]?.extensions?.code).toBe('INVALID_PARAMS');
});
