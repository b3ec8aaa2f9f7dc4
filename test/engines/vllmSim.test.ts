/** The simulator's vLLM protocol, byte by byte: what an adapter would not notice. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readFault } from '../../src/engines/launch.js';
import { goFloat } from '../../src/engines/sim/vllm/metrics.js';
import { vllmLaunch } from '../../src/engines/vllm/launch.js';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';

const FAST = ['--model', 'm', '--tokens-per-second', '0'];
const { logPatterns } = vllmLaunch({
  ...{
    binaryPath: 'vllm',
    model: 'm',
    servedName: 'm',
    ports: [1],
    contextPerSlot: 1,
    slots: 1,
    gpuUuids: [],
    gpuIndices: [],
  },
});
const faultIn = (sim: RunningSim): string | undefined => readFault(logPatterns, sim.lines)?.pattern.fault;

let sim: RunningSim;
beforeAll(async () => {
  sim = await startEngineSim({ protocol: 'vllm', args: [...FAST, '--ctx', '64', '--slots', '2', '--embedding'] });
});
afterAll(() => sim[Symbol.asyncDispose]());

const ask = (path: string, body?: unknown, from = sim, headers: Readonly<Record<string, string>> = {}) =>
  fetch(`${from.baseUrl}${path}`, {
    headers,
    ...(body !== undefined && { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) }),
    signal: AbortSignal.timeout(10_000),
  });
const PROMPT = { model: 'm', prompt: 'Once upon a time', seed: 7 };
const ALL = {
  stream: true,
  stream_options: { include_usage: true, continuous_usage_stats: true },
  return_token_ids: true,
};

/** Payloads of a stream; the time it was created is 1. */
async function payloads(body: unknown, from = sim): Promise<readonly string[]> {
  const answer = await ask('/v1/completions', body, from);
  const events = (await answer.text()).replace(/"created":\d+/g, '"created":1').split('\n\n');
  expect(events.pop()).toBe('');
  for (const event of events) expect(event).toMatch(/^data: /);
  return events.map((event) => event.slice('data: '.length));
}
const HEAD = '{"id":"cmpl-r","object":"text_completion","created":1,"model":"m","choices":';

describe('a stream', () => {
  it('is told before its first token, by uvicorn', async () => {
    const answer = await ask('/v1/completions', { ...PROMPT, stream: true, max_tokens: 1 });
    await answer.text();
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(answer.headers.get('server')).toBe('uvicorn');
  });

  it('with everything asked for is these bytes', async () => {
    const [first = '', last, ...rest] = await payloads({ ...PROMPT, ...ALL, max_tokens: 2, request_id: 'r' });
    const [id, text] = [/"token_ids":\[(\d+)\]/.exec(first)?.[1], /"text":("[^"]*")/.exec(first)?.[1]];
    expect(first).toBe(
      `${HEAD}[{"index":0,"text":${text},"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":${/"prompt_token_ids":(\[[\d,]+\])/.exec(first)?.[1]},"token_ids":[${id}]}],"usage":{"prompt_tokens":7,"total_tokens":8,"completion_tokens":1}}`,
    );
    expect(last).toMatch(
      /"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":\[\d+\]\}\],"usage":\{"prompt_tokens":7,"total_tokens":9,"completion_tokens":2\}\}$/,
    );
    expect(rest).toEqual([
      `${HEAD}[],"usage":{"prompt_tokens":7,"total_tokens":9,"completion_tokens":2},"system_fingerprint":"vllm-0.23.0+sim"}`,
      '[DONE]',
    ]);
  });

  it('with nothing asked for has null ids, no usage, and sixteen tokens', async () => {
    const told = await payloads({ ...PROMPT, stream: true, request_id: 'r' });
    expect(told).toHaveLength(17);
    expect(told[0]).toMatch(/"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null\}\]\}$/);
    expect(told.at(-1)).toBe('[DONE]');
  });

  it('gathers tokens for a chunk, but not for the first and the last', async () => {
    const body = { ...PROMPT, ...ALL, max_tokens: 12 };
    const sizes = (told: readonly string[]): readonly number[] =>
      told.flatMap((payload) => /[^_]token_ids":\[([\d,]+)\]\}\]/.exec(payload)?.[1]?.split(',').length ?? []);
    const text = (told: readonly string[]): string =>
      told.flatMap((payload) => /"text":"([^"]*)"/.exec(payload)?.[1] ?? []).join('');
    const [single, gathered] = [await payloads(body), await payloads({ ...body, stream_interval: 4 })];
    expect(sizes(single)).toEqual(Array.from({ length: 12 }, () => 1));
    expect(sizes(gathered)).toEqual([1, 4, 4, 3]);
    expect(text(gathered)).toBe(text(single));
  });

  it('that fails in its middle has an error written by json.dumps, and [DONE]', async () => {
    await sim.control('error-frame-at-token:1');
    const told = await payloads({ ...PROMPT, stream: true });
    await sim.control('none');
    expect(told.slice(1)).toEqual([
      '{"error": {"message": "Simulated error.", "type": "InternalServerError", "param": null, "code": 500}}',
      '[DONE]',
    ]);
  });

  it('has one bad byte and loses nothing else where tokens are gathered', async () => {
    const body = { ...PROMPT, stream: true, max_tokens: 12, stream_interval: 4, request_id: 'r' };
    const healthy = (await payloads(body)).join('\n');
    for (const token of [2, 11, 12]) {
      await sim.control(`bad-utf8-at-token:${token}`);
      const spoiled = (await payloads(body)).join('\n');
      expect(spoiled.split('\uFFFD')).toHaveLength(2);
      expect(spoiled.replace('\uFFFD', '')).toBe(healthy);
    }
    await sim.control('none');
  });

  it('has chunks without text where characters are split', async () => {
    await using split = await startEngineSim({ protocol: 'vllm', args: [...FAST, '--split-characters'] });
    const told = await payloads({ ...PROMPT, ...ALL, max_tokens: 200 }, split);
    const empty = told.filter((payload) => /"text":"".*[^_]token_ids":\[\d+\]/.test(payload));
    expect(empty.length).toBeGreaterThan(5);
    expect(told).toHaveLength(202);
  });
});

