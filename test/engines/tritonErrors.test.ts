import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import type { EngineAdapter } from '../../src/engines/adapter.js';
import { Failures } from '../../src/engines/failure.js';
import {
  completionBody,
  createTritonAdapter,
  readMetrics,
  type TritonEndpoint,
} from '../../src/engines/triton/adapter.js';
import { TRITON_ERRORS } from '../../src/engines/triton/errors.js';
import { ask, failure, run } from '../support/adapters.js';

const failures = new Failures(TRITON_ERRORS, ['k-1234567']);
const deadline = (): AbortSignal => AbortSignal.timeout(10_000);
const body = (message: string): string => JSON.stringify({ error: message });
const TOO_LONG =
  "in ensemble 'ensemble', Encountered error for requestId 7: Cannot process new request: Prompt length (5000) exceeds maximum input length (4096).";
const OOM = 'CUDA runtime error in ::cudaMallocAsync(ptr, n): out of memory (/src/cudaUtils.h:121)';

describe('error table', () => {
  it.each([
    [400, body("Unable to parse 'max_tokens': attempt to access JSON"), 'INVALID_PARAMS', false, false],
    [403, body('This API is restricted, expecting header'), 'INTERNAL', false, false],
    [404, body("Request for unknown model: 'x' is not found"), 'INTERNAL', false, false],
    [400, body("Request for unknown model: 'x' is not found"), 'INTERNAL', false, false],
    [503, body("Request for unknown model: 'x' has no available versions"), 'POOL_UNREADY', true, false],
    [405, body('Method Not Allowed'), 'INTERNAL', false, false],
    [413, '', 'INVALID_PARAMS', false, false],
    [429, '', 'POOL_UNREADY', true, false],
    [500, body('Encountered error for requestId 7: boom'), 'INTERNAL', true, false],
    [500, body(TOO_LONG), 'INVALID_PARAMS', false, false],
    [500, body('prompt length should not exceed max_num_tokens (8192)'), 'INVALID_PARAMS', false, false],
    [500, body('input_length (9) exceeds max_input_len (8)'), 'INVALID_PARAMS', false, false],
    [
      500,
      body('prompt_len + max_tokens should be less than or equal to max_seq_len (8)'),
      'INVALID_PARAMS',
      false,
      false,
    ],
    // The first frame of a stream, when it is an error, has its status and the form of a frame.
    [500, `data: ${body(TOO_LONG)}\n\n`, 'INVALID_PARAMS', false, false],
    [500, `data: ${body('boom')}\n\n`, 'INTERNAL', true, false],
    [501, body("'repository_name' specification is not supported"), 'INTERNAL', false, false],
    [502, '<html>', 'WORKER_RESET', true, true],
    [503, body('Exceeds maximum queue size'), 'POOL_UNREADY', true, false],
    [500, body('[request id: 7] Exceeds maximum queue size'), 'POOL_UNREADY', true, false],
    [503, body('Server exiting'), 'WORKER_RESET', true, true],
    [504, '<html>', 'DECODE_TIMEOUT', true, true],
    [500, body(OOM), 'INTERNAL', true, false],
    [500, body('CUDA error: an illegal memory access was encountered'), 'WORKER_RESET', true, true],
    [500, body('CUDA runtime error in cudaEventSynchronize(get())'), 'WORKER_RESET', true, true],
    [500, body('stub died: Signal (11) received.'), 'WORKER_RESET', true, true],
    [302, '', 'INTERNAL', false, false],
  ] satisfies [number, string, string, boolean, boolean][])(
    'answer %i %s is %s, retriable %s, lost %s',
    (status, text, code, retriable, engineLost) => {
      const error = failures.http({ kind: 'status', status, body: text }, 'before_first_token');
      expect(error).toMatchObject({ code, retriable, engineLost, status, phase: 'before_first_token' });
    },
  );
});

