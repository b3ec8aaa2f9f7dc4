/** Requests that no honest client makes: one answer each, the right one, and everybody else is served as before. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ask, exchange, greet } from '../support/raw.js';
import { post, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;
beforeAll(async () => {
  world = await startWorld({ config: simConfig({ replicas: 1 }) });
});
afterAll(() => world?.[Symbol.asyncDispose]());

const JSON_BODY = { 'content-type': 'application/json' };
const SMUGGLED = 'GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n';
const head = (...lines: string[]) => `${lines.join('\r\n')}\r\n\r\n`;

describe('bytes that two programs could read in two ways', () => {
  it.each<[string, string]>([
    [
      'both lengths',
      `${head('POST /v1/tasks HTTP/1.1', 'host: 127.0.0.1', 'content-length: 5', 'transfer-encoding: chunked')}0\r\n\r\n${SMUGGLED}`,
    ],
    [
      'two lengths',
      `${head('POST /v1/tasks HTTP/1.1', 'host: 127.0.0.1', 'content-length: 0', 'content-length: 44')}${SMUGGLED}`,
    ],
    ['a signed length', `${head('POST /v1/tasks HTTP/1.1', 'host: 127.0.0.1', 'content-length: +5')}${SMUGGLED}`],
    [
      'a chunk of no size',
      `${head('POST /v1/tasks HTTP/1.1', 'host: 127.0.0.1', 'content-type: application/json', 'transfer-encoding: chunked')}xyz\r\n${SMUGGLED}`,
    ],
    [
      'another coding before chunked',
      `${head('POST /v1/tasks HTTP/1.1', 'host: 127.0.0.1', 'transfer-encoding: chunked, identity')}0\r\n\r\n${SMUGGLED}`,
    ],
    ['a folded header', `${head('GET /health HTTP/1.1', 'host: 127.0.0.1', 'x-a: b', ' folded: c')}${SMUGGLED}`],
    ['a space before the colon', `${head('GET /health HTTP/1.1', 'host : 127.0.0.1')}${SMUGGLED}`],
    ['line feeds alone', `GET /health HTTP/1.1\nhost: 127.0.0.1\n\n${SMUGGLED}`],
    ['a carriage return in a value', `GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: b\rc: d\r\n\r\n${SMUGGLED}`],
    ['a NUL in a value', `${head('GET /health HTTP/1.1', 'host: 127.0.0.1', 'x-a: b\0c')}${SMUGGLED}`],
    ['two hosts', `${head('GET /health HTTP/1.1', 'host: 127.0.0.1', 'host: evil.example')}${SMUGGLED}`],
    ['no host', `${head('GET /health HTTP/1.1')}${SMUGGLED}`],
    [
      'two tokens',
      `${head('GET /v1/capabilities HTTP/1.1', 'host: 127.0.0.1', 'authorization: a', 'authorization: b')}${SMUGGLED}`,
    ],
    ['an absolute target', `${head('GET http://evil.example/health HTTP/1.1', 'host: 127.0.0.1')}${SMUGGLED}`],
    ['a target without a slash', `${head('GET health HTTP/1.1', 'host: 127.0.0.1')}${SMUGGLED}`],
    ['an unknown version', `${head('GET /health HTTP/9.9', 'host: 127.0.0.1')}${SMUGGLED}`],
    [
      'an upgrade with a body',
      `${head('GET /graphql HTTP/1.1', 'host: 127.0.0.1', 'connection: upgrade', 'upgrade: websocket', 'sec-websocket-version: 13', 'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==', 'content-length: 44')}${SMUGGLED}`,
    ],
    [
      'an upgrade with chunks',
      `${head('GET /graphql HTTP/1.1', 'host: 127.0.0.1', 'connection: upgrade', 'upgrade: websocket', 'transfer-encoding: chunked')}0\r\n\r\n${SMUGGLED}`,
    ],
  ])('%s', async (_name, bytes) => {
    const answer = await exchange(world.url, bytes);
    expect(answer.match(/HTTP\/1\.1 \d{3}/g)).toEqual(['HTTP/1.1 400']);
  });

  it('closes on what is no HTTP, and on methods that it does not know', async () => {
    expect(await exchange(world.url, '\x16\x03\x01\x02\x00\x01\x00')).toMatch(/^(HTTP\/1\.1 400|$)/);
    expect(await exchange(world.url, head('CONNECT evil.example:443 HTTP/1.1', 'host: 127.0.0.1'))).toBe('');
    expect(await exchange(world.url, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')).toMatch(/^(HTTP\/1\.1 400|$)/);
  });
});

describe('what is too large', () => {
  const deep = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`;
  const query = (variables: string) => `{"query":"{ __typename }","variables":${variables}}`;
  const long = JSON.stringify(Array.from({ length: 100_000 }, (_, index) => `p${index}`));

  it.each<[string, string, string, number[]]>([
    ['a body for REST', '/v1/tasks', JSON.stringify(taskRequest({ prompt: 'x'.repeat(6_000_000) })), [413]],
    ['a name for REST', '/v1/tasks', JSON.stringify(taskRequest({ model_ref: 'a-'.repeat(2_000_000) })), [400]],
    ['nesting for REST', '/v1/tasks', deep(100_000), [400]],
    [
      'a list for REST',
      '/v1/tasks',
      JSON.stringify(taskRequest({ placement: { prefer_pools: JSON.parse(long) as object } })),
      [400],
    ],
    [
      'a number for REST',
      '/v1/tasks',
      JSON.stringify(taskRequest()).replace('"ctx":4096', `"ctx":${'9'.repeat(5_000)}`),
      [400],
    ],
    ['a document', '/graphql', JSON.stringify({ query: `{ ${'__typename '.repeat(400_000)} }` }), [413]],
    ['variables', '/graphql', query(`{"a":"${'x'.repeat(10_000_000)}"}`), [413]],
    ['a list of variables', '/graphql', query(`{"a":${long}}`), [400]],
    ['nesting of variables', '/graphql', query(`{"a":${deep(10_000)}}`), [400]],
    ['a name twice', '/graphql', '{"query":"{ __typename }","query":"{ pools { name } }"}', [400]],
    ['a name twice in a task', '/v1/tasks', JSON.stringify(taskRequest()).replace('{', '{"ctx":1,'), [400]],
    ['a batch', '/graphql', `[${Array.from({ length: 1000 }, () => '{"query":"{ __typename }"}').join(',')}]`, [400]],
    [
      'a prototype in variables',
      '/graphql',
      query('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'),
      [200, 400],
    ],
    [
      'a prototype in a task',
      '/v1/tasks',
      JSON.stringify(taskRequest({ ctx: 'x' })).replace('"workload"', '"__proto__":{"polluted":true},"workload"'),
      [400],
    ],
  ])('%s', async (_name, path, body, statuses) => {
    const answer = await post(world.url, path, body);
    expect(statuses).toContain(answer.status);
    expect((await answer.arrayBuffer()).byteLength).toBeLessThan(2_000);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it('is a header of a megabyte, refused as soon as it is too long', async () => {
    const large = `GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ${'a'.repeat(1024 * 1024)}\r\n\r\n`;
    expect(await exchange(world.url, large)).toMatch(/^(HTTP\/1\.1 431|$)/);
    const many = `GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n${'x-a: b\r\n'.repeat(50_000)}\r\n`;
    expect(await exchange(world.url, many)).toMatch(/^(HTTP\/1\.1 431|$)/);
    expect(await exchange(world.url, `GET /${'a'.repeat(100_000)} HTTP/1.1\r\n`)).toMatch(/^(HTTP\/1\.1 431|$)/);
  });

  it('is told so, also to who is still writing', async () => {
    const body = JSON.stringify(taskRequest({ prompt: 'x'.repeat(10_000_000) }));
    const headers = { ...JSON_BODY, 'content-length': String(body.length) };
    for (let round = 0; round < 5; round += 1) {
      for (const path of ['/v1/tasks', '/graphql']) {
        expect((await ask(world.url, { method: 'POST', path, headers, body })).status).toBe(413);
        const { 'content-length': _, ...chunked } = { ...headers, 'transfer-encoding': 'chunked' };
        expect((await ask(world.url, { method: 'POST', path, headers: chunked, body })).status).toBe(413);
      }
    }
  });

  it('are requests sent ahead: so many are answered in their order, more end the connection', async () => {
    const request = (id: number) => head('GET /health HTTP/1.1', 'host: 127.0.0.1', `x-correlation-id: n${id}`);
    const many = (count: number) => Array.from({ length: count }, (_, id) => request(id)).join('');
    const last = head('GET /health HTTP/1.1', 'host: 127.0.0.1', 'x-correlation-id: last', 'connection: close');
    const answers = await exchange(world.url, many(50) + last);
    const ids = [...answers.matchAll(/x-correlation-id: (\w+)/g)].map(([, id]) => id);
    expect(ids).toEqual([...Array.from({ length: 50 }, (_, id) => `n${id}`), 'last']);
    const cut = await exchange(world.url, many(500));
    expect(cut.match(/HTTP\/1\.1 200/g)?.length ?? 0).toBeLessThan(200);
  });

  it('is refused without reading on: the connection closes', async () => {
    const start = head(
      'POST /v1/tasks HTTP/1.1',
      'host: 127.0.0.1',
      'content-type: application/json',
      'content-length: 999999999',
    );
    expect(await exchange(world.url, start)).toMatch(/^HTTP\/1\.1 413 /);
  });
});

it('serves as before', async () => {
  expect((await post(world.url, '/v1/tasks', taskRequest())).status).toBe(202);
  expect((await greet(world.url)).acknowledged).not.toBeNull();
  expect(
    (await ask(world.url, { method: 'POST', path: '/graphql', headers: JSON_BODY, body: '{"query":"{ __typename }"}' }))
      .status,
  ).toBe(200);
  const failures = world.logLines().filter((line) => /request failed|operation failed/.test(line));
  expect(failures).toEqual([]);
});
