/** Embedding and rerank tasks: the same admission, leases, cancels and endings as completions, and a result in place of tokens. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { embed, rerankScore } from '../../src/engines/sim/model.js';
import { sendSignal } from '../../src/host/procfs.js';
import { gql, sseSubscription } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { post, readStream, type SseFrame, taskRequest } from '../support/rest.js';
import { beginVerification, verdictOf } from '../support/verification.js';
import { startWorld, type World } from '../support/world.js';

const DIMENSIONS = 512;
const VECTORS = ['--embedding-dimensions', String(DIMENSIONS)];
const POOLS = [
  { id: 'lm-embed', engine: 'llamacpp', model: 'bge', flags: ['--embedding', ...VECTORS] },
  { id: 'lm-rank', engine: 'llamacpp', model: 'ranker', flags: ['--reranking'] },
  { id: 'vl-pool', engine: 'vllm', model: 'e5', flags: ['--runner', 'pooling', ...VECTORS] },
  { id: 'lm-chat', engine: 'llamacpp', model: 'chat', flags: [] },
  { id: 'vl-chat', engine: 'vllm', model: 'chat', flags: [] },
  { id: 'tgi-chat', engine: 'tgi', model: 'chat', flags: [] },
  { id: 'tr-chat', engine: 'triton', model: 'chat', flags: [] },
];
const IDLE_MS = 3_000;
const SOON = { timeout: 10_000, interval: 20 };

function configOf(pools: readonly (typeof POOLS)[number][]): string {
  const pool = ({ id, engine, model, flags }: (typeof POOLS)[number]) => ({
    ...{
      id,
      engine,
      model,
      ctx: 64,
      devices: [0],
      replicas: 1,
      slots: 1,
      timeouts: { wall_ms: 60_000, idle_ms: IDLE_MS },
    },
    provisioning: {
      ...{ mode: 'simulated', flags },
      simulated: { tokens_per_second: 0, first_token_ms: 0, load_ms: 0, vram_bytes: 1_073_741_824 },
    },
  });
  const gpu = { mode: 'simulated', devices: [{ name: 'Big', memory_bytes: 25_769_803_776 }] };
  return JSON.stringify({ gpu, pools: pools.map(pool) });
}

let world: World;
/** Another control plane on the same database, with a pool of its own. */
let elsewhere: World;