describe('one answer', () => {
  it('has the text of the stream, under the name the client gave', async () => {
    const told = await payloads({ ...PROMPT, stream: true, max_tokens: 3 });
    const text = told.flatMap((payload) => /"text":"([^"]*)"/.exec(payload)?.[1] ?? []).join('');
    expect(text).not.toBe('');
    const answer = await ask('/v1/completions', { ...PROMPT, max_tokens: 3 }, sim, { 'x-request-id': 'mine' });
    expect(answer.headers.get('content-type')).toBe('application/json');
    expect(await answer.json()).toMatchObject({
      ...{ id: 'cmpl-mine', object: 'text_completion', model: 'm' },
      ...{ choices: [{ index: 0, text, finish_reason: 'length', token_ids: null }] },
      usage: { prompt_tokens: 7, total_tokens: 10, completion_tokens: 3 },
    });
  });

  it.each([
    ['/health', 200, null, ''],
    ['/ping', 200, null, ''],
    ['/version', 200, 'application/json', '{"version":"0.23.0+sim"}'],
    ['/load', 200, 'application/json', '{"server_load":0}'],
    ['/v1/chat/completions', 404, 'application/json', '{"detail":"Not Found"}'],
    ['/v1/completions', 405, 'application/json', '{"detail":"Method Not Allowed"}'],
  ])('to GET %s is %i', async (path, status, contentType, body) => {
    const answer = await ask(path);
    expect([answer.status, answer.headers.get('content-type'), await answer.text()]).toEqual([
      status,
      contentType,
      body,
    ]);
  });

  it('of the tokenizer has the count and the limit', async () => {
    const tokens = async (body: object) => (await ask('/tokenize', { prompt: ' the river', ...body })).json();
    expect(await tokens({})).toMatchObject({ count: 3, max_model_len: 64, token_strs: null });
    const bare = await tokens({ add_special_tokens: false });
    expect(bare).toMatchObject({ count: 2 });
    expect(await (await ask('/detokenize', { tokens: bare.tokens })).json()).toEqual({ prompt: ' the river' });
  });

  it('of reranking has the documents, best first, and of embeddings no completion tokens', async () => {
    const documents = [' silent morning', ' the river'];
    const ranking = await (await ask('/v2/rerank', { query: ' river', documents, top_n: 1 })).json();
    expect(ranking.results).toEqual([
      { index: 1, document: { text: ' the river', multi_modal: null }, relevance_score: expect.any(Number) },
    ]);
    const vectors = await (await ask('/v1/embeddings', { input: ' river' })).json();
    expect(vectors.usage).toMatchObject({ prompt_tokens: 2, total_tokens: 2, completion_tokens: 0 });
  });
});

