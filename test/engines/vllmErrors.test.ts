import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { completionBody, createVllmAdapter, readMetrics, type VllmEndpoint } from '../../src/engines/vllm/adapter.js';
import { VLLM_ERRORS } from '../../src/engines/vllm/errors.js';

const failures = new Failures(VLLM_ERRORS, ['k-1234567']);
const deadline = (): AbortSignal => AbortSignal.timeout(10_000);
const envelope = (status: number, type: string, message = 'm'): string =>
  JSON.stringify({ error: { message, type, param: null, code: status } });
const DEAD = 'EngineCore encountered an issue. See stack trace (above) for the root cause.';
const OVERFLOW =
  "This model's maximum context length is 4096 tokens. However, you requested 16 output tokens and your prompt contains at least 4090 input tokens";

describe('error table', () => {
  it.each([
    [400, envelope(400, 'BadRequestError'), 'INVALID_PARAMS', false, false],
    [400, envelope(400, 'Bad Request'), 'INVALID_PARAMS', false, false],
    [422, envelope(422, 'UnprocessableEntityError'), 'INVALID_PARAMS', false, false],
    [400, envelope(400, 'BadRequestError', OVERFLOW), 'INVALID_PARAMS', false, false],
    // An older build tells the overflow under a type of its own.
    [500, envelope(500, 'ValueError', OVERFLOW), 'INVALID_PARAMS', false, false],
    [404, envelope(404, 'NotFoundError', 'The model `x` does not exist.'), 'INTERNAL', false, false],
    [404, '{"detail":"Not Found"}', 'INTERNAL', false, false],
    [501, envelope(501, 'NotImplementedError'), 'INTERNAL', false, false],
    [401, '{"error":"Unauthorized"}', 'INTERNAL', false, false],
    [500, envelope(500, 'InternalServerError'), 'INTERNAL', true, false],
    [500, envelope(500, 'InternalServerError', DEAD), 'WORKER_RESET', true, true],
    [500, envelope(500, 'x', `vllm.v1.engine.exceptions.EngineDeadError: ${DEAD}`), 'WORKER_RESET', true, true],
    [503, envelope(503, 'Service Unavailable'), 'POOL_UNREADY', true, false],
    [503, '', 'POOL_UNREADY', true, false],
    [429, '', 'POOL_UNREADY', true, false],
    [413, '', 'INVALID_PARAMS', false, false],
    [400, '', 'INVALID_PARAMS', false, false],
    [422, '{"detail":[]}', 'INVALID_PARAMS', false, false],
    [500, 'Internal Server Error', 'INTERNAL', true, false],
    [502, '<html>', 'WORKER_RESET', true, true],
    [504, '<html>', 'DECODE_TIMEOUT', true, true],
    [302, '', 'INTERNAL', false, false],
    // What a message quotes of a request does not speak for the engine.
    [400, envelope(400, 'Bad Request', "'input': 'EngineCore EngineDeadError'"), 'INVALID_PARAMS', false, false],
    // The flat shape of older builds.
    [
      500,
      JSON.stringify({ object: 'error', message: DEAD, type: 'x', param: null, code: 500 }),
      'WORKER_RESET',
      true,
      true,
    ],
  ] satisfies [number, string, string, boolean, boolean][])(
    'answer %i %s is %s, retriable %s, lost %s',
    (status, body, code, retriable, engineLost) => {
      const error = failures.http({ kind: 'status', status, body }, 'before_first_token');
      expect(error).toMatchObject({ code, retriable, engineLost, status, phase: 'before_first_token' });
    },
  );

  it.each([
    ['abort', 'WORKER_RESET', true],
    ['error', 'INTERNAL', false],
    ['constructor', 'INTERNAL', false],
  ])('type %s is %s, lost %s', (type, code, engineLost) => {
    expect(failures.verdictOf({ status: 500, type, message: '' })).toMatchObject({ code, engineLost, retriable: true });
  });

  it('says how long to wait when the queue is full', () => {
    expect(failures.verdictOf({ status: 503, type: null, message: '' }).retryAfterMs).toBe(250);
  });
});

describe('requests', () => {
  const request = { requestId: 'r-1', prompt: 'p', maxTokens: 7, seed: 5n, strict: false, slot: 2 };

  it('writes everything out that a model could bring a default for', () => {
    expect(completionBody(request, 'm')).toEqual({
      ...{ model: 'm', prompt: 'p', max_tokens: 7, seed: 5, request_id: 'r-1' },
      ...{
        stream: true,
        stream_options: { include_usage: true, continuous_usage_stats: true },
        return_token_ids: true,
      },
      ...{ temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05 },
      ...{ repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0 },
    });
  });

  it('gives a strict one a prefix cache of its own, and one that wants a cold one', () => {
    expect(completionBody({ ...request, reusesCache: false }, 'm').cache_salt).toBe('r-1');
    expect(completionBody({ ...request, reusesCache: true }, 'm')).not.toHaveProperty('cache_salt');
    const salts = ['r-1', 'r-2'].map(
      (requestId) => completionBody({ ...request, requestId, strict: true }, 'm').cache_salt,
    );
    expect(salts).toEqual(['r-1', 'r-2']);
  });
});

