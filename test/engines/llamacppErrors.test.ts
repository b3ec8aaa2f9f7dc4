import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { completionBody, foldSeed, readMetrics } from '../../src/engines/llamacpp/adapter.js';
import { LLAMACPP_ERRORS } from '../../src/engines/llamacpp/errors.js';
import { llamaCppDeterminism, llamaCppLaunch } from '../../src/engines/llamacpp/launch.js';
import { readCapture } from '../support/replay.js';

const failures = new Failures(LLAMACPP_ERRORS, ['k-1234567']);
const fixture = (name: string): string => readCapture(`llamacpp/${name}`).body.toString('utf8');

describe('error table', () => {
  // The three bodies are captured from llama-server b11669.
  it.each([
    [400, fixture('error-context-overflow'), 'INVALID_PARAMS'],
    [404, fixture('notfound'), 'INTERNAL'],
    [501, fixture('embeddings-disabled'), 'INTERNAL'],
    [503, '{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', 'POOL_UNREADY'],
    [401, '{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}', 'INTERNAL'],
    [500, '{"error":{"message":"Compute error.","type":"server_error","code":500}}', 'INTERNAL'],
    [503, '<html>loading</html>', 'POOL_UNREADY'],
    [302, '', 'INTERNAL'],
  ])('answer %i %s is %s and does not blame the process', (status, body, code) => {
    const error = failures.http({ kind: 'status', status, body }, 'before_first_token');
    expect(error).toMatchObject({ code, engineLost: false, phase: 'before_first_token' });
  });

  it('keeps what may be retried apart from what never will succeed', () => {
    const verdict = (status: number, type: string) => failures.verdictOf({ status, type, message: '' });
    expect(verdict(400, 'exceed_context_size_error')).toMatchObject({ retriable: false, retryAfterMs: null });
    expect(verdict(503, 'unavailable_error')).toMatchObject({ retriable: true, retryAfterMs: 1000 });
    expect(verdict(500, 'constructor')).toMatchObject({ code: 'INTERNAL', retriable: true });
  });
});

describe('requests', () => {
  it('folds seeds into 32 bits and never asks for a random one', () => {
    expect([0n, 42n, 2n ** 32n - 2n].map(foldSeed)).toEqual([0, 42, 0xffff_fffe]);
    expect([2n ** 32n - 1n, 2n ** 32n, 2n ** 63n - 1n].map(foldSeed)).toEqual([0, 1, 0x7fff_ffff]);
  });

  it('writes the sampling out and lets strict turn the prompt cache off', () => {
    const request = { requestId: 'r', prompt: 'p', maxTokens: 7, seed: 5n, strict: true, slot: 2 };
    expect(completionBody(request)).toMatchObject({
      ...{ prompt: 'p', n_predict: 7, seed: 5, id_slot: 2, stream: true, cache_prompt: false },
      ...{ temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05 },
    });
    expect(completionBody({ ...request, strict: false })).toMatchObject({ cache_prompt: true });
    expect(completionBody({ ...request, strict: false, reusesCache: false })).toMatchObject({ cache_prompt: false });
    expect(completionBody({ ...request, reusesCache: true })).toMatchObject({ cache_prompt: false });
  });
});

describe('metrics', () => {
  it('reads the captured page', () => {
    expect(readMetrics(fixture('metrics'))).toEqual({
      ...{ running: 0, waiting: 0, kvUsage: null, tokensInTotal: 55, tokensOutTotal: 24 },
    });
  });

  it('reads exponents, and nan as 0', () => {
    const text = 'llamacpp:tokens_predicted_total 1.2e+06\nllamacpp:requests_processing nan\n';
    expect(readMetrics(text)).toMatchObject({ tokensOutTotal: 1_200_000, running: 0 });
  });
});

describe('launch', () => {
  const facts = {
    ...{
      binaryPath: '/b',
      model: '/m',
      servedName: 'm',
      ports: [9000],
      contextPerSlot: 1024,
      gpuUuids: [],
      gpuIndices: [],
    },
  };

  it('gives each slot its context and keeps the key out of the arguments', () => {
    const spec = llamaCppLaunch({ ...facts, slots: 2, gpuUuids: ['GPU-a', 'GPU-b'], apiKey: 'secret' });
    expect(spec.args.join(' ')).toBe(
      '-m /m --alias m --host 127.0.0.1 --port 9000 -c 2048 -np 2 --metrics --slots --log-colors off',
    );
    expect(spec.env).toMatchObject({ CUDA_VISIBLE_DEVICES: 'GPU-a,GPU-b', LLAMA_API_KEY: 'secret' });
  });

  it('makes a single slot repeat itself, and shows no GPU where none is given', () => {
    const spec = llamaCppLaunch({ ...facts, slots: 1, extraArgs: ['-t', '2'] });
    expect(spec.args).toEqual(expect.arrayContaining(['-nocb', '--no-cache-prompt', '-t', '2']));
    expect(spec.env.CUDA_VISIBLE_DEVICES).toBe('-1');
  });

  it('claims to repeat itself only for what it launched alone in its batch', () => {
    expect(llamaCppDeterminism({ slots: 1 }).claim).toBe('byte_exact');
    expect(llamaCppDeterminism({ slots: 2 })).toMatchObject({
      claim: 'none',
      because: expect.stringContaining('2 slots'),
    });
    expect(llamaCppDeterminism(null).claim).toBe('none');
  });
});
