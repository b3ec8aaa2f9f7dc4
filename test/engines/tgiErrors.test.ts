import { once } from 'node:events';
import { createServer } from 'node:http';
import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { readSamples } from '../../src/engines/prometheus.js';
import { completionBody, createTgiAdapter, readMetrics } from '../../src/engines/tgi/adapter.js';
import { TGI_ERRORS } from '../../src/engines/tgi/errors.js';

const SECRET = 'key-of-this-engine';
const failures = new Failures(TGI_ERRORS, [SECRET]);
const refusal = (status: number, body: string) => failures.http({ kind: 'status', status, body }, 'before_first_token');
const envelope = (error: string, type: string): string => JSON.stringify({ error, error_type: type });
const generation = (cause: string): string => `Request failed during generation: Server error: ${cause}`;

describe('error table', () => {
  it.each([
    ['validation', 'INVALID_PARAMS', false, 422],
    ['template_error', 'INVALID_PARAMS', false, 422],
    ['missing_template_variable', 'INVALID_PARAMS', false, 422],
    ['tool_error', 'INVALID_PARAMS', false, 422],
    ['overloaded', 'POOL_UNREADY', true, 429],
    ['generation', 'INTERNAL', true, 424],
    ['incomplete_generation', 'INTERNAL', true, 500],
    ['incomplete_generation_stream', 'INTERNAL', true, 500],
    ['stream_serialization_error', 'INTERNAL', true, 500],
    ['a type nobody knows', 'INTERNAL', true, 500],
  ])('type %s is %s and does not blame the process', (type, code, retriable, status) => {
    const expected = { code, retriable, status, engineLost: false };
    expect(refusal(status, envelope('m', type))).toMatchObject({ ...expected, message: 'TGI: m' });
    expect(failures.frame({ error: 'm', error_type: type }, 'streaming')).toMatchObject({
      ...expected,
      phase: 'streaming',
    });
  });

  it('an unhealthy server is lost', () => {
    expect(refusal(503, '{"error":"unhealthy","error_type":"healthcheck"}')).toMatchObject({
      ...{ code: 'WORKER_RESET', engineLost: true, status: 503 },
    });
  });

  it.each([
    'CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported',
    'CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB',
    'CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`',
    'HIP error: invalid device function',
    'XPU out of memory. Tried to allocate 2.00 GiB',
    'NCCL error in: ProcessGroupNCCL.cpp',
    'transport error',
    'error trying to connect: tcp connect error: Connection refused (os error 111)',
  ])('a generation error that ends the shard means that the engine is lost: %s', (cause) => {
    expect(failures.frame({ error: generation(cause), error_type: 'generation' }, 'streaming')).toMatchObject({
      ...{ code: 'WORKER_RESET', engineLost: true, retriable: true, phase: 'streaming', status: 424 },
    });
  });

  it.each(['list index out of range', 'Expected all tensors', 'The ship has sailed'])(
    'a generation error that the shard survives does not: %s',
    (cause) => {
      expect(refusal(424, envelope(generation(cause), 'generation'))).toMatchObject({
        ...{ code: 'INTERNAL', engineLost: false },
      });
    },
  );

  it('what a client wrote does not make a refusal look like a lost engine', () => {
    const message = 'Input validation error: grammar is not valid: CUDA out of memory, transport error';
    expect(refusal(422, envelope(message, 'validation'))).toMatchObject({ code: 'INVALID_PARAMS', engineLost: false });
  });

  it.each([
    [400, 'Failed to parse the request body as JSON: EOF while parsing', 'INVALID_PARAMS', false],
    [401, '', 'INTERNAL', false],
    [404, '', 'INTERNAL', false],
    [413, 'length limit exceeded', 'INVALID_PARAMS', false],
    [415, 'Expected request with `Content-Type: application/json`', 'INVALID_PARAMS', false],
    [422, 'Failed to deserialize the JSON body into the target type: missing field `inputs`', 'INVALID_PARAMS', false],
    [424, '', 'INTERNAL', false],
    [429, '', 'POOL_UNREADY', false],
    [500, '<html>', 'INTERNAL', false],
    [502, '<html>Bad Gateway</html>', 'WORKER_RESET', true],
    [503, '<html>', 'POOL_UNREADY', false],
    [504, '<html>', 'DECODE_TIMEOUT', true],
    [302, '', 'INTERNAL', false],
  ])('answer %i %s without an envelope is %s', (status, body, code, engineLost) => {
    expect(refusal(status, body)).toMatchObject({ code, engineLost, status, phase: 'before_first_token' });
  });

  it('tells apart what may be retried', () => {
    expect([400, 401, 413, 422].map((status) => refusal(status, '').retriable)).toEqual([false, false, false, false]);
    expect([424, 429, 500, 502].map((status) => refusal(status, '').retriable)).toEqual([true, true, true, true]);
    expect(refusal(429, '').retryAfterMs).toBeGreaterThan(0);
  });

  it('keeps secrets out of every message', () => {
    const said = `Bearer abc.def-ghi ${SECRET} hf_abcdefghijklmnop api_key=hunter22`;
    const messages = [
      refusal(500, envelope(said, 'generation')).message,
      refusal(422, said).message,
      failures.frame({ error: said, error_type: 'validation' }, 'streaming')?.message,
      failures.malformed(said, 'streaming').message,
    ];
    for (const message of messages) expect(message).not.toMatch(/abc\.def|key-of-this|hf_abc|hunter22/);
  });
});

