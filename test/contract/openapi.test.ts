import { readFileSync } from 'node:fs';
import { Validator } from '@seriousme/openapi-schema-validator';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { ENGINES, ERROR_CODES } from '../../src/core/errors.js';
import { OPERATION_KINDS, OPERATION_STATES, STEP_STATES } from '../../src/core/operation.js';
import { PRIORITIES } from '../../src/core/task.js';
import type { Schema } from '../../src/rest/openapi.js';
import { compile } from '../../src/rest/validator.js';
import { EXPOSE_HEADERS } from '../../src/server/cors.js';
import { checkOf, examplesOf, OPERATIONS, operation, StreamCheck } from '../support/contract.js';

interface Document {
  readonly openapi: string;
  readonly info: { readonly version: string };
  readonly components: { readonly schemas: Record<string, Schema>; readonly responses: Record<string, unknown> };
}

const read = (plane: string) => parse(readFileSync(`contracts/openapi/${plane}.yaml`, 'utf8')) as Document;
const PLANES = { data: read('data'), control: read('control') };
const BODIES = OPERATIONS.flatMap((one) =>
  Object.entries(one.requestBody?.content ?? {}).map(([, media]) => ({ one, media })),
);
const ANSWERS = OPERATIONS.flatMap((one) =>
  Object.entries(one.responses).map(([status, spec]) => ({ one, status, spec, name: `${one.operationId} ${status}` })),
);
const bodySchema = (id: string) => operation(id).requestBody?.content['application/json']?.schema ?? {};
const answerSchema = (id: string, status: string) =>
  operation(id).responses[status]?.content?.['application/json']?.schema ?? {};

/** As in the original contract; what we add to it is in its description. */
const ORIGINAL: readonly (readonly [string, string, string, string])[] = [
  ['createTask', 'POST', '/v1/tasks', '202'],
  ['streamTask', 'GET', '/v1/tasks/{id}/stream', '200'],
  ['cancelTask', 'POST', '/v1/tasks/{id}/cancel', '204'],
  ['getSession', 'GET', '/v1/sessions/{id}', '200'],
  ['deleteSession', 'DELETE', '/v1/sessions/{id}', '204'],
  ['createCatalogModel', 'POST', '/v1/catalog/models', '201'],
  ['getCatalogModel', 'GET', '/v1/catalog/models/{id}', '200'],
  ['deleteCatalogModel', 'DELETE', '/v1/catalog/models/{id}', '204'],
  ['verifyCatalogModel', 'POST', '/v1/catalog/models/{id}/verify', '202'],
  ['setCatalogModelState', 'POST', '/v1/catalog/models/{id}/state', '202'],
  ['drainPool', 'POST', '/v1/pools/{id}/drain', '202'],
  ['reloadPool', 'POST', '/v1/pools/{id}/reload', '202'],
  ['getPoolHealth', 'GET', '/v1/pools/{id}/health', '200'],
  ['getCapabilities', 'GET', '/v1/capabilities', '200'],
  ['createArtifact', 'POST', '/v1/artifacts', '201'],
  ['getArtifact', 'GET', '/v1/artifacts/{id}', '200'],
];

describe('the files', () => {
  it.each(Object.entries(PLANES))('%s.yaml is OpenAPI 3.0.3, version 1.0.0', async (_plane, document) => {
    expect(document).toMatchObject({ openapi: '3.0.3', info: { version: '1.0.0' } });
    expect(await new Validator().validate(structuredClone(document) as never)).toEqual({ valid: true });
  });

  it('have every operation of the original contract', () => {
    const there = OPERATIONS.map(({ operationId, method, path, responses }) => ({
      operationId,
      method,
      path,
      responses,
    }));
    for (const [operationId, method, path, status] of ORIGINAL) {
      expect(there).toContainEqual({
        operationId,
        method,
        path,
        responses: expect.objectContaining({ [status]: expect.anything() }),
      });
    }
    expect(new Set(OPERATIONS.map(({ operationId }) => operationId)).size).toBe(OPERATIONS.length);
  });

  it('say the same where they say it twice', () => {
    const twice = Object.keys(PLANES.data.components.schemas).filter(
      (name) => name in PLANES.control.components.schemas,
    );
    expect(twice).toContain('ErrorEnvelope');
    for (const name of twice)
      expect(PLANES.control.components.schemas[name]).toEqual(PLANES.data.components.schemas[name]);
  });

  it('name the values that the rules know', () => {
    const { data, control } = { data: PLANES.data.components.schemas, control: PLANES.control.components.schemas };
    expect(data.ErrorKind?.enum).toEqual([...ERROR_CODES]);
    expect(data.Engine?.enum).toEqual([...ENGINES]);
    expect(data.Priority?.enum).toEqual([...PRIORITIES]);
    expect(control.Operation?.properties?.kind?.enum).toEqual([...OPERATION_KINDS]);
    expect(control.Operation?.properties?.state?.enum).toEqual([...OPERATION_STATES]);
    expect(control.OperationStep?.properties?.state?.enum).toEqual([...STEP_STATES]);
  });

  it('let every request name its correlation id, and every answer carry it', () => {
    for (const { operationId, parameters } of OPERATIONS) {
      expect(
        parameters?.map(({ name }) => name),
        operationId,
      ).toContain('X-Correlation-Id');
    }
    for (const { name, spec } of ANSWERS) expect(spec.headers?.['X-Correlation-Id'], name).toBeDefined();
  });
});