beforeAll(async () => {
  world = await startWorld({ config: configOf(POOLS) });
  const other = configOf([{ id: 'other', engine: 'llamacpp', model: 'other', flags: [] }]);
  elsewhere = await startWorld({ config: other, databaseUrl: async () => world.database.url });
});
afterAll(async () => {
  await elsewhere?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

const TEXTS = ['a river', 'a stone', '', 'a river', 'Fluß, 河'];
const QUERY = 'the river';

/** What a simulated engine makes of it. */
function expected(workload: string, model: string, inputs: readonly string[] = TEXTS) {
  if (workload === 'embedding') return { embeddings: inputs.map((text) => embed(model, text, DIMENSIONS)) };
  const ranking = inputs.map((text, index) => ({ index, score: rerankScore(model, QUERY, text) }));
  return { ranking: ranking.sort((a, b) => b.score - a.score || a.index - b.index) };
}

function request(pool: string, workload: string, over: Record<string, unknown> = {}) {
  const { engine, model } = POOLS.find(({ id }) => id === pool) ?? { engine: '', model: '' };
  const texts = { prompt: workload === 'rerank' ? QUERY : undefined, inputs: TEXTS };
  return taskRequest({ engine, model_ref: model, workload, ctx: 64, max_tokens: 0, ...texts, ...over });
}

async function submit(pool: string, workload: string, over: Record<string, unknown> = {}): Promise<string> {
  const body = request(pool, workload, over);
  const response = await post(world.url, '/v1/tasks', body);
  expect(response.status, await response.clone().text()).toBe(202);
  return body.task_id;
}

async function row(taskId: string): Promise<Record<string, unknown>> {
  const [task] = await world.database.query<Record<string, unknown>>('SELECT * FROM tasks WHERE id = $1', [taskId]);
  if (task === undefined) throw new Error(`no task ${taskId}`);
  return task;
}

function events(frames: readonly SseFrame[]): string[] {
  return frames.map(({ event }) => event);
}

const SERVED = [
  ['lm-embed', 'embedding'],
  ['vl-pool', 'embedding'],
  ['lm-rank', 'rerank'],
  ['vl-pool', 'rerank'],
] as const;

describe.each(SERVED)('%s takes %s tasks', (pool, workload) => {
  const { model, engine } = POOLS.find(({ id }) => id === pool) ?? { model: '', engine: '' };

  it('through REST: started, end with the result in order, and the same end for whoever comes again, anywhere', async () => {
    const taskId = await submit(pool, workload);
    const frames = await readStream(world.url, taskId);
    expect(events(frames)).toEqual(['started', 'end']);
    const end = frames[1];
    expect(end).toMatchObject({ id: '1', data: { tokens_out: 0, result: expected(workload, model) } });
    for (const url of [world.url, elsewhere.url]) {
      for (const after of [0, 1, 7]) expect(await readStream(url, taskId, { after })).toEqual([end]);
    }
    const task = await row(taskId);
    expect(task).toMatchObject({ status: 'SUCCEEDED', attempts: 1, tokens_out: 0, finish_reason: 'stop' });
    expect(task.tokens_in).toBeGreaterThan(TEXTS.length);
    const kept = await world.database.query(
      `SELECT a.id, a.kind, a.tags, t.content->>'result' AS named, t.content->'inputs' AS inputs, t.content->'text' AS text
       FROM tasks k JOIN artifacts a ON a.id = k.result_id JOIN artifacts t ON t.id = k.transcript_id WHERE k.id = $1`,
      [taskId],
    );
    const inputs = { redacted: true, count: TEXTS.length, characters: TEXTS.join('').length };
    expect(kept).toEqual([
      { id: task.result_id, kind: 'other', tags: ['result', workload], named: task.result_id, inputs, text: '' },
    ]);
    const leases = 'SELECT release_reason FROM leases WHERE task_id = $1';
    expect(await world.database.query(leases, [taskId])).toEqual([{ release_reason: 'completed' }]);
  });

  it('through GraphQL, where equal results are one artifact', async () => {
    const submission = `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) {
      ... on TaskAccepted { taskId } ... on InvalidParams { field message } } }`;
    const prompt = workload === 'rerank' ? QUERY : null;
    const input = { pool, workload: workload.toUpperCase(), prompt, inputs: TEXTS };
    const { taskId } = (await gql(elsewhere.url, submission, { input })).data.submitTask;
    const subscription = `subscription ($id: UUID!) { taskEvents(taskId: $id) { __typename seq ... on TaskEnded { result } } }`;
    const seen = await sseSubscription(elsewhere.url, subscription, { id: taskId });
    expect(seen.map(({ data }) => data.taskEvents)).toEqual([
      { __typename: 'TaskStarted', seq: 0 },
      { __typename: 'TaskEnded', seq: 1, result: expected(workload, model) },
    ]);
    const question = `query ($id: UUID!) { task(taskId: $id) { workload inputs result resultId text tokensIn tokensOut } }`;
    const { task } = (await gql(elsewhere.url, question, { id: taskId })).data;
    expect(task).toMatchObject({ inputs: TEXTS, result: expected(workload, model), text: '', tokensOut: 0 });
    const again = await submit(pool, workload, { determinism: 'best_effort' });
    await readStream(world.url, again);
    expect((await row(again)).result_id).toBe(task.resultId);
  });

  it('says in its capabilities and of its replica that it does, and takes no completions unless it can', async () => {
    const question = `{ capabilities { engines { pools { pool workloads } } } pool(name: "${pool}") { replicas { workloads } } }`;
    const { data } = await gql(world.url, question);
    const own = data.capabilities.engines
      .flatMap((one: { pools: { pool: string; workloads: string[] }[] }) => one.pools)
      .find((one: { pool: string }) => one.pool === pool);
    expect(own.workloads).toEqual(SERVED.filter(([id]) => id === pool).map(([, name]) => name.toUpperCase()));
    expect(data.pool.replicas).toEqual([{ workloads: own.workloads }]);
    const body = taskRequest({ engine, model_ref: model, ctx: 64, max_tokens: 4 });
    for (const url of [world.url, elsewhere.url]) {
      const response = await post(url, '/v1/tasks', body);
      expect(await response.json()).toMatchObject({ code: 'INVALID_PARAMS', field: 'workload', retriable: false });
    }
  });
});

describe('what a pool does not take', () => {
  it.each([
    ['lm-chat', 'embedding', '--embedding'],
    ['lm-chat', 'rerank', '--reranking'],
    ['lm-rank', 'embedding', '--embedding'],
    ['vl-chat', 'embedding', '--runner pooling'],
    ['vl-chat', 'rerank', '--runner pooling'],
    ['tgi-chat', 'embedding', 'use a pool of llamacpp or vllm'],
    ['tgi-chat', 'rerank', 'use a pool of llamacpp or vllm'],
    ['tr-chat', 'embedding', 'use a pool of llamacpp or vllm'],
    ['tr-chat', 'rerank', 'use a pool of llamacpp or vllm'],
  ])('%s refuses %s up front, and names the fix', async (pool, workload, fix) => {
    const response = await post(world.url, '/v1/tasks', request(pool, workload));
    expect(response.status).toBe(400);
    const refusal = { code: 'INVALID_PARAMS', field: 'workload', message: expect.stringContaining(fix) };
    expect(await response.json()).toMatchObject(refusal);
    const question = `query ($input: SubmitTaskInput!) { explainPlacement(input: $input) { chosen candidates {
      pool rules { rule passed message } } } }`;
    const input = { pool, workload: workload.toUpperCase(), prompt: 'q', inputs: workload === 'rerank' ? ['d'] : null };
    const { chosen, candidates } = (await gql(world.url, question, { input })).data.explainPlacement;
    expect(chosen).toBeNull();
    const own = candidates.find((candidate: { pool: string }) => candidate.pool === pool);
    expect(own.rules.filter((rule: { passed: boolean }) => !rule.passed)).toEqual([
      { rule: 'WORKLOAD', passed: false, message: expect.stringContaining(fix) },
    ]);
  });

  const long = 'sea '.repeat(70);
  it.each<[string, string, string, Record<string, unknown>, string]>([
    ['no texts', 'lm-embed', 'embedding', { inputs: undefined }, 'inputs'],
    ['no documents', 'vl-pool', 'rerank', { inputs: [] }, 'inputs'],
    ['no query', 'vl-pool', 'rerank', { prompt: undefined }, 'prompt'],
    ['a prompt beside its texts', 'lm-embed', 'embedding', { prompt: 'p' }, 'prompt'],
    ['too many texts', 'lm-embed', 'embedding', { inputs: Array(1025).fill('a') }, 'inputs'],
    ['a text of the wrong type', 'lm-embed', 'embedding', { inputs: ['a', 1] }, 'inputs.1'],
    ['a text with NUL', 'vl-pool', 'embedding', { inputs: ['a', 'b\u0000'] }, 'inputs.1'],
    ['a text above the context', 'lm-embed', 'embedding', { inputs: ['a', long] }, 'inputs.1'],
    ['a text above the context', 'vl-pool', 'embedding', { inputs: ['a', 'b', long] }, 'inputs.2'],
    ['a document that does not fit with the query', 'lm-rank', 'rerank', { prompt: long, inputs: ['a'] }, 'inputs.0'],
    ['half a character', 'vl-pool', 'embedding', { inputs: ['\ud800'] }, 'inputs.0'],
    ['half a character in its query', 'vl-pool', 'rerank', { prompt: 'a\udfff' }, 'prompt'],
    ['a version with NUL', 'vl-pool', 'rerank', { sampler_profile_version: '\u0000' }, 'sampler_profile_version'],
    ['negative max_tokens', 'lm-embed', 'embedding', { max_tokens: -1 }, 'max_tokens'],
  ])('a task with %s (%s, %s) is refused by its field', async (_name, pool, workload, over, field) => {
    const response = await post(world.url, '/v1/tasks', request(pool, workload, over));
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'INVALID_PARAMS', field, retriable: false });
  });

  it('embeds a prompt that comes alone, and takes texts that just fit', async () => {
    const alone = await submit('lm-embed', 'embedding', { inputs: undefined, prompt: 'a river' });
    const [, end] = await readStream(world.url, alone);
    expect(end?.data.result).toEqual(expected('embedding', 'bge', ['a river']));
    await readStream(world.url, await submit('lm-embed', 'embedding', { inputs: [' sea'.repeat(31)] }));
  });

  it('fails a task whose result is too large, and serves the next', async () => {
    const inputs = Array.from({ length: 1024 }, (_, index) => `text ${index}`);
    const frames = await readStream(world.url, await submit('lm-embed', 'embedding', { inputs }));
    expect(events(frames)).toEqual(['started', 'error']);
    const message = expect.stringContaining('give the task fewer inputs');
    expect(frames[1]?.data).toMatchObject({ code: 'INVALID_PARAMS', engine: 'llamacpp', retriable: false, message });
    const fewer = inputs.slice(0, 200);
    const [, end] = await readStream(world.url, await submit('lm-embed', 'embedding', { inputs: fewer }));
    expect(end?.data.result).toEqual(expected('embedding', 'bge', fewer));
  });

  it('has nothing to verify', async () => {
    const taskId = await submit('lm-rank', 'rerank');
    await readStream(world.url, taskId);
    const { verdict, reasons } = await verdictOf(world.url, await beginVerification(world.url, taskId));
    expect([verdict, reasons[0]?.code]).toEqual(['NOT_COMPARABLE', 'NOTHING_TO_COMPARE']);
  });
});

