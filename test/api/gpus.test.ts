/** GPUs as an operator sees them, and what a lost one means for the engines on it. nvidia-smi is a stand-in. */

import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GpuTicks } from '../../src/services/gpuTicks.js';
import { type FakeNvidiaSmi, fakeGpu, fakeNvidiaSmi } from '../host/gpuSupport.js';
import { cleanUp } from '../host/support.js';
import { gql, sseSubscription, wsClient } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { scrape } from '../support/metrics.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const { PATH, LLAMA_ORCH_NVML_LIBRARY } = process.env;
let smi: FakeNvidiaSmi;
let world: World;

beforeAll(async () => {
  smi = await fakeNvidiaSmi({ gpus: [fakeGpu(0), fakeGpu(1)] });
  process.env.PATH = `${dirname(smi.file)}:${PATH}`;
  process.env.LLAMA_ORCH_NVML_LIBRARY = '/nowhere/libnvidia-ml.so';
  const config = simConfig({ replicas: 2, slots: 1 }).replace(/gpu:\n.*\n.*\n/, 'gpu: { mode: nvidia }\n');
  world = await startWorld({ config });
});
afterAll(async () => {
  process.env.PATH = PATH;
  if (LLAMA_ORCH_NVML_LIBRARY === undefined) delete process.env.LLAMA_ORCH_NVML_LIBRARY;
  else process.env.LLAMA_ORCH_NVML_LIBRARY = LLAMA_ORCH_NVML_LIBRARY;
  await world?.[Symbol.asyncDispose]();
  await cleanUp();
});

const GPUS = `{ gpus { index name simulated stale health healthReason utilization temperatureCelsius
  memoryTotalBytes memoryFreeBytes lastXid replicas { name } } }`;

const replicas = async (): Promise<{ name: string; state: string; lastError: { code: string } | null }[]> => {
  const { data } = await gql(world.url, '{ pools { replicas { name state lastError { code } } } }');
  return data.pools[0].replicas;
};

describe('GPUs', () => {
  it('are told as the driver reads them', async () => {
    const { data, errors } = await gql(world.url, GPUS);
    expect(errors).toBeUndefined();
    const gpu = (index: number) => ({
      ...{ index, name: 'NVIDIA RTX 3090, Fake', simulated: false, stale: false, health: 'OK', healthReason: null },
      ...{ utilization: 37, temperatureCelsius: 55, lastXid: null, replicas: [{ name: `sim-${index}` }] },
      // What is free by the driver is less than what is not booked.
      ...{ memoryTotalBytes: String(24_576 * MIB), memoryFreeBytes: String(20_000 * MIB) },
    });
    expect(data.gpus).toEqual([gpu(0), gpu(1)]);
  });

  it.runIf(LONG)(
    'that are lost take their engines along, and get new ones when they are back; the others go on',
    async () => {
      await smi.set({
        gpus: [{ ...fakeGpu(0), 'memory.total': '[GPU is lost]', 'memory.free': '[GPU is lost]' }, fakeGpu(1)],
      });
      await expect
        .poll(async () => (await gql(world.url, GPUS)).data.gpus.map((gpu: { health: string }) => gpu.health))
        .toEqual(['LOST', 'OK']);
      await expect.poll(async () => (await replicas())[0]).toMatchObject({ lastError: { code: 'GPU_UNUSABLE' } });
      expect((await replicas())[1]).toMatchObject({ state: 'READY' });
      const { data } = await gql(
        world.url,
        '{ pools { events(first: 100) { edges { node { kind message replica { name } } } } } }',
      );
      const lost = data.pools[0].events.edges
        .map(({ node }: { node: { kind: string } }) => node)
        .filter(({ kind }: { kind: string }) => kind === 'gpu_lost');
      expect(lost).toEqual([
        { kind: 'gpu_lost', message: expect.stringContaining('lost'), replica: { name: 'sim-0' } },
      ]);

      await smi.set({ gpus: [fakeGpu(0), fakeGpu(1)] });
      await expect.poll(async () => (await replicas()).map(({ state }) => state)).toEqual(['READY', 'READY']);
    },
  );

  it('are told to Prometheus with who runs on them, and what else fills them', async () => {
    await expect.poll(async () => (await replicas()).map(({ state }) => state)).toEqual(['READY', 'READY']);
    const metrics = await scrape(world.url);
    const told = (name: string) =>
      (metrics.get(name) ?? []).map(({ labels, value }) => `${labels.device} ${labels.replica_id} ${value}`).sort();
    expect(told('gpu_utilization')).toEqual(['0 sim-0 37', '1 sim-1 37']);
    const other = 4200 * MIB - GIB;
    expect(told('vram_used_bytes')).toEqual([`0  ${other}`, `0 sim-0 ${GIB}`, `1  ${other}`, `1 sim-1 ${GIB}`]);
    const { data } = await gql(world.url, '{ pool(name: "sim") { computeCapability vramTotalBytes vramFreeBytes } }');
    expect(data.pool).toEqual({
      computeCapability: '8.6',
      vramTotalBytes: String(2 * 24_576 * MIB),
      vramFreeBytes: String(2 * 20_000 * MIB),
    });
  });

  it.runIf(LONG)('whose driver began anew get new engines; it is told, counted, and each restart is one', async () => {
    const resets = async () => (await scrape(world.url)).get('gpu_driver_resets_total')?.[0]?.value;
    const runs = async () => (await smi.calls()).length;
    const pids = async () => {
      const rows = await world.database.query('SELECT pid FROM replicas ORDER BY id');
      return rows.map(({ pid }) => Number(pid));
    };
    expect(await resets()).toBe(0);
    const before = await pids();
    await smi.set({ print: "it couldn't communicate with the NVIDIA driver\n", exitCode: 9 });
    // The next run finds no driver, and has ended when the one after it begins.
    const sofar = await runs();
    await expect.poll(runs).toBeGreaterThanOrEqual(sofar + 2);
    await smi.set({ gpus: [fakeGpu(0), fakeGpu(1)] });
    await expect.poll(resets).toBe(1);
    await expect
      .poll(async () => (await pids()).filter((pid, index) => pid > 0 && pid !== before[index]))
      .toHaveLength(2);
    await expect.poll(async () => (await replicas()).map(({ state }) => state)).toEqual(['READY', 'READY']);
    const { data } = await gql(
      world.url,
      '{ pool(name: "sim") { events(first: 100) { edges { node { kind message replica { name } } } } } }',
    );
    const reset = data.pool.events.edges
      .map(({ node }: { node: { kind: string } }) => node)
      .filter(({ kind }: { kind: string }) => kind === 'gpu_driver_reset');
    const message = expect.stringContaining('driver began anew');
    expect(reset.map(({ replica }: { replica: { name: string } }) => replica.name).sort()).toEqual(['sim-0', 'sim-1']);
    expect(reset[0]).toMatchObject({ message });
  });
});