describe('the examples', () => {
  it('stand on every body, and are what the schemas say', () => {
    for (const { one, media } of BODIES) {
      expect(examplesOf(media).length, one.operationId).toBeGreaterThan(0);
      for (const example of examplesOf(media))
        expect(compile(media.schema, 'response')(example), one.operationId).toBeNull();
    }
    for (const { name, spec } of ANSWERS) {
      for (const media of Object.values(spec.content ?? {})) {
        expect(examplesOf(media).length, name).toBeGreaterThan(0);
        for (const example of examplesOf(media)) expect(checkOf(media.schema)(example), name).toBeNull();
      }
    }
  });

  it('stand on every parameter and every header', () => {
    const headers = ANSWERS.flatMap(({ spec }) => Object.values(spec.headers ?? {}));
    for (const part of [...OPERATIONS.flatMap(({ parameters = [] }) => parameters), ...headers]) {
      expect(examplesOf(part), JSON.stringify(part)).toHaveLength(1);
      for (const example of examplesOf(part)) expect(checkOf(part.schema)(example), JSON.stringify(part)).toBeNull();
    }
  });

  it('of the stream hold as events, one by one and in their order', () => {
    const media = operation('streamTask').responses['200']?.content?.['text/event-stream'];
    const check = new StreamCheck();
    const blocks = String(media?.example).trim().split('\n\n');
    for (const block of blocks) {
      const [, name = ''] = /^event: (.*)$/m.exec(block) ?? [];
      check.event(name, JSON.parse(/^data: (.*)$/m.exec(block)?.[1] ?? ''));
    }
    expect(blocks).toHaveLength(4);
    expect(() => check.event('token', { t: 'x', i: 1 })).toThrow('it comes after the end');
  });
});

describe('the validator', () => {
  const task = examplesOf(operation('createTask').requestBody?.content['application/json'] ?? {})[0] as object;
  const problem = (overrides: object) => compile(bodySchema('createTask'), 'request')({ ...task, ...overrides });

  it.each<[string, string, object]>([
    ['ctx', 'is missing', { ctx: undefined }],
    ['ctx', 'must be a whole number of at least 1', { ctx: 'many' }],
    ['ctx', 'must be a whole number of at least 1', { ctx: 2 ** 31 }],
    ['ctx', 'must be a whole number of at least 1', { ctx: null }],
    ['max_tokens', 'must be a whole number of at least 0', { max_tokens: 1.5 }],
    ['seed', 'must be a whole number of 64 bits', { seed: 1n << 63n }],
    ['seed', 'must be a whole number of 64 bits', { seed: 1e300 }],
    ['task_id', 'must be a uuid (8-4-4-4-12 hex digits)', { task_id: 'urn:uuid:00000000-0000-0000-0000-000000000001' }],
    ['engine', 'must be one of llamacpp, vllm, tgi, triton', { engine: 'cuda' }],
    ['kv_hint', 'must be one of reuse, cold', { kv_hint: 'warm' }],
    ['prompt', 'must be of type string', { prompt: 7 }],
    ['inputs.1', 'must be of type string', { inputs: ['a', 7] }],
    ['placement.mode', 'must be one of pin, prefer, auto', { placement: { mode: 'pinned' } }],
    ['placement.pin_pool_id', 'must not contain the NUL character', { placement: { pin_pool_id: 'a\0' } }],
  ])('names the member: %s %s', (field, message, overrides) => {
    expect(problem(overrides)).toEqual({ field, message });
  });

  it('takes the digits of an int64, null for what is optional, and members that it does not know', () => {
    for (const seed of [(1n << 63n) - 1n, -(1n << 63n), 0, null]) expect(problem({ seed })).toBeNull();
    const nulls = { determinism: null, kv_hint: null, placement: { mode: null, prefer_pools: null }, prompt: null };
    expect(problem({ ...nulls, output_mode: 'else', hint: { of: 'an old client' } })).toBeNull();
    expect(compile(bodySchema('createTask'), 'request')(JSON.parse('{"__proto__":{}}'))).toMatchObject({
      field: 'task_id',
    });
  });

  it('lets nothing out that the contract does not name', () => {
    const check = checkOf(answerSchema('createTask', '202'));
    const receipt = {
      task_id: '00000000-0000-0000-0000-000000000001',
      queue_position: 0,
      predicted_start_ms: 0,
      backoff_ms: 0,
    };
    expect(check(receipt)).toBeNull();
    expect(check({ ...receipt, pool: 'sim' })).toEqual({ field: 'pool', message: 'is not part of the contract' });
    expect(checkOf(answerSchema('createTask', '429'))({ code: 'ADMISSION_REJECT', message: 'full' })).toEqual({
      field: 'policy_label',
      message: 'is missing',
    });
  });
});

it('lets pages of listed origins read every header that it names', () => {
  const named = ANSWERS.flatMap(({ spec }) => Object.keys(spec.headers ?? {})).map((name) => name.toLowerCase());
  expect(EXPOSE_HEADERS.split(', ').sort()).toEqual([...new Set(named)].sort());
});