describe('requests', () => {
  it('writes the sampling out', () => {
    const request = { requestId: 'r-1', prompt: 'p', maxTokens: 7, seed: 5n, strict: true, slot: 2 };
    expect(completionBody(request)).toEqual({
      ...{ id: 'r-1', text_input: 'p', max_tokens: 7, stream: true, seed: 5 },
      ...{ temperature: 0.8, top_k: 40, top_p: 0.95, bad_words: '', stop_words: '' },
      ...{ return_num_input_tokens: true, return_num_output_tokens: true },
    });
  });
});

// In the form of the tensorrtllm_backend documentation.
const gauges = (active: number, waiting: number): string => `# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} ${waiting}
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} ${active}
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.4875
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
`;

const histogram = (way: string, sum: number): string => {
  const labels = `model="tensorrt_llm",response_metric_type="total_${way}_tokens",version="1"`;
  return `nv_llm_${way}_token_len_count{${labels}} 3\nnv_llm_${way}_token_len_sum{${labels}} ${sum}\n`;
};

describe('metrics', () => {
  const noTotals = { tokensInTotal: null, tokensOutTotal: null };

  it('reads the gauges of the backend, of which only newer ones count tokens', () => {
    expect(readMetrics(gauges(3, 2))).toEqual({ running: 3, waiting: 2, kvUsage: 0.4875, ...noTotals });
    const page = `${gauges(0, 0)}${histogram('input', 55)}${histogram('output', 24)}`;
    expect(readMetrics(page)).toMatchObject({ running: 0, tokensInTotal: 55, tokensOutTotal: 24 });
  });

  it('knows nothing of a server without that backend', () => {
    const page = 'nv_inference_request_success{model="m",version="1"} 5\n';
    expect(readMetrics(page)).toEqual({ running: null, waiting: null, kvUsage: null, ...noTotals });
  });
});

/** Path and parsed body of every request, in order. */
type Seen = [path: string, body: unknown][];
const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : '';
}

async function serveWith(answers: Readonly<Record<string, readonly [number, string]>>, seen: Seen = []) {
  return serve(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const path = request.url ?? '';
    seen.push([path, text === '' ? null : JSON.parse(text)]);
    const [status, answer] = answers[path] ?? [404, body('Not Found')];
    response.writeHead(status).end(answer);
  });
}

function adapterOf(endpoint: TritonEndpoint): EngineAdapter {
  const adapter = createTritonAdapter(endpoint);
  closing.unshift(() => adapter.close());
  return adapter;
}

const SERVER = '{"name":"triton","version":"2.73.0","extensions":[]}';
const STOP = {
  '/v2/models/tensorrt_llm/generate': [200, '{"id":"r-1","model_name":"tensorrt_llm","model_version":"1"}'],
  '/v2/health/live': [200, ''],
} as const;

describe('health', () => {
  it.each([
    [200, '', 'ready'],
    [400, '', 'loading'],
    [503, body('Server exiting'), 'failing'],
  ])('ready probe %i %s: %s', async (status, text, state) => {
    const adapter = adapterOf({ baseUrl: await serveWith({ '/v2/health/ready': [status, text] }) });
    expect(await adapter.health(deadline())).toMatchObject({ state, live: true, ready: state === 'ready' });
  });

  it('is unreachable while the port refuses', async () => {
    const adapter = adapterOf({ baseUrl: 'http://127.0.0.1:1' });
    expect(await adapter.health(deadline())).toMatchObject({ state: 'unreachable', live: false });
  });
});