describe('a refusal', () => {
  const OVERFLOW =
    "This model's maximum context length is 64 tokens. However, you requested 60 output tokens and your prompt contains at least 5 input tokens, for a total of at least 65 tokens.";
  it.each([
    ['no JSON', '{', 400, 'Bad Request', 'body.0', 'JSON decode error'],
    ['a field of another type', { ...PROMPT, max_tokens: 'x' }, 400, 'Bad Request', 'body.max_tokens', ''],
    ['no prompt', { model: 'm' }, 400, 'Bad Request', 'prompt', 'must be provided and non-empty'],
    [
      'stream options alone',
      { ...PROMPT, stream_options: {} },
      400,
      'Bad Request',
      'stream_options',
      'only be defined',
    ],
    ['no tokens', { ...PROMPT, max_tokens: 0 }, 400, 'BadRequestError', 'max_tokens', 'must be at least 1, got 0'],
    ['another model', { ...PROMPT, model: 'x' }, 404, 'NotFoundError', 'model', 'The model `x` does not exist.'],
    ['a token nobody knows', { ...PROMPT, prompt: [300, 2 ** 25] }, 400, 'BadRequestError', null, 'out of vocabulary'],
    ['several prompts', { ...PROMPT, prompt: ['a', 'b'] }, 501, 'NotImplementedError', 'prompt', 'not simulated'],
    ['several lists', { ...PROMPT, prompt: [[300], [301]] }, 501, 'NotImplementedError', 'prompt', 'not simulated'],
    ['a seed too large', { ...PROMPT, seed: 2 ** 64 }, 400, 'Bad Request', 'body.seed', ''],
    ['too much together', { ...PROMPT, max_tokens: 60 }, 400, 'BadRequestError', 'input_tokens', OVERFLOW],
    ['too much alone', { ...PROMPT, max_tokens: 65 }, 400, 'BadRequestError', 'max_tokens', 'cannot be greater than'],
  ])('of %s', async (_name, body, status, type, param, message) => {
    const answer = await ask('/v1/completions', body);
    expect(answer.status).toBe(status);
    expect(await answer.json()).toEqual({
      error: { message: expect.stringContaining(message), type, param, code: status },
    });
  });

  it('of a body that is too large says so', async () => {
    const answer = await ask('/v1/completions', `{"prompt":"${'x'.repeat(65 * 1024 * 1024)}"}`);
    expect([answer.status, await answer.json()]).toEqual([413, { detail: 'Payload too large' }]);
  });

  it('does not come for a seed of 64 bits', async () => {
    const body = JSON.stringify({ ...PROMPT, seed: 'SEED' }).replace('"SEED"', '9223372036854775807');
    expect((await ask('/v1/completions', body)).status).toBe(200);
  });

  it('lets what just fits through', async () => {
    expect((await ask('/v1/completions', { ...PROMPT, max_tokens: 57 })).status).toBe(200);
  });

  it('for a wrong key comes under /v1 and /v2 only, before the route is looked at', async () => {
    await using guarded = await startEngineSim({ protocol: 'vllm', args: FAST, env: { VLLM_API_KEY: 'k' } });
    const status = async (path: string, key = ''): Promise<number> =>
      (await ask(path, undefined, guarded, { authorization: key })).status;
    const answer = await ask('/v1/nothing', {}, guarded);
    expect([answer.status, await answer.text()]).toEqual([401, '{"error":"Unauthorized"}']);
    expect(await status('/v2/rerank', 'Bearer x')).toBe(401);
    expect(await status('/v1/models', 'bearer k')).toBe(200);
    expect([await status('/health'), await status('/metrics'), await status('/rerank')]).toEqual([200, 200, 405]);
    expect((await ask('/v1/embeddings', { input: 'a' }, guarded, { authorization: 'Bearer k' })).status).toBe(404);
  });
});

