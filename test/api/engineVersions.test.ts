/** Engines of different versions in one pool: by a crash after an update, by a reload, behind an endpoint, on another node. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';
import { gql } from '../support/graphql.js';
import { beginOperation, endOf, statesOf } from '../support/operations.js';
import { startWorld, type World } from '../support/world.js';

const GIB = 1024 ** 3;
const MIXED = 'ENGINE_VERSION_MIXED';
const WAIT = { timeout: 20_000, interval: 100 };

let folder: string;
let outside: RunningSim;
let world: World;

const versionFile = (pool: string) => join(folder, pool);
const update = (pool: string, version: string) => writeFile(versionFile(pool), version);

function startOutside(port: string, version: string): Promise<RunningSim> {
  const args = ['--port', port, '--slots', '4', '--model', 'far-7b', '--version-file', versionFile('far')];
  return update('far', version).then(() => startEngineSim({ args }));
}

function poolOf(id: string, over: object = {}, vramBytes = GIB): object {
  const simulated = { tokens_per_second: 0, first_token_ms: 0, load_ms: 0, vram_bytes: vramBytes };
  const provisioning = { mode: 'simulated', flags: ['--version-file', versionFile(id)], simulated };
  return { id, engine: 'llamacpp', model: `${id}-7b`, devices: [0, 1], replicas: 2, slots: 1, provisioning, ...over };
}

function config(pools: readonly object[]): string {
  const devices = [24, 12].map((gib, index) => ({ name: `GPU ${index}`, memory_bytes: gib * GIB }));
  return JSON.stringify({ gpu: { mode: 'simulated', devices }, pools });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-versions-'));
  for (const pool of ['one', 'tight', 'lax']) await update(pool, '1.0');
  outside = await startOutside('0', '1.0');
  const external = {
    endpoint: outside.baseUrl,
    devices: [],
    provisioning: { mode: 'external' },
    timeouts: { idle_ms: 2_000 },
  };
  world = await startWorld({
    config: config([
      poolOf('one'),
      poolOf('tight', {}, 7 * GIB),
      poolOf('lax', { require_same_engine_version: false }),
      poolOf('far', external),
    ]),
  });
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  await outside?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

interface Seen {
  readonly name: string;
  readonly state: string;
  readonly engineVersion: string | null;
  readonly lastError: { readonly code: string; readonly message: string; readonly fix: string } | null;
  readonly preload: readonly { readonly name: string; readonly state: string }[];
}

async function replicas(pool: string, { url } = world): Promise<Seen[]> {
  const fields = 'name state engineVersion lastError { code message fix } preload { name state }';
  const answer = await gql(url, `query ($pool: String!) { pool(name: $pool) { replicas { ${fields} } } }`, { pool });
  return answer.data.pool.replicas;
}

async function standing(pool: string, at = world): Promise<string[]> {
  const all = await replicas(pool, at);
  return all.map(({ state, engineVersion, lastError }) => `${state} ${lastError?.code ?? engineVersion}`);
}

async function events(pool: string): Promise<{ kind: string; message: string }[]> {
  const query =
    'query ($pool: String!) { pool(name: $pool) { events(first: 100) { edges { node { kind message } } } } }';
  const { data } = await gql(world.url, query, { pool });
  return data.pool.events.edges.map(({ node }: { node: object }) => node);
}

async function kill(replica: string): Promise<void> {
  const text = "SELECT pid FROM replicas WHERE id = $1 AND state = 'READY'";
  const pid = async () => (await world.database.query<{ pid: number }>(text, [replica]))[0]?.pid ?? 0;
  await expect.poll(pid, WAIT).toBeGreaterThan(0);
  process.kill(await pid(), 'SIGKILL');
}

async function untilRefused(pool: string): Promise<Seen | undefined> {
  const refused = async () => (await replicas(pool)).find(({ lastError }) => lastError?.code === MIXED);
  await expect.poll(refused, WAIT).toBeDefined();
  return refused();
}

it('keeps an engine of another version out, with both versions and the fix, until the others have it too', async () => {
  await update('one', '2.0');
  await kill('one-1');
  const refused = await untilRefused('one');
  expect(refused?.name).toBe('one-1');
  expect(refused?.state).not.toBe('READY');
  const { message, fix } = refused?.lastError ?? {};
  expect(message).toBe('the engine is version 2.0, and one-0 of the same pool serves with version 1.0');
  expect(fix).toMatch(/Restart the other replicas or reload the pool.*require_same_engine_version: false/);
  const failed = async () => (await events('one')).filter(({ kind }) => kind === 'replica_preload');
  await expect.poll(failed, WAIT).toContainEqual({ kind: 'replica_preload', message: expect.stringContaining('2.0') });
  const identify = async () => (await untilRefused('one'))?.preload.find(({ name }) => name === 'identify');
  await expect.poll(identify, WAIT).toEqual({ name: 'identify', state: 'FAILED' });
  expect((await replicas('one'))[0]).toMatchObject({ state: 'READY', engineVersion: '1.0' });

  const restarted = await endOf(
    world.url,
    await beginOperation(world.url, 'restartReplica(input: { replica: "one-0" })'),
  );
  expect(restarted.state).toBe('SUCCEEDED');
  await expect.poll(() => standing('one'), WAIT).toEqual(['READY 2.0', 'READY 2.0']);
});

it.each([
  ['beside', 'one', 'SUCCEEDED'],
  ['in place', 'tight', 'SKIPPED'],
])('lets a reload bring another version for the whole pool: %s', async (_how, pool, switchOver) => {
  await update(pool, '3.0');
  const id = await beginOperation(world.url, `reloadPool(input: { pool: "${pool}", newModelRef: "next-7b" })`);
  const reloaded = await endOf(world.url, id);
  expect(reloaded.state, JSON.stringify(reloaded)).toBe('SUCCEEDED');
  expect(statesOf(reloaded).switch_over).toBe(switchOver);
  await expect.poll(() => standing(pool), WAIT).toEqual(['READY 3.0', 'READY 3.0']);
});

it('brings a pool back all of whose engines die after an update', async () => {
  await update('tight', '4.0');
  await Promise.all([kill('tight-0'), kill('tight-1')]);
  await expect.poll(() => standing('tight'), WAIT).toEqual(['READY 4.0', 'READY 4.0']);
});

it('lets versions be mixed where the configuration says so, and tells it', async () => {
  await update('lax', '2.0');
  await kill('lax-1');
  await expect.poll(() => standing('lax'), WAIT).toEqual(['READY 1.0', 'READY 2.0']);
  const told = async () => (await events('lax')).filter(({ kind }) => kind === 'engine_versions_mixed');
  await expect.poll(told, WAIT).toHaveLength(1);
  expect((await told())[0]?.message).toMatch(/version 2\.0, and lax-0 .* version 1\.0/);
});

describe('an engine that somebody else runs', () => {
  it('is tested anew when another version answers at its endpoint', async () => {
    expect(await standing('far')).toEqual(['READY 1.0', 'READY 1.0']);
    const { port } = new URL(outside.baseUrl);
    await outside[Symbol.asyncDispose]();
    outside = await startOutside(port, '2.0');
    await expect.poll(() => standing('far'), { ...WAIT, timeout: 40_000 }).toEqual(['READY 2.0', 'READY 2.0']);
  }, 60_000);
});

it('is kept out by what another node serves, and let in when that has gone', async () => {
  await writeFile(versionFile('two'), '1.0');
  const shared = { ...poolOf('one', { devices: [0], replicas: 1 }), model: 'one-7b' };
  const flags = { provisioning: { mode: 'simulated', flags: ['--version-file', versionFile('two')] } };
  await using second = await startWorld({
    config: config([{ ...shared, ...flags }]),
    databaseUrl: async () => world.database.url,
    expectNotReady: true,
  });
  const refused = async () => (await replicas('one', second)).find(({ lastError }) => lastError?.code === MIXED);
  await expect.poll(refused, WAIT).toMatchObject({ name: 'one-0@1' });
  expect((await refused())?.lastError?.message).toMatch(
    /version 1\.0, and one-\d of the same pool serves with version 3\.0/,
  );
  await world.plane.close();
  await expect.poll(() => standing('one', second), WAIT).toContain('READY 1.0');
}, 60_000);