describe('properties', () => {
  it('come from the server, its model, its metrics and the outside', async () => {
    const baseUrl = await serveWith({ '/v2': [200, SERVER], '/v2/models/m': [200, '{"name":"m"}'] });
    const metricsUrl = await serveWith({ '/metrics': [200, gauges(2, 0)] });
    const told = { version: '2.73.0', modelId: 'm', modelDigest: null };
    expect(
      await adapterOf({ baseUrl, metricsUrl, model: 'm', slots: 4, contextLength: 512 }).props(deadline()),
    ).toEqual({ ...told, contextLength: 512, slotsTotal: 4, slotsBusy: 2 });
    expect(await adapterOf({ baseUrl, model: 'm' }).props(deadline())).toEqual({
      ...{ ...told, contextLength: null, slotsTotal: null, slotsBusy: null },
    });
  });

  it('say which model is missing', async () => {
    const missing = body("Request for unknown model: 'a b' is not found");
    const baseUrl = await serveWith({ '/v2': [200, SERVER], '/v2/models/a%20b': [404, missing] });
    await expect(adapterOf({ baseUrl, model: 'a b' }).props(deadline())).rejects.toMatchObject({
      ...{ code: 'INTERNAL', status: 404, message: "Triton: Request for unknown model: 'a b' is not found" },
    });
  });
});

describe('cancel', () => {
  const cancel = { requestId: 'r-1', slot: 0 };

  it('stops the request by its id, and calls it acknowledged where nothing can be looked at', async () => {
    const seen: Seen = [];
    const adapter = adapterOf({ baseUrl: await serveWith(STOP, seen), model: 'm' });
    expect(await adapter.cancel(cancel, deadline())).toMatchObject({ outcome: 'acknowledged' });
    const stop = { id: 'r-1', input_ids: [0], input_lengths: 0, request_output_len: 0, stop: true };
    expect(seen[0]).toEqual(['/v2/models/tensorrt_llm/generate', stop]);
  });

  it('does not call it acknowledged when the stop was refused', async () => {
    const baseUrl = await serveWith({ ...STOP, '/v2/models/tensorrt_llm/generate': [400, body('no')] });
    expect(await adapterOf({ baseUrl, model: 'm' }).cancel(cancel, deadline())).toMatchObject({ outcome: 'unknown' });
  });

  it('looks at the metrics until the request is gone, and says stop again meanwhile', async () => {
    const seen: Seen = [];
    let active = 3;
    const baseUrl = await serveWith(STOP, seen);
    const metricsUrl = await serve((_request, response) => {
      active -= 1;
      response.end(gauges(active, 0));
    });
    const outcome = await adapterOf({ baseUrl, metricsUrl, model: 'm' }).cancel(cancel, deadline());
    expect(outcome).toEqual({ outcome: 'slot_free', verifiedBy: 'GET /metrics: 0 requests at work' });
    expect(seen.map(([path]) => path)).toEqual(Array(3).fill('/v2/models/tensorrt_llm/generate'));
  });

  it('is unknown while the request is seen to go on', async () => {
    const baseUrl = await serveWith(STOP);
    const metricsUrl = await serveWith({ '/metrics': [200, gauges(0, 1)] });
    const adapter = adapterOf({ baseUrl, metricsUrl, model: 'm' });
    expect(await adapter.cancel(cancel, AbortSignal.timeout(600))).toMatchObject({ outcome: 'unknown' });
  });

  it('does not take a missing metrics port for the end of the engine', async () => {
    const adapter = adapterOf({ baseUrl: await serveWith(STOP), metricsUrl: 'http://127.0.0.1:1', model: 'm' });
    expect(await adapter.cancel(cancel, deadline())).toMatchObject({ outcome: 'acknowledged' });
    const gone = adapterOf({ baseUrl: 'http://127.0.0.1:1', metricsUrl: 'http://127.0.0.1:1' });
    expect(await gone.cancel(cancel, deadline())).toEqual({ outcome: 'slot_free', verifiedBy: 'the engine is gone' });
  });
});

describe('a connection that is cut', () => {
  it('is no end, though the end is marked by nothing else', async () => {
    const baseUrl = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
      response.write('data: {"model_name":"m","model_version":"1","text_output":" a"}\n\n', () => response.destroy());
    });
    const outcome = await run(adapterOf({ baseUrl, model: 'm' }), ask());
    expect([outcome.tokens, failure(outcome)]).toEqual([1, 'WORKER_RESET streaming lost=true']);
  });
});
