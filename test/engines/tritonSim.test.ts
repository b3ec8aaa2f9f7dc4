import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { text as bodyOf } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';

const ARGS = ['--model', 'ensemble', '--ctx', '100', '--slots', '2', '--tokens-per-second', '0'];
const ask = { text_input: 'Once upon', max_tokens: 3, temperature: 0.8, top_k: 40, top_p: 0.95, seed: 7 };
const STREAM = '/v2/models/ensemble/generate_stream';
const GENERATE = '/v2/models/ensemble/generate';
const STOP = '/v2/models/tensorrt_llm/generate';
const stopOf = (id: string) => ({ id, input_ids: [0], input_lengths: 0, request_output_len: 0, stop: true });

interface Answer {
  readonly status: number;
  readonly type: string | null;
  readonly text: string;
}

async function answerOf(response: Response): Promise<Answer> {
  return { status: response.status, type: response.headers.get('content-type'), text: await response.text() };
}

async function get(sim: RunningSim, path: string): Promise<Answer> {
  return answerOf(await fetch(`${sim.baseUrl}${path}`));
}

async function post(sim: RunningSim, path: string, body: unknown): Promise<Answer> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return answerOf(await fetch(`${sim.baseUrl}${path}`, { method: 'POST', body: text }));
}

const error = (message: string): string => JSON.stringify({ error: message });
const textsOf = ({ text }: Answer): string[] =>
  [...text.matchAll(/^data: (.*)$/gm)].map(([, json = '']) => String(JSON.parse(json).text_output));

/** A stream whose first frame has come, over a connection of its own; not fetch, which connects anew after an abort. */
async function begun(sim: RunningSim, body: unknown) {
  const client = request(`${sim.baseUrl}${STREAM}`, { method: 'POST', agent: false });
  client.on('error', () => {}); // cut on purpose
  client.end(JSON.stringify(body));
  const [answer] = (await once(client, 'response')) as [IncomingMessage];
  const chunks: string[] = [];
  answer.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk));
  const whole = once(answer, 'end').then(() => chunks.join(''));
  whole.catch(() => {}); // only those who wait for it care
  await once(answer, 'data');
  return { client, whole };
}

let sim: RunningSim;
beforeAll(async () => {
  sim = await startEngineSim({ protocol: 'triton', args: ARGS });
});
afterAll(() => sim[Symbol.asyncDispose]());

describe('a stream', () => {
  it('is a frame per token, an empty one and EOF', async () => {
    const answer = await post(sim, STREAM, { id: '42', ...ask, stream: true });
    const frame = (text: string): string =>
      `data: {"id":"42","model_name":"ensemble","model_version":"1","sequence_end":false,"sequence_id":0,"sequence_start":false,"text_output":${JSON.stringify(text)}}\n\n`;
    const texts = textsOf(answer);
    expect(texts).toHaveLength(4);
    expect(answer).toEqual({
      status: 200,
      type: 'text/event-stream; charset=utf-8',
      text: [...texts.slice(0, 3), ''].map(frame).join(''),
    });
  });

  it('is one frame with the prompt before the text when it is not asked to stream', async () => {
    const texts = textsOf(await post(sim, STREAM, { ...ask, stream: true }));
    const whole = await post(sim, STREAM, { ...ask, parameters: { stream: false } });
    expect(textsOf(whole)).toEqual([`Once upon${texts.join('')}`]);
    const answer = await post(sim, GENERATE, { id: '42', ...ask });
    expect(answer).toMatchObject({ status: 200, type: 'application/json' });
    expect(JSON.parse(answer.text)).toMatchObject({ id: '42', text_output: `Once upon${texts.join('')}` });
  });

  it('takes tensors of one element for what is in them', async () => {
    const wrapped = { ...ask, text_input: ['Once upon'], max_tokens: [3], seed: [[7]], stream: [true] };
    expect(await post(sim, STREAM, wrapped)).toEqual(await post(sim, STREAM, { ...ask, stream: true }));
  });

  it('ends with any of its stop words', async () => {
    const texts = textsOf(await post(sim, STREAM, { ...ask, max_tokens: 40, stream: true }));
    const stop_words = ['', '#', texts[2]?.trim()];
    const stopped = textsOf(await post(sim, STREAM, { ...ask, max_tokens: 40, stream: true, stop_words }));
    expect(stopped).toEqual([...texts.slice(0, stopped.length - 1), '']);
    expect(stopped.length).toBeLessThanOrEqual(4);
  });

  it('loses the characters that are cut into two tokens', async () => {
    await using splitting = await startEngineSim({ protocol: 'triton', args: [...ARGS, '--split-characters'] });
    const texts = textsOf(await post(splitting, STREAM, { ...ask, max_tokens: 60, stream: true }));
    expect(texts).toHaveLength(61);
    expect(texts.filter((text) => text === '\uFFFD').length).toBeGreaterThan(3);
    expect(texts.join('')).not.toMatch(/\p{Emoji_Presentation}/u);
  });
});

