/** What the registry says of a pool, over REST and GraphQL: idle, at work, draining, and when it cannot be ready. */
import { existsSync } from 'node:fs';
import { chmod, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fakeNvidiaSmi } from '../host/gpuSupport.js';
import { cleanUp } from '../host/support.js';
import { gql } from '../support/graphql.js';
import { get, post, readStream, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const GIB = 1024 ** 3;
/** Where a replica waits for better times. */
const AT_REST = new Set(['ABSENT', 'BACKING_OFF', 'FAILED', 'QUARANTINED']);
const REGISTRY = `{ pool(name: "sim") { name live ready activeLeases engineVersion draining deviceMask slotsTotal slotsFree
  lastError { message } lastHeartbeatAt vramTotalBytes vramFreeBytes computeCapability tokensPerSecond firstTokenMs } }`;

afterAll(cleanUp);

async function status(url: string, pool = 'sim'): Promise<Record<string, unknown>> {
  const response = await get(url, `/pools/${pool}/status`);
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

describe('a pool that is ready', () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ config: simConfig({ tokensPerSecond: 50 }) });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  it('tells all its facts, with null for what nobody knows', async () => {
    const facts = {
      pool_id: 'sim',
      live: true,
      ready: true,
      active_leases: 0,
      engine_version: expect.stringMatching(/.+/),
      draining: false,
      device_mask: '0,1',
      slots_total: 4,
      slots_free: 4,
      last_error: null,
      last_heartbeat_ms: expect.any(Number),
      vram_total_bytes: 36 * GIB,
      // One replica on each device, each with 1 GiB.
      vram_free_bytes: 34 * GIB,
      compute_capability: null,
      tokens_per_second: null,
      first_token_ms: null,
    };
    // Rows are written after the fact.
    await expect.poll(() => status(world.url)).toEqual(facts);
    expect(Number((await status(world.url)).last_heartbeat_ms)).toBeGreaterThan(1e12);
  });

  it('counts its leases while it works, and has hints afterwards', async () => {
    const request = taskRequest({ max_tokens: 2_000 });
    expect((await post(world.url, '/v1/tasks', request)).status).toBe(202);
    await readStream(world.url, request.task_id, { until: (frame) => frame.event === 'token' });
    expect(await status(world.url)).toMatchObject({ active_leases: 1, slots_free: 3, slots_total: 4 });
    const { data } = await gql(world.url, REGISTRY);
    expect(data.pool).toMatchObject({ activeLeases: 1, slotsFree: 3, slotsTotal: 4 });
    expect((await post(world.url, `/v1/tasks/${request.task_id}/cancel`, {})).status).toBe(204);
    await expect.poll(() => status(world.url)).toMatchObject({ active_leases: 0, slots_free: 4 });
    const short = taskRequest({ max_tokens: 20 });
    expect((await post(world.url, '/v1/tasks', short)).status).toBe(202);
    await readStream(world.url, short.task_id);
    const hinted = { tokens_per_second: expect.any(Number), first_token_ms: expect.any(Number) };
    await expect.poll(() => status(world.url)).toMatchObject(hinted);
    const { tokens_per_second: rate } = await status(world.url);
    expect(rate).toBeGreaterThan(1);
    expect(rate).toBeLessThan(200);
  });

  it('tells the same through GraphQL', async () => {
    const rest = await status(world.url);
    const { data, errors } = await gql(world.url, REGISTRY);
    expect(errors).toBeUndefined();
    const { lastHeartbeatAt, ...pool } = data.pool;
    expect(pool).toEqual({
      name: rest.pool_id,
      live: rest.live,
      ready: rest.ready,
      activeLeases: rest.active_leases,
      engineVersion: rest.engine_version,
      draining: rest.draining,
      deviceMask: rest.device_mask,
      slotsTotal: rest.slots_total,
      slotsFree: rest.slots_free,
      lastError: rest.last_error,
      vramTotalBytes: String(rest.vram_total_bytes),
      vramFreeBytes: String(rest.vram_free_bytes),
      computeCapability: rest.compute_capability,
      tokensPerSecond: rest.tokens_per_second,
      firstTokenMs: rest.first_token_ms,
    });
    expect(Date.parse(lastHeartbeatAt)).toBeGreaterThan(1e12);
  });

  it('offers no slot while it drains', async () => {
    const drain = await post(world.url, '/v1/pools/sim/drain', { deadline_ms: 5_000 });
    const operation = `${world.url}${drain.headers.get('location')}`;
    await expect
      .poll(() => status(world.url))
      .toMatchObject({ draining: true, ready: false, slots_free: 0, live: true });
    const drained = async () => ((await (await fetch(operation)).json()) as { state: string }).state;
    await expect.poll(drained).toBe('SUCCEEDED');
    await gql(world.url, `mutation { resumePool(input: { pool: "sim" }) { __typename } }`);
    await expect.poll(() => status(world.url)).toMatchObject({ draining: false, ready: true, slots_free: 4 });
  });

  it('is the only one: any other is not found', async () => {
    const response = await get(world.url, '/pools/nope/status');
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ message: 'pool nope not found' });
    expect((await post(world.url, '/pools/sim/status', {})).status).toBe(405);
  });
});

