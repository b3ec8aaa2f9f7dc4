/**
 * Every operation and every status of contracts/openapi, asked of a running server by a client made from these files. What
 * cannot be provoked is named with its reason, so that a new status is either shown or explained.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEnvironment } from '../../src/config/environment.js';
import { ERROR_CODES } from '../../src/core/errors.js';
import { pollUntil } from '../../src/runtime/wait.js';
import { HttpServer } from '../../src/server/http.js';
import { identityRules } from '../../src/server/identity.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createLogger } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { OPERATIONS, operation } from '../support/contract.js';
import { type CallOptions, ContractClient } from '../support/contractClient.js';
import { type CutProxy, startCutProxy } from '../support/cutProxy.js';
import { gql } from '../support/graphql.js';
import { ask, post, taskRequest } from '../support/rest.js';
import { startWorld, type World } from '../support/world.js';

const GIB = 1024 ** 3;
const IDLE_MS = 1_000;
const TOKEN = 'the-token-of-this-test';

function pool(
  id: string,
  over: { tokensPerSecond?: number; fullPolicy?: string; slots?: number; priorities?: readonly object[] } = {},
) {
  const { tokensPerSecond = 0, fullPolicy = 'reject', slots = 2, priorities = [] } = over;
  return {
    ...{ id, engine: 'llamacpp', model: `${id}-7b`, ctx: 4096, devices: [0], slots },
    queue: { capacity: slots === 1 ? 1 : 64, full_policy: fullPolicy },
    admission: { priorities },
    timeouts: { wall_ms: 60_000, idle_ms: IDLE_MS },
    provisioning: {
      mode: 'simulated',
      simulated: { tokens_per_second: tokensPerSecond, first_token_ms: 0, load_ms: 0, vram_bytes: GIB / 8 },
    },
  };
}

/** Its model is there, as any file is; its engine may not be downloaded, and no waiting mends that. */
const UNREADY = {
  ...pool('unready'),
  model: 'LICENSE',
  provisioning: {
    mode: 'binary',
    binary: { url: 'https://example.org/llama-server', checksum: `sha256:${'0'.repeat(64)}` },
  },
};

// YAML knows JSON.
const CONFIG = JSON.stringify({
  gpu: { mode: 'simulated', devices: [{ name: 'Big', memory_bytes: 24 * GIB }] },
  pools: [
    pool('sim', { priorities: [{ name: 'batch', rate_limit_rps: 0.5 }] }),
    pool('slow', { tokensPerSecond: 5, slots: 1 }),
    pool('lru', { tokensPerSecond: 5, slots: 1, fullPolicy: 'drop-lru' }),
    pool('sick'),
    UNREADY,
  ],
});

/** They ask nobody. */
const IN_MEMORY = ['getCapabilities', 'getReadiness', 'getMetrics', 'registerWorker'];

/** By operation and status. */
const NOT_PROVOKED: Readonly<Record<string, string>> = {
  ...Object.fromEntries(IN_MEMORY.map((id) => [`${id} 500`, 'answered from memory'])),
};
const CODES_NOT_PROVOKED: Readonly<Record<string, string>> = {
  REPLICA_EXHAUSTED: 'no rule gives it: tasks wait for a slot, and a full queue is ADMISSION_REJECT',
};

let world: World;
let proxy: CutProxy;
let client: ContractClient;