describe('refusals', () => {
  const tooLong =
    "in ensemble 'ensemble', Executor failed process requestId 1 due to the following error: Encountered an error when fetching new request: Prompt length (101) exceeds maximum input length (99). Set log level to info and check TRTGptModel logs for how maximum input length is set";
  const long = { ...ask, text_input: ' the'.repeat(100), stream: true };

  it.each([
    [
      GENERATE,
      { ...ask, stream: true },
      200,
      'application/json',
      /^\{"error":"generate expects model to produce exactly 1 response, use/,
    ],
    [STREAM, '{', 500, 'application/json', error('failed to parse the request JSON buffer: Invalid value. at 0')],
    [
      STREAM,
      { ...ask, max_tokens: 'x' },
      500,
      'application/json',
      error("Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer"),
    ],
    [
      STREAM,
      { id: '7', text_input: 'a' },
      400,
      'application/json',
      error(
        "[request id: 7] expected number of inputs between 2 and 14 but got 1 inputs for model 'ensemble'. Got input(s) ['text_input'], but missing required input(s) ['max_tokens']. Please provide all required input(s).",
      ),
    ],
    [
      STREAM,
      { ...ask, text_input: [] },
      400,
      'application/json',
      error(
        "[request id: <id_unknown>] unexpected shape for input 'text_input' for model 'ensemble'. Expected [-1,1], got [1,0].",
      ),
    ],
    [STREAM, { ...ask, max_tokens: [3, 4] }, 400, 'application/json', /Expected \[-1,1\], got \[1,2\]/],
    [STREAM, { ...ask, seed: 2 ** 65 }, 500, 'application/json', /non-unsigned-integer as unsigned-integer/],
    [
      '/v2/models/x/generate_stream',
      ask,
      404,
      'application/json',
      error("Request for unknown model: 'x' is not found"),
    ],
    ['/v2', {}, 405, 'application/json', error('Method Not Allowed')],
    ['/v3', {}, 404, 'text/plain', error('Not Found')],
    // What the model itself says is the stream's first frame, and still has its status.
    [STREAM, long, 500, 'text/event-stream; charset=utf-8', `data: ${error(tooLong)}\n\n`],
    [GENERATE, long, 500, 'application/json', error(tooLong)],
  ] as const)('POST %s %j: %i', async (path, body, status, type, text) => {
    const matched = typeof text === 'string' ? text : expect.stringMatching(text);
    expect(await post(sim, path, body)).toEqual({ status, type, text: matched });
  });
});

it('refuses a body that is too large', async () => {
  const body = { ...ask, text_input: 'x'.repeat(65 * 1024 * 1024) };
  expect(await post(sim, STREAM, body)).toEqual({
    ...{ status: 413, type: 'application/json', text: error('Payload too large') },
  });
});

describe('what it tells', () => {
  it('has empty health answers, and the server and its models in its metadata', async () => {
    const empty = { status: 200, type: 'text/plain', text: '' };
    for (const path of ['/v2/health/live', '/v2/health/ready', '/v2/models/ensemble/ready']) {
      expect(await get(sim, path)).toEqual(empty);
    }
    expect(JSON.parse((await get(sim, '/v2')).text)).toMatchObject({ name: 'triton', version: '2.73.0' });
    const model = JSON.parse((await get(sim, '/v2/models/ensemble/versions/1')).text);
    expect(model).toMatchObject({ name: 'ensemble', versions: ['1'], platform: 'ensemble' });
    expect(model.inputs[1]).toEqual({ name: 'max_tokens', datatype: 'INT32', shape: [-1, 1] });
    expect(JSON.parse((await get(sim, '/v2/models/ensemble/config')).text)).toMatchObject({ max_batch_size: 2 });
    const index = JSON.parse((await post(sim, '/v2/repository/index', '')).text);
    expect(index).toContainEqual({ name: 'tensorrt_llm', version: '1', state: 'READY' });
  });

  it('has its metrics on the other port, under the name of the model that decodes', async () => {
    const { client } = await begun(sim, { ...ask, max_tokens: 90, stream: true });
    client.destroy();
    const page = await answerOf(await fetch(`${sim.metricsUrl}/metrics`));
    expect(page).toMatchObject({ status: 200, type: 'text/plain; charset=utf-8' });
    expect(page.text).toContain(
      '# TYPE nv_trt_llm_request_metrics gauge\nnv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 0\n',
    );
    expect(page.text).toMatch(
      /^nv_trt_llm_kv_cache_block_metrics\{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"\} [\d.]+$/m,
    );
    expect(page.text).toMatch(/^nv_inference_request_success\{model="ensemble",version="1"\} \d+$/m);
    expect((await get(sim, '/metrics')).status).toBe(404);
  });

  it('escapes the name of its model there', async () => {
    const model = 'a "quoted\\" one';
    await using odd = await startEngineSim({ protocol: 'triton', args: [...ARGS, '--model', model] });
    const page = await (await fetch(`${odd.metricsUrl}/metrics`)).text();
    expect(page).toContain('nv_inference_request_success{model="a \\"quoted\\\\\\" one",version="1"} 0\n');
    expect(page).toContain(
      'nv_inference_request_failure{model="a \\"quoted\\\\\\" one",reason="OTHER",version="1"} 0\n',
    );
  });

  it('logs like the server', () => {
    const lines = sim.lines.join('\n');
    expect(lines).toMatch(
      /^I\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ model_lifecycle\.cc:849\] "successfully loaded 'ensemble'"$/m,
    );
    expect(lines).toMatch(/http_server\.cc:4961\] "Started HTTPService at 127\.0\.0\.1:\d+"$/m);
    expect(lines).toMatch(/http_server\.cc:400\] "Started Metrics Service at 127\.0\.0\.1:\d+"$/m);
  });
});