describe('a token', () => {
  it('is asked for as everywhere', async () => {
    await using world = await startWorld({ env: { AUTH_TOKEN: 'a-long-token', AUTH_OPTIONAL: 'false' } });
    const path = '/pools/sim/status';
    expect((await get(world.url, path)).status).toBe(401);
    expect((await get(world.url, path, { authorization: 'Bearer wrong' })).status).toBe(401);
    expect((await get(world.url, path, { authorization: 'Bearer a-long-token' })).status).toBe(200);
  });
});

describe('without a GPU', () => {
  const { PATH, LLAMA_ORCH_NVML_LIBRARY } = process.env;
  afterAll(() => {
    process.env.PATH = PATH;
    if (LLAMA_ORCH_NVML_LIBRARY === undefined) delete process.env.LLAMA_ORCH_NVML_LIBRARY;
    else process.env.LLAMA_ORCH_NVML_LIBRARY = LLAMA_ORCH_NVML_LIBRARY;
  });

  it('a pool says what is missing and how to mend it, and no engine is started, on the CPU least of all', async () => {
    const smi = await fakeNvidiaSmi({ print: 'No devices were found\n', exitCode: 6 });
    process.env.PATH = `${dirname(smi.file)}:${PATH}`;
    process.env.LLAMA_ORCH_NVML_LIBRARY = '/nowhere/libnvidia-ml.so';
    const engine = join(smi.folder, 'llama-server');
    const started = join(smi.folder, 'started');
    await writeFile(engine, `#!/bin/sh\necho started >> '${started}'\nexec sleep 60\n`);
    await chmod(engine, 0o755);
    const model = join(smi.folder, 'model.gguf');
    await writeFile(model, 'GGUF');
    const config = `
gpu: { mode: nvidia }
pools:
  - id: sim
    engine: llamacpp
    model: ${model}
    ctx: 4096
    devices: [0]
    provisioning: { mode: binary, binary: { url: '${pathToFileURL(engine).href}' } }
`;
    await using world = await startWorld({ config, expectNotReady: true });
    const cause = expect.stringContaining('no usable GPU');
    await expect.poll(() => status(world.url)).toMatchObject({ last_error: cause });
    expect(await status(world.url)).toMatchObject({
      ...{ live: false, ready: false, draining: false, active_leases: 0, slots_free: 0, engine_version: null },
      ...{ last_heartbeat_ms: null, vram_total_bytes: 0, vram_free_bytes: 0, compute_capability: null },
    });
    const reason = { code: 'NO_GPU', message: cause, fix: expect.stringContaining('NVIDIA driver') };
    const ready = await get(world.url, '/ready');
    expect(ready.status).toBe(503);
    const { pools } = (await ready.json()) as { pools: { reasons: unknown[] }[] };
    expect(pools[0]?.reasons).toContainEqual(reason);
    const { data } = await gql(world.url, '{ pool(name: "sim") { live lastError { code message fix } } }');
    expect(data.pool).toEqual({ live: false, lastError: reason });
    // It has been tried, and did not come as far as a process.
    const changes = async () => {
      const text = `SELECT detail->>'to' AS state FROM pool_events WHERE kind = 'replica_state' ORDER BY seq`;
      return (await world.database.query<{ state: string }>(text)).map(({ state }) => state);
    };
    await expect.poll(async () => (await changes()).some((state) => AT_REST.has(state))).toBe(true);
    expect((await changes()).filter((state) => !AT_REST.has(state) && state !== 'PROVISIONING')).toEqual([]);
    expect(existsSync(started)).toBe(false);
  });
});

describe('a pool that is not preloaded', () => {
  const preload = (yaml: string) => yaml.replace('ctx: 4096', 'ctx: 4096\n    preload: false');

  it('starts its engines with its first task, or when an operator resumes it', async () => {
    const config = preload(simConfig({ replicas: 1 }));
    const [, pool = ''] = config.split('pools:\n');
    const two = `${config}${pool.replace('id: sim', 'id: other').replace('sim-7b', 'other-7b')}`;
    await using world = await startWorld({ config: two, expectNotReady: true });
    const query = '{ pools { name ready lastError { code } replicas { state } } }';
    const pools = async () => {
      const { data } = await gql(world.url, query);
      const found = data.pools as { name: string; ready: boolean; lastError: object; replicas: { state: string }[] }[];
      return Object.fromEntries(found.map(({ name, ...rest }) => [name, rest]));
    };
    const resting = { ready: false, lastError: { code: 'NOT_PRELOADED' }, replicas: [{ state: 'ABSENT' }] };
    const running = { ready: true, lastError: null, replicas: [{ state: 'READY' }] };
    await expect.poll(pools).toEqual({ sim: resting, other: resting });
    const task = taskRequest({ max_tokens: 3 });
    expect((await post(world.url, '/v1/tasks', task)).status).toBe(202);
    expect((await readStream(world.url, task.task_id)).at(-1)?.event).toBe('end');
    await expect.poll(pools).toEqual({ sim: running, other: resting });
    await gql(world.url, 'mutation { resumePool(input: { pool: "other" }) { __typename } }');
    await expect.poll(pools, { timeout: 10_000 }).toEqual({ sim: running, other: running });
  });
});