beforeAll(async () => {
  const databaseUrl = async (url: string) => {
    const { hostname, port } = new URL(url);
    proxy = await startCutProxy({ host: hostname, port: Number(port) });
    return Object.assign(new URL(url), { host: `127.0.0.1:${proxy.port}` }).href;
  };
  const env = { AUTH_TOKEN: TOKEN, AUTH_OPTIONAL: 'true' };
  world = await startWorld({ config: CONFIG, configDir: process.cwd(), env, databaseUrl, expectNotReady: true });
  client = new ContractClient(world.url, { 'x-api-key': TOKEN });
  const states = async () => {
    const rows = await world.database.query<{ state: string }>('SELECT DISTINCT state::text FROM replicas ORDER BY 1');
    return rows.map(({ state }) => state).join(' ');
  };
  const asConfigured = async () => (await states()) === 'FAILED READY';
  if (!(await pollUntil(asConfigured, { everyMs: 50, deadlineMs: 30_000 }))) throw new Error(await states());
});
afterAll(async () => {
  await proxy.mend().catch(() => {});
  await world[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
});

async function expectStatus(status: number, operationId: string, options: CallOptions = {}, code?: string) {
  const answer = await client.call(operationId, options);
  expect(answer.status, `${operationId} ${JSON.stringify(answer.body)}`).toBe(status);
  if (code !== undefined) expect(answer.body.code).toBe(code);
  return answer;
}

/** A task that was admitted. @returns its id. */
async function submit(model: string, over: Record<string, unknown> = {}): Promise<string> {
  const body = taskRequest({ model_ref: `${model}-7b`, ...over });
  await expectStatus(202, 'createTask', { body });
  return body.task_id;
}

async function runs(taskId: string): Promise<void> {
  const status = async () =>
    (await world.database.query<{ status: string }>('SELECT status FROM tasks WHERE id = $1', [taskId]))[0]?.status;
  await expect.poll(status).toBe('STREAMING');
}

/** Takes the only slot, then the only place in the queue. */
async function fill(model: string): Promise<string[]> {
  const running = await submit(model, { max_tokens: 2000 });
  await runs(running);
  return [running, await submit(model, { max_tokens: 2000 })];
}

async function cancel(taskIds: readonly string[]): Promise<void> {
  for (const id of taskIds) await expectStatus(204, 'cancelTask', { parameters: { id } });
}

async function setFault(...fault: string[]): Promise<void> {
  const [row] = await world.database.query<{ endpoint: string }>(
    `SELECT endpoint FROM replicas WHERE pool_id = 'sick' AND state = 'READY'`,
  );
  expect((await post(row?.endpoint ?? '', '/sim/control', { fault })).status).toBe(200);
}

/** How the stream of a task of the sick pool ends. */
async function endOf(fault: string, over: Record<string, unknown> = {}): Promise<unknown> {
  const ready = `SELECT 1 FROM replicas WHERE pool_id = 'sick' AND state = 'READY'`;
  await expect.poll(async () => (await world.database.query(ready)).length).toBe(1);
  await setFault(fault);
  return (await client.events(await submit('sick', over))).at(-1)?.data.code;
}

const body = (over: Record<string, unknown>) => ({ body: taskRequest({ model_ref: 'sim-7b', ...over }) });

describe('what is asked for is given', () => {
  it('tasks, their streams and their sessions', async () => {
    const sessionId = randomUUID();
    const taskId = await submit('sim', { session_id: sessionId });
    expect((await client.events(taskId)).at(-1)?.event).toBe('end');
    await expectStatus(200, 'streamTask', { parameters: { id: taskId, after: '3', 'Last-Event-ID': '5' } });
    await expectStatus(409, 'createTask', body({ task_id: taskId, prompt: 'else' }));
    await expectStatus(200, 'getSession', { parameters: { id: sessionId } });
    await expectStatus(204, 'deleteSession', { parameters: { id: sessionId } });
    await expectStatus(404, 'getSession', { parameters: { id: sessionId } });
  });

  it('pools and operations on them', async () => {
    for (const id of ['getCapabilities', 'getPoolHealth', 'getPoolStatus', 'getHealth', 'getReadiness', 'getMetrics']) {
      await expectStatus(200, id);
    }
    const { body: capabilities } = await expectStatus(200, 'getCapabilities');
    const limits = { sim: { batch: { requests_per_second: 0.5, burst: 1 } } };
    expect(capabilities.engines).toMatchObject([{ engine: 'llamacpp', ctx_max: 4096, rate_limits: limits }]);
    const held = await submit('slow', { max_tokens: 2000 });
    await runs(held);
    const { body: accepted, headers } = await expectStatus(202, 'drainPool', { parameters: { id: 'slow' } });
    expect(headers.get('location')).toBe(`/v1/operations/${accepted.operation_id}`);
    for (const id of ['drainPool', 'reloadPool']) await expectStatus(409, id, { parameters: { id: 'slow' } });
    const drains = async () => (await client.call('getPoolHealth', { parameters: { id: 'slow' } })).body.draining;
    await expect.poll(drains).toBe(true);
    await expectStatus(503, 'createTask', body({ model_ref: 'slow-7b' }), 'POOL_UNAVAILABLE');
    await cancel([held]);
    const operationId = String(accepted.operation_id);
    const state = async () => (await client.call('getOperation', { parameters: { id: operationId } })).body.state;
    await expect.poll(state).toBe('SUCCEEDED');
    await gql(world.url, 'mutation { resumePool(input: { pool: "slow" }) { __typename } }');
    const ready = async () => (await client.call('getPoolHealth', { parameters: { id: 'slow' } })).body.ready;
    await expect.poll(ready).toBe(true);
    await expectStatus(202, 'reloadPool', { body: { new_model_ref: 'sim-7b' } });
  });
});

describe('what is kept', () => {
  const model = (id: string, over: object = {}) => ({ body: { id, digest: `sha256:${'0'.repeat(64)}`, ...over } });
  const withId = (id: string, over: object = {}) => ({ parameters: { id }, ...over });

  it('artifacts, under the digest of what they hold', async () => {
    const body = { kind: 'plan', content: { big: 1 }, tags: ['a'] };
    const text = JSON.stringify(body).replace('"big":1', '"big":9007199254740993');
    const { body: reference } = await expectStatus(201, 'createArtifact', { text });
    expect((await expectStatus(201, 'createArtifact', { text })).body.id).toBe(reference.id);
    const { body: kept } = await expectStatus(200, 'getArtifact', withId(String(reference.id)));
    expect(kept).toMatchObject({ kind: 'plan', tags: ['a'] });
  });

  it('models; one that is retired, or not trusted, takes no tasks', async () => {
    await expectStatus(201, 'createCatalogModel', model('lru-7b', { tags: ['a'] }));
    await expectStatus(409, 'createCatalogModel', model('lru-7b', { tags: ['b'] }));
    await expectStatus(200, 'getCatalogModel', withId('lru-7b'));
    const retired = { state: 'Retired', deadline_ms: 600_000 };
    await expectStatus(202, 'setCatalogModelState', withId('lru-7b', { body: retired }));
    await expectStatus(410, 'createTask', body({ model_ref: 'lru-7b' }), 'MODEL_DEPRECATED');
    await expectStatus(410, 'reloadPool', withId('lru', { body: { new_model_ref: 'lru-7b' } }), 'MODEL_DEPRECATED');
    const trust_policy = { mode: 'strict', require_signature: true };
    await expectStatus(201, 'createCatalogModel', model('sick-7b', { trust_policy }));
    await expectStatus(400, 'createTask', body({ model_ref: 'sick-7b' }), 'UNTRUSTED_ARTIFACT');
    for (const id of ['lru-7b', 'sick-7b']) await expectStatus(204, 'deleteCatalogModel', withId(id));
    const file = join(process.cwd(), 'LICENSE');
    const digest = `sha256:${createHash('sha256').update(readFileSync(file)).digest('hex')}`;
    await expectStatus(201, 'createCatalogModel', model('licence', { digest, source_url: `file://${file}` }));
    await expectStatus(202, 'verifyCatalogModel', withId('licence'));
    await expectStatus(201, 'createCatalogModel', model('other', { source_url: `file://${file}` }));
    await expectStatus(400, 'verifyCatalogModel', withId('other'), 'UNTRUSTED_ARTIFACT');
    for (const id of ['licence', 'other']) await expectStatus(204, 'deleteCatalogModel', withId(id));
  });

  it('nothing of workers: they are told who they are', async () => {
    const { body: told } = await expectStatus(200, 'registerWorker');
    expect(told).toMatchObject({ ok: true, identity: expect.stringMatching(/^token:[0-9a-f]{6}$/), pool_id: 'sim' });
  });
});

describe('what cannot be given is refused', () => {
  it('by full queues', async () => {
    const reject = await fill('slow');
    await expectStatus(429, 'createTask', body({ model_ref: 'slow-7b' }), 'ADMISSION_REJECT');
    await cancel(reject);
    const displacing = await fill('lru');
    await expectStatus(429, 'createTask', body({ model_ref: 'lru-7b', priority: 'batch' }), 'QUEUE_FULL_DROP_LRU');
    await cancel(displacing);
  });

  it('by pools that are not ready', () =>
    expectStatus(503, 'createTask', body({ model_ref: 'LICENSE' }), 'POOL_UNREADY'));

  it('by engines that fail, in the stream', async () => {
    expect(await endOf('error-frame-at-token:2')).toBe('INTERNAL');
    expect(await endOf('hang-at-token:2', { determinism: 'best_effort' })).toBe('DECODE_TIMEOUT');
    expect(await endOf('crash-at-token:2', { determinism: 'best_effort' })).toBe('WORKER_RESET');
  });

  it('by deadlines, in the stream', async () => {
    const [running = '', waiting = ''] = await fill('slow');
    await cancel([waiting]);
    expect((await client.events(await submit('slow', { deadline_ms: 50 }))).at(-1)?.data.code).toBe('DEADLINE_UNMET');
    await cancel([running]);
  });
});

describe('what nobody may ask, or asks wrongly, is refused by every operation', () => {
  const named = OPERATIONS.map((spec) => ({ ...spec, id: spec.operationId }));

  it.each(named)('$id', async ({ id, parameters = [], requestBody, responses }) => {
    const uuid = parameters.some((one) => one.in === 'path' && one.schema.format === 'uuid');
    const inPath = parameters.some((one) => one.in === 'path');
    if ('401' in responses) await expectStatus(401, id, { headers: { 'x-api-key': 'wrong' } });
    expect(await client.callAs('evil.example', id)).toBe(403);
    expect(await client.callMalformed(id)).toBe(400);
    if (uuid) await expectStatus(400, id, { parameters: { id: 'one' } }, 'INVALID_PARAMS');
    if (inPath) await expectStatus(404, id, { parameters: { id: randomUUID() } }, 'INVALID_PARAMS');
    if (requestBody === undefined) return;
    const empty = requestBody.content['application/json']?.schema.required === undefined ? [] : ['{}'];
    for (const text of [...empty, '[]', 'null', '{"a":', '"\ud800"', '['.repeat(20_000)]) {
      await expectStatus(400, id, { text }, 'INVALID_PARAMS');
    }
    await expectStatus(413, id, { text: ' '.repeat(6_000_000) });
    await expectStatus(415, id, { headers: { 'content-type': 'text/plain' } });
  });

  it('and what is not served is not there', async () => {
    for (const path of [
      '/v1/replicasets',
      '/v1/chat/completions',
      '/v1/completions',
      '/v1/models',
      '/v1/tasks/',
      '/V1/tasks',
    ]) {
      for (const method of ['GET', 'POST', 'OPTIONS']) expect((await ask(world.url, method, path)).status).toBe(404);
    }
    for (const { method, path } of OPERATIONS) {
      const filled = path.replace(/\{[^}]*\}/, 'sim');
      const options = await ask(world.url, 'OPTIONS', filled);
      expect(options.status).toBe(204);
      expect(options.headers.get('allow')?.split(', ')).toContain(method);
      expect((await ask(world.url, 'PUT', filled)).status).toBe(405);
    }
    expect((await ask(world.url, 'HEAD', '/health')).status).toBe(200);
    expect((await ask(world.url, 'HEAD', '/v1/capabilities')).status).toBe(200);
    expect((await ask(world.url, 'HEAD', `/v1/tasks/${randomUUID()}/stream`)).status).toBe(405);
  });
});

