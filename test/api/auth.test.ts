/** Tokens, hosts and origins over every way in: HTTP, both kinds of event streams, WebSocket. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEnvironment } from '../../src/config/environment.js';
import { parseConfig } from '../../src/config/load.js';
import { startControlPlane } from '../../src/server/compose.js';
import { ask, greet, type RawRequest } from '../support/raw.js';
import { taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const TOKEN = 'correct-horse-battery-staple';
const BEARER = { authorization: `Bearer ${TOKEN}` };
const DASHBOARD = 'https://dash.example.org';
const NAMES = `server: { allowed_hosts: [gpu-box.local], allowed_origins: ["${DASHBOARD}"] }\n`;
const JSON_BODY = { 'content-type': 'application/json' };
const QUERY = JSON.stringify({ query: '{ __typename }' });
const SUBSCRIPTION = JSON.stringify({
  query: `subscription { taskEvents(taskId: "${randomUUID()}") { __typename } }`,
});

/** Each asks for something that only who is let in is told. */
const DOORS: Readonly<Record<string, RawRequest>> = {
  REST: { path: '/v1/capabilities' },
  'REST event stream': { path: `/v1/tasks/${randomUUID()}/stream` },
  metrics: { path: '/metrics' },
  GraphQL: { method: 'POST', path: '/graphql', headers: JSON_BODY, body: QUERY },
  'GraphQL by GET': { path: '/graphql?query=%7B__typename%7D' },
  'GraphQL event stream': {
    method: 'POST',
    path: '/graphql',
    headers: { ...JSON_BODY, accept: 'text/event-stream' },
    body: SUBSCRIPTION,
  },
  'an unknown path': { path: '/nothing' },
};

let world: World;
let free: World;

beforeAll(async () => {
  const config = `${NAMES}${simConfig({ replicas: 1 })}`;
  [world, free] = await Promise.all([
    startWorld({ config, env: { AUTH_TOKEN: TOKEN } }),
    startWorld({ config, env: { AUTH_TOKEN: TOKEN, AUTH_OPTIONAL: 'true' } }),
  ]);
});
afterAll(() => Promise.all([world?.[Symbol.asyncDispose](), free?.[Symbol.asyncDispose]()]));

function through(door: string, url: string, headers: Record<string, string>) {
  const request = DOORS[door] ?? {};
  return ask(url, { ...request, headers: { ...request.headers, ...headers } });
}

function named(text: string): unknown {
  const body = JSON.parse(text) as { error?: string; errors?: { extensions: { code: string } }[] };
  return body.error ?? body.errors?.[0]?.extensions.code;
}

const CASES: [string, Record<string, string>, string | null][] = [
  ['no token', {}, 'MISSING_TOKEN'],
  ['another scheme', { authorization: 'Basic dXNlcjpwdw==' }, 'MISSING_TOKEN'],
  ['a wrong bearer', { authorization: 'Bearer wrong' }, 'BAD_TOKEN'],
  ['a wrong key', { 'x-api-key': 'wrong' }, 'BAD_TOKEN'],
  ['the bearer', BEARER, null],
  ['the bearer, spelled otherwise', { authorization: `bearer ${TOKEN}` }, null],
  ['the key', { 'x-api-key': TOKEN }, null],
  ['a rebound name', { ...BEARER, host: 'evil.example' }, 'BAD_HOST'],
  ['a listed name', { ...BEARER, host: 'gpu-box.local' }, null],
  ['a foreign page', { ...BEARER, origin: 'https://evil.example' }, 'BAD_ORIGIN'],
  ['a page without origin', { ...BEARER, origin: 'null' }, 'BAD_ORIGIN'],
  ['a picture on a foreign page', { ...BEARER, 'sec-fetch-site': 'cross-site' }, 'BAD_ORIGIN'],
  ['a listed page', { ...BEARER, origin: DASHBOARD }, null],
];
const STATUS: Readonly<Record<string, number>> = { MISSING_TOKEN: 401, BAD_TOKEN: 401, BAD_HOST: 403, BAD_ORIGIN: 403 };

