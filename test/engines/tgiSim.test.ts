/** What the simulated TGI router sends, byte by byte, where the adapter does not look. */
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readFault } from '../../src/engines/launch.js';
import { readSamples, sumOf } from '../../src/engines/prometheus.js';
import { createTgiAdapter } from '../../src/engines/tgi/adapter.js';
import { tgiLaunch } from '../../src/engines/tgi/launch.js';
import { ask, deadline, run } from '../support/adapters.js';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';

const CONTEXT = 4_096;
const FAST = ['--tokens-per-second', '0', '--model', 'org/m', '--ctx', String(CONTEXT)];
const start = (...args: readonly string[]) => startEngineSim({ protocol: 'tgi', args: [...FAST, ...args] });

async function post(sim: RunningSim, path: string, body: unknown, headers: Readonly<Record<string, string>> = {}) {
  const answer = await fetch(`${sim.baseUrl}${path}`, {
    ...{ method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), signal: deadline() },
    headers: { 'content-type': 'application/json', ...headers },
  });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}

const generate = (parameters: Readonly<Record<string, unknown>>) => ({ inputs: 'Once upon a time', parameters });
const eventsOf = (text: string): readonly unknown[] =>
  text
    .split('\n\n')
    .filter((event) => event.startsWith('data:'))
    .map((event) => JSON.parse(event.slice('data:'.length)));

async function metric(sim: RunningSim, name: string, labels: Readonly<Record<string, string>> = {}) {
  const page = await (await fetch(`${sim.baseUrl}/metrics`)).text();
  return sumOf(readSamples(page), `tgi_${name}`, labels);
}