describe('metrics', () => {
  const page = (engine: number, values: readonly number[]): string =>
    [
      'num_requests_running',
      'num_requests_waiting',
      'kv_cache_usage_perc',
      'prompt_tokens_total',
      'generation_tokens_total',
    ]
      .map((name, index) => `vllm:${name}{engine="${engine}",model_name="m"} ${values[index]}\n`)
      .join('');

  it('adds up the engines, and takes the mean of their shares', () => {
    const text = `# TYPE vllm:num_requests_running gauge\n${page(0, [1, 2, 0.5, 100, 30])}${page(1, [2, 0, 0.25, 1.5e6, 7])}`;
    expect(readMetrics(text)).toEqual({
      ...{ running: 3, waiting: 2, kvUsage: 0.375, tokensInTotal: 1_500_100, tokensOutTotal: 37 },
    });
  });

  it('knows the older name of the cache, and says nothing where nothing is told', () => {
    expect(readMetrics('vllm:gpu_cache_usage_perc{model_name="m"} 0.25\n').kvUsage).toBe(0.25);
    expect(readMetrics('python_info 1.0\n')).toEqual({
      ...{ running: null, waiting: null, kvUsage: null, tokensInTotal: null, tokensOutTotal: null },
    });
  });
});

describe('against a server', () => {
  const closers: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const close of closers.splice(0)) await close();
  });

  async function serve(listener: RequestListener, options: Partial<VllmEndpoint> = {}) {
    const server = createServer(listener).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const adapter = createVllmAdapter({ baseUrl: `http://127.0.0.1:${port}`, ...options });
    closers.push(async () => {
      await adapter.close();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    });
    return adapter;
  }
  const gauges = (running: number): string => `vllm:num_requests_running{engine="0",model_name="m"} ${running}\n`;
  const MODELS = '{"object":"list","data":[{"id":"m","max_model_len":4096}]}';

  it('makes an idle engine whose gauges stand still take one step, and believes them then', async () => {
    const completions: unknown[] = [];
    // Still busy at the next looks after the step.
    let looksBeforeFree = 3;
    const adapter = await serve(
      async (request, response) => {
        if (request.url === '/metrics') {
          if (completions.length > 0) looksBeforeFree -= 1;
          return void response.end(gauges(looksBeforeFree > 0 ? 1 : 0));
        }
        let body = '';
        for await (const part of request) body += part;
        completions.push(JSON.parse(body));
        response.end('{}');
      },
      { servedModel: 'm' },
    );
    const outcome = await adapter.cancel({ requestId: 'r', slot: 0 }, deadline());
    expect(outcome).toEqual({ outcome: 'slot_free', verifiedBy: 'GET /metrics: 0 requests at work' });
    expect(completions).toEqual([expect.objectContaining({ model: 'm', max_tokens: 1 })]);
  });

  it.each([
    ['404', 404, ''],
    ['a page without them', 200, 'python_info 1.0\n'],
  ])('takes the closed connection for an answer where gauges are off (%s)', async (_name, status, page) => {
    const adapter = await serve((_request, response) => void response.writeHead(status).end(page));
    expect(await adapter.cancel({ requestId: 'r', slot: 0 }, deadline())).toEqual({
      ...{ outcome: 'acknowledged', verifiedBy: 'the connection is closed; vLLM aborts what lost its client' },
    });
  });

  it('tells no success while something goes on', async () => {
    const adapter = await serve((_request, response) => void response.end(gauges(1)), { servedModel: 'm' });
    const outcome = await adapter.cancel({ requestId: 'r', slot: 0 }, AbortSignal.timeout(150));
    expect(outcome).toEqual({ outcome: 'unknown', verifiedBy: 'GET /metrics: 1 requests at work' });
  });

  it('asks for the name of the model once', async () => {
    const asked: (string | undefined)[] = [];
    const adapter = await serve((request, response) => {
      asked.push(request.url);
      response.end(request.url === '/v1/models' ? MODELS : '{"count":5,"max_model_len":4096,"tokens":[]}');
    });
    expect(await adapter.countTokens('a', deadline())).toBe(5);
    expect(await adapter.countTokens('b', deadline())).toBe(5);
    expect(asked).toEqual(['/v1/models', '/tokenize', '/tokenize']);
  });

  it('knows the slots from its caller, and what runs from the gauges', async () => {
    const answers: Readonly<Record<string, string>> = {
      '/version': '{"version":"0.23.0"}',
      '/v1/models': MODELS,
      '/metrics': gauges(2),
    };
    const adapter = await serve((request, response) => void response.end(answers[request.url ?? '']), { slots: 4 });
    expect(await adapter.props(deadline())).toEqual({
      ...{ version: '0.23.0', modelId: 'm', modelDigest: null, contextLength: 4096, slotsTotal: 4, slotsBusy: 2 },
    });
  });

  it.each([404, 501])('does not offer what the server answers %i to', async (status) => {
    const adapter = await serve((_request, response) => void response.writeHead(status).end('{"detail":"Not Found"}'), {
      servedModel: 'm',
    });
    const refusal = { code: 'INVALID_PARAMS', retriable: false };
    await expect(adapter.embed({ requestId: 'e', inputs: ['a'] }, deadline())).rejects.toMatchObject(refusal);
    await expect(adapter.rerank({ requestId: 'r', query: 'q', documents: ['a'] }, deadline())).rejects.toMatchObject(
      refusal,
    );
    expect(await adapter.countTokens('a', deadline())).toBeNull();
  });

  it('is failing when its engine has died behind it', async () => {
    const adapter = await serve((_request, response) => void response.writeHead(503).end());
    expect(await adapter.health(deadline())).toMatchObject({ state: 'failing', live: true, ready: false });
  });
});