describe('requests', () => {
  const request = { requestId: 'r', prompt: 'p', maxTokens: 7, seed: 5n, strict: true, slot: 2 };

  it('write everything out that has a treacherous default', () => {
    expect(completionBody(request)).toEqual({
      inputs: 'p',
      parameters: {
        ...{ max_new_tokens: 7, do_sample: true, seed: 5, temperature: 0.8, top_k: 40, top_p: 0.95 },
        ...{ details: true, return_full_text: false, decoder_input_details: false },
      },
    });
  });
});

describe('metrics', () => {
  const read = (text: string) => readMetrics(readSamples(text));
  const page = `# HELP tgi_batch_current_size Current batch size
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 3

# TYPE tgi_queue_size gauge
tgi_queue_size 2

# TYPE tgi_batch_current_max_tokens gauge
tgi_batch_current_max_tokens 4096

# TYPE tgi_request_input_length histogram
tgi_request_input_length_bucket{le="40.96"} 1
tgi_request_input_length_bucket{le="+Inf"} 2
tgi_request_input_length_sum 30
tgi_request_input_length_count 2

# TYPE tgi_request_generated_tokens histogram
tgi_request_generated_tokens_bucket{le="+Inf"} 2
tgi_request_generated_tokens_sum 12
tgi_request_generated_tokens_count 2
`;

  it('are read from sums and gauges', () => {
    expect(read(page)).toEqual({ running: 3, waiting: 2, kvUsage: null, tokensInTotal: 30, tokensOutTotal: 12 });
  });

  it('take the batch’s share of all tokens for the KV usage where the capacity is told', () => {
    expect(read(`${page}tgi_batch_max_total_tokens 16384\n`).kvUsage).toBe(0.25);
    expect(read(`${page}tgi_batch_max_total_tokens 0\n`).kvUsage).toBeNull();
    expect(read(`${page}tgi_batch_max_total_tokens 2048\n`).kvUsage).toBe(1);
  });

  it('are 0 until they have had a value', () => {
    expect(read('')).toEqual({ running: 0, waiting: 0, kvUsage: null, tokensInTotal: 0, tokensOutTotal: 0 });
  });
});

describe('a server', () => {
  const info = { model_id: 'org/m', max_concurrent_requests: 12, max_total_tokens: 4096, version: '3.3.6' };

  /** Answers GET /info, and every other route with 404. */
  async function withServer(test: (baseUrl: string) => Promise<void>): Promise<void> {
    const server = createServer(({ url }, response) => {
      if (url === '/info') response.end(JSON.stringify({ ...info, model_sha: 'e985', sha: 'db931fcf42da018a' }));
      else response.writeHead(404).end();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    try {
      await test(`http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`);
    } finally {
      server.close();
    }
  }

  it('without metrics and tokenizer says nothing of what only they know', async () => {
    await withServer(async (baseUrl) => {
      const adapter = createTgiAdapter({ baseUrl });
      const signal = AbortSignal.timeout(5_000);
      expect(await adapter.props(signal)).toEqual({
        ...{ version: '3.3.6 (db931fc)', modelId: 'org/m', modelDigest: 'e985' },
        ...{ contextLength: 4096, slotsTotal: 12, slotsBusy: null },
      });
      expect(await adapter.countTokens('a', signal)).toBeNull();
      expect(await adapter.cancel({ requestId: 'r', slot: 0 }, signal)).toEqual({
        ...{ outcome: 'acknowledged', verifiedBy: 'the connection is closed; the server shows no metrics' },
      });
      await adapter.close();
    });
  });

  it('has as many slots as it was started for, where that is known', async () => {
    await withServer(async (baseUrl) => {
      const adapter = createTgiAdapter({ baseUrl, slots: 8 });
      expect(await adapter.props(AbortSignal.timeout(5_000))).toMatchObject({ slotsTotal: 8 });
      await adapter.close();
    });
  });
});