describe('metrics', () => {
  it('carry the engine and the model, in the floats of Python', async () => {
    const text = await (await ask('/metrics')).text();
    expect(text).toContain(
      '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine="0",model_name="m"} 0.0\n',
    );
    expect(text).toMatch(/^vllm:generation_tokens_total\{engine="0",model_name="m"\} \d+\.0$/m);
    expect(text).toContain('vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} ');
  });

  it('have the latencies of what has finished, and the cache', async () => {
    await using fresh = await startEngineSim({ protocol: 'vllm', args: [...FAST, '--first-token-ms', '30'] });
    await (await ask('/v1/completions', { ...PROMPT, max_tokens: 5 }, fresh)).text();
    await payloads({ ...PROMPT, stream: true, max_tokens: 5 }, fresh);
    const text = await (await ask('/metrics', undefined, fresh)).text();
    const labels = 'engine="0",model_name="m"';
    const names = ['time_to_first_token', 'e2e_request_latency', 'request_queue_time'];
    for (const name of names) {
      expect(text).toContain(`# TYPE vllm:${name}_seconds histogram\n`);
      expect(text).toContain(`vllm:${name}_seconds_count{${labels}} 2.0\n`);
      expect(text).toContain(`vllm:${name}_seconds_bucket{engine="0",le="+Inf",model_name="m"} 2.0\n`);
    }
    expect(text).toContain(`vllm:inter_token_latency_seconds_count{${labels}} 8.0\n`);
    expect(text).toContain('vllm:time_to_first_token_seconds_bucket{engine="0",le="0.02",model_name="m"} 0.0\n');
    expect(text).toContain('vllm:e2e_request_latency_seconds_bucket{engine="0",le="1.0",model_name="m"} 2.0\n');
    expect(text).toContain(`vllm:prefix_cache_queries_total{${labels}} 14.0\n`);
    expect(text).toContain(`vllm:prefix_cache_hits_total{${labels}} 0.0\n`);
    expect(text).toMatch(/^vllm:cache_config_info\{block_size="16",.*num_gpu_blocks="256"\} 1\.0$/m);
  });

  it.each([
    [0, '0.0'],
    [0.125, '0.125'],
    [999_999, '999999.0'],
    [1_000_000, '1e+06'],
    [1_234_500, '1.2345e+06'],
  ])('write %d as %s', (value, text) => {
    expect(goFloat(value)).toBe(text);
  });
});

describe('the process', () => {
  it.each([
    ['oom-at-load', 'VRAM_OOM_LOAD', 'Engine core initialization failed'],
    ['cpu-fallback', 'NO_GPU', 'Failed to infer device type'],
  ])('does not start with %s', async (fault, found, line) => {
    // It rejects with what the process said before it ended.
    const said = await startEngineSim({ protocol: 'vllm', args: ['--fault', fault] }).then(() => '', String);
    expect(said).toContain(line);
    expect(readFault(logPatterns, said.split('\n'))?.pattern.fault).toBe(found);
  });

  it('refuses connections while it loads, and ends with 1 when that fails', async () => {
    const args = ['--fault', 'never-ready'];
    await using loading = await startEngineSim({ protocol: 'vllm', args, until: 'control' });
    await expect(ask('/health', undefined, loading)).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } });
    await loading.control('oom-at-load');
    expect(await loading.exited).toEqual({ code: 1, signal: null });
  });

  it.each([
    ['crash-at-token:1', 'ENGINE_CORE_DEAD'],
    ['cuda-error-at-token:1', 'CUDA_ERROR'],
    ['oom-at-token:1', 'VRAM_OOM_RUNTIME'],
  ])('tells everybody of %s, is unhealthy for a moment, and ends with 1', async (fault, found) => {
    // Both requests are there before the first of them gets its token, which ends the engine.
    const args = [...FAST, '--first-token-ms', '1000', '--fault', fault];
    await using dying = await startEngineSim({ protocol: 'vllm', args });
    const whole = ask('/v1/completions', PROMPT, dying).then((answer) => answer.status);
    const told = await payloads({ ...PROMPT, stream: true }, dying);
    expect(told.slice(-2)[0]).toContain('{"error": {"message": "EngineCore encountered an issue.');
    expect(told.at(-1)).toBe('[DONE]');
    expect(await whole).toBe(500);
    // The moment is half a second; on a busy machine it may be over by now.
    const health = ask('/health', undefined, dying).then(
      ({ status }) => status,
      () => 'gone',
    );
    expect([503, 'gone']).toContain(await health);
    expect(await dying.exited).toEqual({ code: 1, signal: null });
    expect(faultIn(dying)).toBe(found);
  });

  it.each([
    [[], 'mode=abort timeout=0s'],
    [['--drain-ms', '1500'], 'mode=drain timeout=1.5s'],
  ])('says how it ends (%j)', async (args, mode) => {
    await using stopping = await startEngineSim({ protocol: 'vllm', args: [...FAST, ...args] });
    stopping.kill('SIGTERM');
    expect(await stopping.exited).toEqual({ code: 0, signal: null });
    expect(stopping.lines.join('\n')).toContain(`stopping engine client ${mode}`);
  });

  it('writes of itself under the names of its two processes', () => {
    const lines = sim.lines.join('\n');
    expect(lines).toMatch(/^\(APIServer pid=\d+\) INFO: {5}Application startup complete\.$/m);
    expect(lines).toMatch(
      /^\(APIServer pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[api_server\.py:\d+\] Starting vLLM server on http:/m,
    );
    expect(lines).toMatch(/^\(EngineCore_DP0 pid=\d+\) INFO \d\d-\d\d/m);
    expect(faultIn(sim)).toBeUndefined();
  });
});