describe('a request that nobody wants any more', () => {
  it('is stopped by its id: its stream ends as if complete', async () => {
    await sim.control('hang-at-token:1');
    const { whole } = await begun(sim, { id: 'r-1', ...ask, max_tokens: 90, stream: true });
    expect(await post(sim, STOP, stopOf('r-2'))).toMatchObject({ status: 200 });
    expect(await sim.inspect()).toMatchObject({ busySlots: 1 });
    expect(await post(sim, STOP, stopOf('r-1'))).toEqual({
      status: 200,
      type: 'application/json',
      text: '{"id":"r-1","model_name":"tensorrt_llm","model_version":"1"}',
    });
    expect(await whole).toMatch(/"text_output":" [^"]+"\}\n\ndata: [^\n]*"text_output":""\}\n\n$/);
    expect(await sim.inspect()).toMatchObject({ busySlots: 0 });
    await sim.control('none');
  });

  it('is not stopped through the ensemble, which has no input for that', async () => {
    await sim.control('hang-at-token:2');
    const { client } = await begun(sim, { id: 'r-3', ...ask, max_tokens: 90, stream: true });
    const other = await post(sim, GENERATE, { id: 'r-3', ...ask, max_tokens: 1, stop: true });
    expect(JSON.parse(other.text).text_output).toMatch(/^Once upon./);
    expect(await sim.inspect()).toMatchObject({ busySlots: 1 });
    client.destroy();
    await sim.control('none');
    await expect.poll(() => sim.inspect()).toMatchObject({ busySlots: 0 });
  });

  it('goes on when its client goes, until the next frame is due', async () => {
    await using alone = await startEngineSim({ protocol: 'triton', args: [...ARGS, '--fault', 'hang-at-token:1'] });
    const { client } = await begun(alone, { ...ask, max_tokens: 90, stream: true });
    client.destroy();
    await expect.poll(() => alone.inspect()).toMatchObject({ connections: 0, busySlots: 1 });
    await alone.control('none');
    const completions = { started: 1, finished: 0, abandoned: 1 };
    await expect.poll(() => alone.inspect()).toMatchObject({ busySlots: 0, completions });
  });
});