describe.each(CASES)('%s', (_name, headers, expected) => {
  it.each(Object.keys(DOORS))('over %s', async (door) => {
    const answer = await through(door, world.url, headers);
    if (expected === null) {
      expect(answer.status).toSatisfy((status: number) => status === 200 || status === 404);
    } else {
      expect([answer.status, named(answer.text)]).toEqual([STATUS[expected], expected]);
      expect(answer.headers['www-authenticate']).toBe(answer.status === 401 ? 'Bearer' : undefined);
    }
    expect(answer.headers['x-correlation-id']).toMatch(/^[0-9a-f-]{36}$/);
    expect(answer.text).not.toContain(TOKEN);
  });

  it('over WebSocket', async () => {
    const outcome = await greet(world.url, { headers });
    if (expected === null) expect(outcome.acknowledged).toEqual({ correlationId: expect.any(String) });
    // Without headers, as a browser comes, the token may still follow.
    else if (expected === 'MISSING_TOKEN') expect(outcome.closed).toEqual({ code: 4403, reason: expected });
    else expect([outcome.refused, named(outcome.text)]).toEqual([STATUS[expected], expected]);
    expect(outcome.headers['x-correlation-id']).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe('connection_init', () => {
  it.each<[string, Record<string, unknown>, string | null]>([
    ['token', { token: TOKEN }, null],
    ['authorization', { authorization: `Bearer ${TOKEN}` }, null],
    ['Authorization', { Authorization: `Bearer ${TOKEN}` }, null],
    ['X-API-Key', { 'X-API-Key': TOKEN }, null],
    ['x-api-key', { 'x-api-key': TOKEN }, null],
    ['a wrong token', { token: 'wrong' }, 'BAD_TOKEN'],
    ['a wrong key', { 'X-API-Key': 'wrong' }, 'BAD_TOKEN'],
    ['no text', { token: [TOKEN] }, 'MISSING_TOKEN'],
    ['a prototype', JSON.parse(`{"__proto__":{"token":"${TOKEN}"}}`) as Record<string, unknown>, 'MISSING_TOKEN'],
  ])('%s', async (_name, params, expected) => {
    const { acknowledged, closed } = await greet(world.url, { params });
    if (expected === null) expect(acknowledged).not.toBeNull();
    else expect(closed).toEqual({ code: 4403, reason: expected });
  });

  it('is asked again after an upgrade that was right', async () => {
    const { closed } = await greet(world.url, { headers: BEARER, params: { token: 'wrong' } });
    expect(closed).toEqual({ code: 4403, reason: 'BAD_TOKEN' });
  });
});

describe('AUTH_OPTIONAL', () => {
  it('frees this machine on every door, and nobody whom a proxy on it forwards', async () => {
    for (const door of Object.keys(DOORS)) {
      expect((await through(door, free.url, {})).status, door).not.toBe(401);
      const forwarded = await through(door, free.url, { 'x-forwarded-for': '203.0.113.9' });
      expect([forwarded.status, named(forwarded.text)], door).toEqual([401, 'MISSING_TOKEN']);
    }
    expect((await greet(free.url)).acknowledged).not.toBeNull();
    expect((await greet(free.url, { headers: { via: '1.1 proxy' } })).closed).toMatchObject({ code: 4403 });
  });
});

describe('what needs no token', () => {
  it('is health, readiness, and the page that asks for one; still not under a rebound name', async () => {
    for (const path of ['/health', '/ready']) {
      expect((await ask(world.url, { path })).status).toBe(200);
      expect((await ask(world.url, { path, headers: { host: 'evil.example' } })).status).toBe(403);
    }
    const readiness = async (url: string, headers: Record<string, string>) =>
      JSON.parse((await ask(url, { path: '/ready', headers })).text) as object;
    const all = { status: 'ready', pools: [{ id: 'sim', ready: true, reasons: [] }] };
    // Which pools there are, and what ails them, is not for everybody.
    expect(await readiness(world.url, {})).toEqual({ status: 'ready', pools: [] });
    expect(await readiness(world.url, { authorization: 'Bearer wrong' })).toEqual({ status: 'ready', pools: [] });
    expect(await readiness(world.url, BEARER)).toEqual(all);
    expect(await readiness(free.url, {})).toEqual(all);
    const page = await ask(world.url, { path: '/graphql', headers: { accept: 'text/html' } });
    expect(page.headers['content-type']).toContain('text/html');
    expect(page.headers['content-security-policy']).toContain("frame-ancestors 'none'");
  });
});

it('a link on another page may read a stream, and not end its task', async () => {
  const link = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };
  const path = `/v1/tasks/${randomUUID()}/stream`;
  const status = async (query: string, headers: Record<string, string>) =>
    (await ask(free.url, { path: `${path}${query}`, headers })).status;
  expect(await status('?cancel_on_disconnect=true', link)).toBe(400);
  expect(await status('?cancel_on_disconnect=false', link)).toBe(404);
  const listed = { 'sec-fetch-site': 'cross-site', origin: DASHBOARD };
  expect([await status('?cancel_on_disconnect=true', listed), await status('?cancel_on_disconnect=true', {})]).toEqual([
    404, 404,
  ]);
});

describe('CORS', () => {
  const preflight = (origin: string) =>
    ask(world.url, {
      method: 'OPTIONS',
      path: '/v1/tasks',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' },
    });

  it('lets pages of listed origins ask and read, without cookies, and answers no others', async () => {
    const asked = await preflight(DASHBOARD);
    expect(asked.status).toBe(204);
    expect(asked.headers).toMatchObject({ 'access-control-allow-origin': DASHBOARD, vary: 'origin' });
    expect(asked.headers['access-control-allow-headers']).toContain('authorization');
    for (const door of ['REST', 'GraphQL']) {
      const answer = await through(door, world.url, { ...BEARER, origin: DASHBOARD });
      expect(answer.headers['access-control-allow-origin'], door).toBe(DASHBOARD);
      expect(answer.headers['access-control-allow-credentials']).toBeUndefined();
    }
    const foreign = await preflight('https://evil.example');
    expect(foreign.status).toBe(403);
    expect(foreign.headers['access-control-allow-origin']).toBeUndefined();
    const own = await through('REST', world.url, BEARER);
    expect(own.headers['access-control-allow-origin']).toBeUndefined();
  });
});

describe('POST /v1/workers/register', () => {
  const register = (url: string, headers: Record<string, string>, body: unknown = {}) =>
    ask(url, {
      method: 'POST',
      path: '/v1/workers/register',
      headers: { ...JSON_BODY, ...headers },
      body: JSON.stringify(body),
    });

  it('wants the token, also where this machine is free, and says who it was', async () => {
    for (const { url } of [world, free]) {
      const answer = await register(url, BEARER, { pool_id: 'sim', replica_id: 'r0' });
      expect(answer.status).toBe(200);
      const identity = expect.stringMatching(/^token:[0-9a-f]{6}$/);
      expect(JSON.parse(answer.text)).toEqual({ ok: true, identity, pool_id: 'sim', replica_id: 'r0' });
      expect((await register(url, {})).status).toBe(401);
      expect(JSON.parse((await register(url, { 'x-api-key': 'x' })).text)).toMatchObject({ code: 40102 });
    }
    const bare = await register(world.url, { 'x-api-key': TOKEN });
    expect(JSON.parse(bare.text)).toMatchObject({ ok: true, pool_id: null, replica_id: null });
    for (const body of [[], 'x', { pool_id: 7 }, { replica_id: '\n' }, { pool_id: 'x'.repeat(200) }]) {
      expect((await register(world.url, BEARER, body)).status).toBe(400);
    }
  });
});

describe('the log', () => {
  it('names callers by fingerprint or as localhost, and has every denial with the id its caller was given', async () => {
    const id = 'my-own-id.1';
    const submit = (url: string, headers: Record<string, string>) =>
      ask(url, {
        method: 'POST',
        path: '/v1/tasks',
        headers: { ...JSON_BODY, 'x-correlation-id': id, ...headers },
        body: JSON.stringify(taskRequest({ max_tokens: 1 })),
      });
    const admitted = ({ logLines }: World) =>
      logLines()
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .find((line) => line.msg === 'task admitted');
    expect((await submit(world.url, BEARER)).headers['x-correlation-id']).toBe(id);
    expect((await submit(free.url, {})).status).toBe(202);
    expect(admitted(world)).toMatchObject({ correlation_id: id, identity: expect.stringMatching(/^token:/) });
    expect(admitted(free)).toMatchObject({ correlation_id: id, identity: 'localhost' });
    expect((await submit(world.url, { 'x-api-key': 'nope' })).headers['x-correlation-id']).toBe(id);
    const counted = (await ask(world.url, { path: '/metrics', headers: BEARER })).text;
    expect(counted).toMatch(/^requests_denied_total\{reason="BAD_TOKEN"\} [1-9]/m);
    const denied = world.logLines().filter((line) => line.includes('"request denied"') && line.includes(id));
    expect(denied.map((line) => JSON.parse(line) as object)).toMatchObject([{ reason: 'BAD_TOKEN', code: 40102 }]);
    expect(world.logLines().join('')).not.toContain(TOKEN);
  });
});

it('an address that others can reach is refused without a token, by its number', async () => {
  const environment = readEnvironment({ ORCHD_ADDR: '0.0.0.0:0', AUTH_OPTIONAL: 'true', TRUST_PROXY_AUTH: 'true' });
  const starting = startControlPlane({
    environment,
    config: parseConfig(simConfig(), 'test.yaml'),
    logTo: { write: () => {} },
    configDir: '/',
    embeddedDatabase: false,
    onStep: () => {},
    onFatal: () => {},
    onKillable: () => {},
  });
  await expect(starting).rejects.toThrow(/NON_LOOPBACK_WITHOUT_TOKEN \(40301\)/);
});
