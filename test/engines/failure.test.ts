/** What the error tables of all engines have in common. */
import { describe, expect, it } from 'vitest';
import { type ErrorTable, Failures } from '../../src/engines/failure.js';
import { type TransportFault, transportFailure } from '../../src/engines/http.js';
import { LLAMACPP_ERRORS } from '../../src/engines/llamacpp/errors.js';
import { jsonSeed } from '../../src/engines/sampling.js';
import { TGI_ERRORS } from '../../src/engines/tgi/errors.js';
import { TRITON_ERRORS } from '../../src/engines/triton/errors.js';
import { VLLM_ERRORS } from '../../src/engines/vllm/errors.js';

/** Each engine's way to say something, in an answer and in a frame. */
const ENGINES: readonly [string, ErrorTable, (message: string) => unknown][] = [
  ['llama.cpp', LLAMACPP_ERRORS, (message) => ({ error: { code: 400, type: 'invalid_request_error', message } })],
  ['vLLM', VLLM_ERRORS, (message) => ({ error: { code: 400, type: 'BadRequestError', message } })],
  ['TGI', TGI_ERRORS, (message) => ({ error: message, error_type: 'validation' })],
  ['Triton', TRITON_ERRORS, (message) => ({ error: message })],
];

describe.each(ENGINES)('%s', (_name, table, say) => {
  const failures = new Failures(table, ['key-1234567']);

  it.each([
    'bad key key-1234567',
    'denied: Authorization: Bearer abc.def.ghi',
    'cannot read hf_AbCdEfGhIjKl',
    'GET https://user:pa55w0rd@hub.example/x failed',
    'api_key=sekret-value was refused',
  ])('keeps secrets out of every message: %s', (message) => {
    const envelope = say(message);
    const errors = [
      failures.http({ kind: 'status', status: 400, body: JSON.stringify(envelope) }, 'before_first_token'),
      failures.http({ kind: 'status', status: 500, body: message }, 'before_first_token'),
      failures.frame(envelope, 'streaming'),
      failures.malformed(message, 'streaming'),
    ];
    for (const error of errors) {
      expect(error?.message).toContain('[redacted]');
      expect(error?.message).not.toMatch(/1234567|abc\.def|AbCdEf|pa55|sekret/);
    }
  });

  it.each([
    ['ECONNREFUSED', 'refused', 'WORKER_RESET', true],
    ['ECONNRESET', 'reset', 'WORKER_RESET', true],
    ['UND_ERR_SOCKET', 'reset', 'WORKER_RESET', true],
    ['UND_ERR_CONNECT_TIMEOUT', 'connect_timeout', 'WORKER_RESET', true],
    ['UND_ERR_HEADERS_TIMEOUT', 'silent', 'DECODE_TIMEOUT', true],
    ['UND_ERR_BODY_TIMEOUT', 'silent', 'DECODE_TIMEOUT', true],
    ['HPE_INVALID_CONSTANT', 'malformed', 'INTERNAL', false],
  ] satisfies [string, TransportFault, string, boolean][])('%s is %s: %s', (errorCode, fault, code, engineLost) => {
    const failure = transportFailure(Object.assign(new Error('x'), { code: errorCode }), false);
    expect(failure && failures.http(failure, 'streaming')).toMatchObject({
      fault,
      code,
      engineLost,
      phase: 'streaming',
    });
  });

  it('can be stored wherever it is cut, and whatever the engine put into it', () => {
    const messages = [`${'x'.repeat(299)}😀`, 'half a character: \ud83d'];
    for (const message of messages) expect(failures.malformed(message, 'streaming').message.isWellFormed()).toBe(true);
  });

  it('leaves a mistake of ours alone', () => {
    expect(transportFailure(new TypeError('x is not a function'), false)).toBeNull();
  });

  it('shows a page for people to nobody', () => {
    const error = failures.http({ kind: 'status', status: 502, body: '<html>nginx/1.2</html>' }, 'before_first_token');
    expect(error.message).not.toContain('nginx');
    expect(error).toMatchObject({ code: 'WORKER_RESET', engineLost: true, status: 502 });
  });
});

describe('a seed in JSON', () => {
  it('is folded into what is carried without loss', () => {
    expect([0n, 42n, 2n ** 53n - 1n].map(jsonSeed)).toEqual([0, 42, Number.MAX_SAFE_INTEGER]);
    expect([2n ** 53n, 2n ** 53n + 7n, 2n ** 63n - 1n].map(jsonSeed)).toEqual([0, 7, Number.MAX_SAFE_INTEGER]);
  });
});