describe('a subscription to GPUs', () => {
  const FOLLOW = 'subscription ($every: Int) { gpus(intervalMs: $every) { index utilization } }';
  const both = (utilization: number) => [
    { index: 0, utilization },
    { index: 1, utilization: 37 },
  ];

  it('tells the whole list at once and again as it changes, over WebSocket', async () => {
    const client = wsClient(world.url);
    const seen: unknown[] = [];
    try {
      const answers = client.iterate<{ gpus: unknown }>({ query: FOLLOW, variables: { every: 250 } });
      for await (const { data } of answers) {
        seen.push(data?.gpus);
        if (seen.length === 1) await smi.set({ gpus: [{ ...fakeGpu(0), 'utilization.gpu': '90' }, fakeGpu(1)] });
        if (JSON.stringify(data?.gpus).includes('90')) break;
      }
    } finally {
      await client.dispose();
    }
    expect(seen[0]).toEqual(both(37));
    expect(seen.at(-1)).toEqual(both(90));
    await smi.set({ gpus: [fakeGpu(0), fakeGpu(1)] });
  });

  it.each([0, 249, 60_001, -1])('refuses an interval of %i ms', async (every) => {
    const [answer, ...more] = await sseSubscription(world.url, FOLLOW, { every });
    expect(answer?.errors?.[0]).toMatchObject({
      message: expect.stringContaining('250 to 60000'),
      extensions: { code: 'INVALID_PARAMS', field: 'intervalMs' },
    });
    expect(more).toEqual([]);
  });

  it('ends its wait at once when nobody listens any more', async () => {
    const client = wsClient(world.url);
    const stream = client.iterate({ query: FOLLOW, variables: { every: 60_000 } });
    expect((await stream.next()).value).toMatchObject({ data: { gpus: [{}, {}] } });
    // Parked for a minute, and still ends now.
    await stream.return?.();
    await client.dispose();
    const ticks = new GpuTicks(60_000);
    expect(await ticks.next()).toEqual(['tick']);
    const parked = ticks.next();
    ticks.close();
    expect(await parked).toBeNull();
    expect(await ticks.next()).toBeNull();
  });

  it('ends with the server, however long its interval, over both', async () => {
    const own = await startWorld();
    const client = wsClient(own.url);
    const ws = client.iterate({ query: FOLLOW, variables: { every: 60_000 } });
    expect((await ws.next()).value).toMatchObject({ data: { gpus: [{ index: 0 }, { index: 1 }] } });
    const response = await fetch(`${own.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ query: FOLLOW }),
      signal: AbortSignal.timeout(20_000),
    });
    const sse = response.body?.getReader();
    expect((await sse?.read())?.done).toBe(false);
    const ended = Promise.allSettled([ws.next(), drained(sse)]);
    await own[Symbol.asyncDispose]();
    await ended;
    await client.dispose();
  });
});

/** Reads to the end, or to the cut. */
async function drained(reader: ReadableStreamDefaultReader<Uint8Array> | undefined): Promise<void> {
  while ((await reader?.read())?.done === false);
}