/** The faults of an engine that runs now; the next one knows nothing of them. */
async function setFault(pool: string, ...fault: string[]): Promise<number> {
  const [engine] = await world.database.query<{ endpoint: string; pid: number }>(
    `SELECT endpoint, pid FROM replicas WHERE id = $1 AND state = 'READY'`,
    [`${pool}-0`],
  );
  if (engine === undefined) throw new Error(`${pool} is not ready`);
  expect((await post(engine.endpoint, '/sim/control', { fault })).status).toBe(200);
  return engine.pid;
}

async function started(taskId: string): Promise<void> {
  const frames = await readStream(world.url, taskId, { until: ({ event }) => event === 'started' });
  expect(events(frames)).toEqual(['started']);
}

/** One of each engine and of each kind; all of them in the long run. */
const UNDER_WAY = LONG ? SERVED : SERVED.filter(([pool, workload]) => (pool === 'vl-pool') === (workload === 'rerank'));

describe.each(UNDER_WAY)('%s: a %s call under way', (pool, workload) => {
  const { model } = POOLS.find(({ id }) => id === pool) ?? { model: '' };
  const isReady = async () =>
    (await world.database.query(`SELECT 1 FROM replicas WHERE id = $1 AND state = 'READY'`, [`${pool}-0`])).length;
  afterEach(async () => {
    await expect.poll(isReady, SOON).toBe(1);
    await setFault(pool, 'none');
  });

  it('is cancelled, and its engine seen to have let go', async () => {
    await setFault(pool, 'hang-at-token:0');
    const taskId = await submit(pool, workload);
    await started(taskId);
    expect((await post(world.url, `/v1/tasks/${taskId}/cancel`, {})).status).toBe(204);
    const frames = await readStream(world.url, taskId);
    expect(frames.map(({ event, data }) => [event, data.canceled, data.result])).toEqual([
      ['started', undefined, undefined],
      ['end', true, undefined],
    ]);
    expect(await row(taskId)).toMatchObject({
      status: 'CANCELED',
      result_id: null,
      cancel_slot_free_at: expect.any(Date),
    });
    await setFault(pool, 'none');
    const next = await readStream(world.url, await submit(pool, workload));
    expect(next.at(-1)?.data.result).toEqual(expected(workload, model));
  });

  it('is made again, unseen, when its engine is killed, whatever its determinism', async () => {
    const pid = await setFault(pool, 'hang-at-token:0');
    const taskId = await submit(pool, workload, { determinism: 'best_effort' });
    await started(taskId);
    sendSignal(pid, 'SIGKILL');
    const frames = await readStream(world.url, taskId);
    expect(events(frames)).toEqual(['started', 'end']);
    expect(frames[1]?.data.result).toEqual(expected(workload, model));
    expect(await row(taskId)).toMatchObject({ status: 'SUCCEEDED', attempts: 2 });
    const chunks = `SELECT kind FROM stream_chunks WHERE task_id = $1 ORDER BY ord`;
    expect(await world.database.query(chunks, [taskId])).toEqual([
      { kind: 'started' },
      { kind: 'seam' },
      { kind: 'end' },
    ]);
  });
});