describe('the process', () => {
  it('tells its requests of too little memory, and serves on', async () => {
    await sim.control('oom-at-token:0');
    const { status, type, text } = await post(sim, STREAM, { ...ask, stream: true });
    expect([status, type]).toEqual([500, 'text/event-stream; charset=utf-8']);
    expect(text).toMatch(/^data: \{"error":"in ensemble 'ensemble', .*: out of memory \(.*"\}\n\n$/);
    await sim.control('none');
    expect((await post(sim, STREAM, { ...ask, stream: true })).status).toBe(200);
  });

  it('waits for an idle connection as long as it waits at all, then ends with 1', async () => {
    await using stopping = await startEngineSim({ protocol: 'triton', args: [...ARGS, '--drain-ms', '200'] });
    const socket = connect(Number(new URL(stopping.baseUrl).port), '127.0.0.1');
    await expect.poll(() => stopping.inspect()).toMatchObject({ connections: 1 });
    stopping.kill('SIGTERM');
    expect(await stopping.exited).toEqual({ code: 1, signal: null });
    expect(stopping.lines).toContain('Signal (15) received.');
    expect(stopping.lines.at(-1)).toBe('Exit timeout expired. Exiting immediately.');
    socket.destroy();
  });

  it('answers nothing but that it exits, while it does, over the connections that it still has', async () => {
    await using stopping = await startEngineSim({ protocol: 'triton', args: ARGS });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const told = async (path: string) => {
      const client = request(`${stopping.baseUrl}${path}`, { agent });
      client.end();
      const [answer] = (await once(client, 'response')) as [IncomingMessage];
      return [answer.statusCode, await bodyOf(answer)];
    };
    try {
      expect(await told('/v2/health/ready')).toEqual([200, '']);
      stopping.kill('SIGINT');
      await expect.poll(() => stopping.lines).toContain('Signal (2) received.');
      for (const path of ['/v2/health/ready', '/v2', STREAM, '/nowhere']) {
        expect(await told(path)).toEqual([503, error('Server exiting')]);
      }
    } finally {
      agent.destroy();
    }
    expect(await stopping.exited).toEqual({ code: 0, signal: null });
  });

  it('ends with 0 once the last connection has gone', async () => {
    await using stopping = await startEngineSim({ protocol: 'triton', args: ARGS });
    const socket = connect(Number(new URL(stopping.baseUrl).port), '127.0.0.1');
    await expect.poll(() => stopping.inspect()).toMatchObject({ connections: 1 });
    stopping.kill('SIGTERM');
    await expect.poll(() => stopping.lines).toContain('Signal (15) received.');
    socket.destroy();
    expect(await stopping.exited).toEqual({ code: 0, signal: null });
  });
});