describe('what fails on our side is told', () => {
  const tables = ['tasks', 'sessions', 'pools', 'operations', 'artifacts', 'catalog_models'];
  const inDatabase = OPERATIONS.filter(({ operationId }) => ![...IN_MEMORY, 'getHealth'].includes(operationId));
  const askAll = async (status: number) => {
    for (const { operationId } of inDatabase) {
      await expectStatus(status, operationId, operationId === 'createTask' ? body({}) : {});
    }
  };

  it('with 500 where the database has no answer to a statement', async () => {
    const rename = async (from: string, to: string) => {
      for (const table of tables)
        await world.database.query(`ALTER TABLE IF EXISTS ${table}${from} RENAME TO ${table}${to}`);
    };
    await rename('', '_away');
    await askAll(500);
    await rename('_away', '');
  });

  it('with 503 while the control plane starts or stops', async () => {
    const environment = readEnvironment({});
    const telemetry = new Telemetry(createLogger({ write: () => {} }), createMetrics());
    const rules = identityRules(environment, environment.addr, { allowed_hosts: [], allowed_origins: [] });
    const server = new HttpServer({ rules, telemetry });
    try {
      const starting = client.of(`http://127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
      for (const { operationId } of OPERATIONS) {
        if (operationId === 'getHealth') continue;
        const { status, body: told, headers } = await starting.call(operationId);
        expect([status, told.code, headers.get('retry-after')], operationId).toEqual([503, 'POOL_UNAVAILABLE', '1']);
      }
    } finally {
      await server.close(0);
    }
  });

  it('with 503 where there is no database', async () => {
    await proxy.cut();
    await askAll(503);
    await proxy.mend();
  });
});

describe('the contract as a whole', () => {
  it('is served', async () => {
    const missing: string[] = [];
    for (const { operationId, method, path } of OPERATIONS) {
      const response = await fetch(`${world.url}${path.replace(/\{[^}]*\}/, 'any')}`, { method: 'OPTIONS' });
      if (response.headers.get('allow')?.split(', ').includes(method) !== true) missing.push(operationId);
    }
    expect(missing).toEqual([]);
  });

  it('has no status that is neither shown above nor explained', () => {
    const rows = OPERATIONS.flatMap(({ operationId }) =>
      Object.keys(operation(operationId).responses).map((status) => `${operationId} ${status}`),
    );
    const lines = rows.map((row) => {
      const codes = client.seen.get(row);
      if (codes === undefined) return `  ${row.padEnd(24)} not provoked: ${NOT_PROVOKED[row] ?? 'WHY?'}`;
      return `  ${row.padEnd(24)} ${[...codes].sort().join(', ')}`.trimEnd();
    });
    console.log(['Operations and statuses of the contract, as seen:', ...lines].join('\n'));
    expect(rows.filter((row) => !client.seen.has(row))).toEqual(rows.filter((row) => row in NOT_PROVOKED));
    expect(Object.keys(NOT_PROVOKED).filter((row) => !rows.includes(row))).toEqual([]);
  });

  it('has no kind of error that is neither shown above nor explained', () => {
    const seen = new Set([...client.seen.values()].flatMap((codes) => [...codes]));
    for (const [code, why] of Object.entries(CODES_NOT_PROVOKED)) console.log(`  ${code}: not provoked: ${why}`);
    expect(ERROR_CODES.filter((code) => !seen.has(code))).toEqual(
      ERROR_CODES.filter((code) => code in CODES_NOT_PROVOKED),
    );
  });
});