describe('a call that its engine does not answer', () => {
  it.runIf(LONG)('ends in time, and the engine is started anew', async () => {
    const pid = await setFault('lm-rank', 'hang-at-token:0', 'ignore-cancel');
    const frames = await readStream(world.url, await submit('lm-rank', 'rerank'));
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'DECODE_TIMEOUT', engine: 'llamacpp' } });
    const pidNow = async () =>
      (await world.database.query<{ pid: number }>(`SELECT pid FROM replicas WHERE id = 'lm-rank-0'`))[0]?.pid;
    await expect.poll(pidNow, SOON).not.toBe(pid);
    const next = await readStream(world.url, await submit('lm-rank', 'rerank'));
    expect(next.at(-1)?.data.result).toEqual(expected('rerank', 'ranker'));
  });

  it('ends at its deadline, and so does one that waits behind it', async () => {
    await setFault('lm-embed', 'hang-at-token:0');
    const [held, waiting] = [randomUUID(), randomUUID()];
    await submit('lm-embed', 'embedding', { task_id: held, deadline_ms: 3_000 });
    await started(held);
    await submit('lm-embed', 'embedding', { task_id: waiting, deadline_ms: 1_000 });
    const ends = await Promise.all([held, waiting].map((id) => readStream(world.url, id)));
    expect(ends.map((frames) => frames.at(-1)?.data.code)).toEqual(['DECODE_TIMEOUT', 'DEADLINE_UNMET']);
    await setFault('lm-embed', 'none');
  });
});