describe('routes', () => {
  let sim: RunningSim;
  beforeAll(async () => {
    sim = await start('--slots', '2');
  });
  afterAll(() => sim[Symbol.asyncDispose]());

  it('streams a frame per token without a space after the colon, and the last one with the whole text', async () => {
    const { text, status, headers } = await post(sim, '/generate_stream', generate({ max_new_tokens: 2, seed: 3 }));
    expect(status).toBe(200);
    expect(Object.fromEntries(headers)).toMatchObject({
      ...{ 'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'x-accel-buffering': 'no' },
      ...{ 'x-compute-type': 'gpu+optimized', 'x-compute-characters': '16' },
    });
    const token = '\\{"id":\\d+,"text":"[^"]+","logprob":-[\\d.]+,"special":false\\}';
    expect(text).toMatch(
      new RegExp(
        `^data:\\{"index":1,"token":${token},"generated_text":null,"details":null\\}\\n\\n` +
          `data:\\{"index":2,"token":${token},"generated_text":"[^"]+","details":null\\}\\n\\n$`,
      ),
    );
  });

  it('tells the details of a stream when asked, the seed only when the text depends on it', async () => {
    const details = async (parameters: Readonly<Record<string, unknown>>) => {
      const { text } = await post(
        sim,
        '/generate_stream',
        generate({ max_new_tokens: 2, details: true, ...parameters }),
      );
      return eventsOf(text).at(-1);
    };
    expect(await details({ do_sample: true, seed: 3 })).toMatchObject({
      details: { finish_reason: 'length', generated_tokens: 2, seed: 3, input_length: 7 },
    });
    expect(await details({ seed: 3 })).toMatchObject({ details: { seed: null } });
    expect(await details({ seed: 3, temperature: 0.5 })).toMatchObject({ details: { seed: 3 } });
  });

  it('answers at once with how long it took in the headers', async () => {
    const { text, headers } = await post(sim, '/generate', generate({ max_new_tokens: 2, details: true }));
    expect(JSON.parse(text)).toEqual({
      generated_text: expect.stringMatching(/\S/),
      details: {
        ...{ finish_reason: 'length', generated_tokens: 2, seed: null, prefill: [] },
        tokens: [1, 2].map(() => expect.objectContaining({ special: false })),
      },
    });
    for (const name of ['x-total-time', 'x-queue-time', 'x-inference-time', 'x-time-per-token']) {
      expect(headers.get(name)).toMatch(/^\d+$/);
    }
    expect([headers.get('x-prompt-tokens'), headers.get('x-generated-tokens')]).toEqual(['7', '2']);
  });

  it('samples without parameters, and does not with parameters that do not say so', async () => {
    const textOf = async (body: unknown) => JSON.parse((await post(sim, '/generate', body)).text).generated_text;
    const greedy = generate({ max_new_tokens: 20 });
    expect(await textOf(greedy)).toBe(await textOf(generate({ max_new_tokens: 20, seed: 1 })));
    const sampled = await Promise.all([1, 2].map(() => textOf({ inputs: 'Once upon a time'.repeat(455) })));
    expect(sampled[0]).not.toBe(sampled[1]);
  });

  it('streams or not on POST /, with the prompt in front', async () => {
    const body = generate({ max_new_tokens: 1 });
    const whole = JSON.parse((await post(sim, '/', body)).text);
    expect(whole).toEqual([{ generated_text: expect.stringMatching(/^Once upon a time ./) }]);
    const streamed = eventsOf((await post(sim, '/', { ...body, stream: true })).text);
    expect(streamed).toMatchObject([{ index: 1, generated_text: whole[0].generated_text }]);
  });

  it('ends with a stop sequence, which stays in the text', async () => {
    const asked = (stop: readonly string[]) => generate({ max_new_tokens: 20, details: true, stop });
    const whole = JSON.parse((await post(sim, '/generate', asked([]))).text);
    const stop: string = whole.details.tokens[4].text;
    const { text } = await post(sim, '/generate_stream', asked([stop]));
    const { generated_text, details } = eventsOf(text).at(-1) as {
      generated_text: string;
      details: { generated_tokens: number };
    };
    expect(details).toMatchObject({ finish_reason: 'stop_sequence' });
    expect(details.generated_tokens).toBeLessThanOrEqual(5);
    expect(generated_text.endsWith(stop)).toBe(true);
    expect(whole.generated_text.startsWith(generated_text)).toBe(true);
  });

  it('decodes in runs of 1024: goes past a length between two of them, and stops short where the next does not fit', async () => {
    const tokens = async (max_new_tokens: number) =>
      eventsOf((await post(sim, '/generate_stream', generate({ max_new_tokens }))).text).length;
    expect([await tokens(1_024), await tokens(1_500), await tokens(5_000)]).toEqual([1_024, 2_048, 3_072]);
    const adapter = createTgiAdapter({ baseUrl: sim.baseUrl });
    const outcome = await run(adapter, ask({ maxTokens: 1_500 }));
    await adapter.close();
    expect(outcome).toMatchObject({ tokens: 1_500, error: null, end: { finishReason: 'length', tokensOut: 1_500 } });
  });

  it.each([
    [{ temperature: 0 }, '`temperature` must be strictly positive'],
    [{ top_p: 1 }, '`top_p` must be > 0.0 and < 1.0'],
    [{ top_k: 0 }, '`top_k` must be strictly positive'],
    [{ max_new_tokens: 0 }, '`max_new_tokens` must be strictly positive'],
    [{ best_of: 2 }, '`best_of` != 1 is not supported when streaming tokens'],
    [{ decoder_input_details: true }, '`decoder_input_details` == true is not supported when streaming tokens'],
    [{ stop: ['1', '2', '3', '4', '5'] }, '`stop` supports up to 4 stop sequences. Given: 5'],
  ])('refuses %j in a stream with status 200', async (parameters, message) => {
    const { status, headers, text } = await post(sim, '/generate_stream', generate(parameters));
    expect([status, headers.get('content-type')]).toEqual([200, 'text/event-stream']);
    const envelope = { error: `Input validation error: ${message}`, error_type: 'validation' };
    expect(text).toBe(`data:${JSON.stringify(envelope)}\n\n`);
  });

  it('refuses a prompt that does not fit, in an answer of its own with 422', async () => {
    const body = { inputs: 'the '.repeat(CONTEXT), parameters: { max_new_tokens: 1_500 } };
    const { status, headers, text } = await post(sim, '/generate', body);
    expect([status, headers.get('content-type')]).toEqual([422, 'application/json']);
    expect(JSON.parse(text)).toEqual({
      error: expect.stringMatching(
        /^Input validation error: `inputs` tokens \+ `max_new_tokens` must be <= 4096\. Given: \d+ `inputs` tokens and 1024 `max_new_tokens`$/,
      ),
      error_type: 'validation',
    });
  });

  it.each([
    [400, '{', {}, /^Failed to parse the request body as JSON: /],
    [415, '{}', { 'content-type': 'text/plain' }, /^Expected request with `Content-Type: application\/json`$/],
    [422, '{}', {}, /into the target type: missing field `inputs`$/],
    [422, '{"inputs":"a","parameters":{"seed":-1}}', {}, /into the target type: parameters\.seed: /],
    [413, JSON.stringify({ inputs: 'x'.repeat(2_000_000) }), {}, /length limit exceeded$/],
  ])('refuses with %i in plain text what is no request', async (status, body, headers, message) => {
    const answer = await post(sim, '/generate_stream', body, headers);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([status, 'text/plain; charset=utf-8']);
    expect(answer.text).toMatch(message);
  });

  it('takes a seed of 64 bits', async () => {
    const seed = '18446744073709551615';
    const body = JSON.stringify(generate({ max_new_tokens: 1, seed: 'SEED' })).replace('"SEED"', seed);
    expect((await post(sim, '/generate', body)).status).toBe(200);
    expect((await post(sim, '/generate', body.replace(seed, `${seed}0`))).status).toBe(422);
  });

  it('tells tokens with the bytes they stand for', async () => {
    const { text } = await post(sim, '/tokenize', { inputs: 'hé the river' });
    expect(JSON.parse(text)).toEqual([
      { id: 1, text: '', start: 0, stop: 0 },
      { id: expect.any(Number), text: 'hé', start: 0, stop: 3 },
      { id: expect.any(Number), text: ' the', start: 3, stop: 7 },
      { id: expect.any(Number), text: ' river', start: 7, stop: 13 },
    ]);
  });

  it('is healthy without a word under three names, and knows its one model', async () => {
    for (const path of ['/', '/health', '/ping']) {
      const answer = await fetch(`${sim.baseUrl}${path}`);
      expect([answer.status, await answer.text()]).toEqual([200, '']);
    }
    const models = await (await fetch(`${sim.baseUrl}/v1/models`)).json();
    expect(models).toEqual({
      object: 'list',
      data: [{ id: 'org/m', object: 'model', created: 0, owned_by: 'org/m' }],
    });
    expect((await fetch(`${sim.baseUrl}/generate`)).status).toBe(405);
    expect((await post(sim, '/embed', {})).status).toBe(404);
  });
});

describe('the router', () => {
  it('shows no metric before it has a value, and a prompt at work only as a call', async () => {
    await using sim = await start('--fault', 'hang-at-token:0');
    expect(await metric(sim, 'request_count')).toBeNull();
    const answer = post(sim, '/generate_stream', generate({ max_new_tokens: 2 }));
    await expect.poll(() => metric(sim, 'batch_inference_count', { method: 'prefill' })).toBe(1);
    expect(await metric(sim, 'batch_inference_success', { method: 'prefill' })).toBeNull();
    expect([await metric(sim, 'batch_current_size'), await metric(sim, 'queue_size')]).toEqual([0, 0]);
    await sim.control('none');
    await answer;
    expect(await metric(sim, 'request_generated_tokens_sum')).toBe(2);
  });

  it('is not called free while a cancelled prompt is at work', async () => {
    await using sim = await start('--fault', 'hang-at-token:0');
    const adapter = createTgiAdapter({ baseUrl: sim.baseUrl });
    const request = ask();
    const over = run(adapter, request);
    await expect.poll(() => metric(sim, 'batch_inference_count', { method: 'prefill' })).toBe(1);
    const canceled = { requestId: request.requestId, slot: 0 };
    expect(await adapter.cancel(canceled, AbortSignal.timeout(100))).toMatchObject({ outcome: 'unknown' });
    await over;
    await sim.control('none');
    expect(await adapter.cancel(canceled, deadline())).toMatchObject({ outcome: 'slot_free' });
    await adapter.close();
  });

  it('takes 128 requests at once and tells the next that it is overloaded, in the stream', async () => {
    await using sim = await start('--fault', 'hang-at-token:1');
    const body = generate({ max_new_tokens: 2 });
    const taken = Array.from({ length: 128 }, () => post(sim, '/generate_stream', body));
    await expect.poll(() => metric(sim, 'queue_size')).toBe(127);
    const next = await post(sim, '/generate_stream', body);
    expect(next).toMatchObject({
      ...{ status: 200, text: 'data:{"error":"Model is overloaded","error_type":"overloaded"}\n\n' },
    });
    const unary = await post(sim, '/generate', body);
    expect([unary.status, JSON.parse(unary.text).error_type]).toEqual([429, 'overloaded']);
    await sim.control('none');
    for (const { text } of await Promise.all(taken)) expect(eventsOf(text)).toHaveLength(2);
    expect(await metric(sim, 'request_failure', { err: 'overloaded' })).toBe(2);
  });

  it('counts a client that goes as dropped, with its next token', async () => {
    await using sim = await start('--fault', 'hang-at-token:5');
    // Not fetch, which connects anew after an abort.
    const headers = { 'content-type': 'application/json' };
    const client = request(`${sim.baseUrl}/generate_stream`, { method: 'POST', agent: false, headers });
    const cut = once(client, 'close');
    client.on('error', () => {}).end(JSON.stringify(generate({ max_new_tokens: 8 })));
    const [answer] = (await once(client, 'response', { signal: deadline() })) as [IncomingMessage];
    answer.on('error', () => {}); // cut on purpose, as above
    await once(answer, 'data', { signal: deadline() });
    client.destroy();
    await cut;
    await expect.poll(() => sim.inspect()).toMatchObject({ connections: 0, busySlots: 1 });
    expect(await metric(sim, 'request_failure', { err: 'dropped' })).toBe(null);
    await sim.control('none');
    await expect.poll(() => metric(sim, 'request_failure', { err: 'dropped' })).toBe(1);
    expect(await metric(sim, 'batch_current_size')).toBe(0);
  });

  it('skips a queued request whose client has gone, without a prefill', async () => {
    await using sim = await start('--fault', 'hang-at-token:1');
    const first = post(sim, '/generate_stream', generate({ max_new_tokens: 2 }));
    await expect.poll(() => metric(sim, 'batch_current_size')).toBe(1);
    // Not fetch, which connects anew after an abort.
    const clients = ['/generate_stream', '/generate'].map((path) => {
      const headers = { 'content-type': 'application/json' };
      const client = request(`${sim.baseUrl}${path}`, { method: 'POST', agent: false, headers });
      client.on('error', () => {}); // cut on purpose
      return client.end(JSON.stringify(generate({ max_new_tokens: 3 })));
    });
    await expect.poll(() => metric(sim, 'queue_size')).toBe(2);
    const { connections } = await sim.inspect();
    for (const client of clients) client.destroy();
    await expect.poll(async () => connections - (await sim.inspect()).connections).toBe(2);
    expect(await metric(sim, 'queue_size')).toBe(2); // nobody looks before it is their turn
    await sim.control('none');
    expect(eventsOf((await first).text)).toHaveLength(2);
    await expect.poll(() => metric(sim, 'request_failure', { err: 'dropped' })).toBe(2);
    expect(await metric(sim, 'batch_inference_count', { method: 'prefill' })).toBe(1);
    const completions = { started: 1, finished: 1, abandoned: 0 };
    expect(await sim.inspect()).toMatchObject({ completions, busySlots: 0, deferred: 0 });
  });

  it('wants its key for generating and tokenizing only, and reads it without regard to case', async () => {
    await using sim = await start('--api-key', 'Key-0123');
    for (const path of ['/generate', '/generate_stream', '/tokenize', '/']) {
      expect(await post(sim, path, generate({ max_new_tokens: 1 }))).toMatchObject({ status: 401, text: '' });
    }
    for (const path of ['/health', '/info', '/metrics']) {
      expect((await fetch(`${sim.baseUrl}${path}`)).status).toBe(200);
    }
    expect(await post(sim, '/tokenize', { inputs: 'a' }, { authorization: 'bearer KEY-0123' })).toMatchObject({
      status: 200,
    });
  });
});

describe('the process', () => {
  const { logPatterns } = tgiLaunch({
    ...{
      binaryPath: 'x',
      model: 'm',
      servedName: 'm',
      ports: [1, 2, 3],
      contextPerSlot: 8,
      slots: 1,
      gpuUuids: [],
      gpuIndices: [],
    },
  });

  it('finishes what runs after SIGTERM, and takes nothing new', async () => {
    await using sim = await start('--fault', 'hang-at-token:1');
    const answer = post(sim, '/generate_stream', generate({ max_new_tokens: 3 }));
    await expect.poll(() => metric(sim, 'batch_current_size')).toBe(1);
    sim.kill('SIGTERM');
    await expect.poll(() => sim.lines.join('\n')).toContain('signal received, starting graceful shutdown');
    await expect.poll(() => refuses(sim)).toBe(true);
    await sim.control('none');
    expect(eventsOf((await answer).text)).toHaveLength(3);
    expect(await sim.exited).toEqual({ code: 0, signal: null });
  });

  it('kills what takes longer, and still ends with 0', async () => {
    await using sim = await start('--fault', 'hang-at-token:1', '--drain-ms', '50');
    const answer = post(sim, '/generate_stream', generate({ max_new_tokens: 3 }));
    const outcome = expect(answer).rejects.toThrow();
    await expect.poll(() => metric(sim, 'batch_current_size')).toBe(1);
    sim.kill('SIGTERM');
    await outcome;
    expect(await sim.exited).toEqual({ code: 0, signal: null });
  });

  it.each([
    ['crash-at-token:1', 'transport error', 'ENGINE_CORE_DEAD'],
    ['cuda-error-at-token:1', 'CUDA error: an illegal memory access was encountered\n', 'CUDA_ERROR'],
    ['oom-at-token:1', 'CUDA out of memory. Tried to allocate 2.00 GiB.', 'VRAM_OOM_RUNTIME'],
  ])('%s: tells its streams, then goes with 1', async (fault, cause, read) => {
    await using sim = await start('--fault', fault);
    const { text } = await post(sim, '/generate_stream', generate({ max_new_tokens: 3 }));
    const [first, error] = eventsOf(text);
    expect(first).toMatchObject({ index: 1 });
    expect(error).toEqual({
      error: expect.stringContaining(`Request failed during generation: Server error: ${cause}`),
      error_type: 'generation',
    });
    expect(await sim.exited).toEqual({ code: 1, signal: null });
    expect(sim.lines.slice(-5)).toEqual([
      expect.stringMatching(/^\S+Z ERROR text_generation_launcher: Shard 0 crashed$/),
      ...['Terminating webserver', 'Waiting for webserver', 'Shutting down shards'].map((line) =>
        expect.stringContaining(line),
      ),
      'Error: ShardFailed',
    ]);
    expect(readFault(logPatterns, sim.lines)?.pattern.fault).toBe(read);
  });

  it('serves on the CPU without a word but its log', async () => {
    await using sim = await start('--fault', 'cpu-fallback');
    expect((await post(sim, '/generate', generate({ max_new_tokens: 1 }))).status).toBe(200);
    expect(readFault(logPatterns, sim.lines)?.pattern.fault).toBe('CPU_FALLBACK');
  });
});

async function refuses(sim: RunningSim): Promise<boolean> {
  return fetch(`${sim.baseUrl}/health`, { headers: { connection: 'close' } }).then(
    () => false,
    () => true,
  );
}
