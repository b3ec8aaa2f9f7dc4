/** GPU memory of real engine processes, as a stand-in for nvidia-smi tells it: learned, waited for, and missed. */
import { totalmem } from 'node:os';
import { dirname } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type FakeNvidiaSmi, fakeApp, fakeGpu, fakeNvidiaSmi } from '../host/gpuSupport.js';
import { cleanUp } from '../host/support.js';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const { PATH, LLAMA_ORCH_NVML_LIBRARY } = process.env;
let smi: FakeNvidiaSmi;
let world: World;

beforeAll(async () => {
  smi = await fakeNvidiaSmi({ gpus: [] });
  process.env.PATH = `${dirname(smi.file)}:${PATH}`;
  process.env.LLAMA_ORCH_NVML_LIBRARY = '/nowhere/libnvidia-ml.so';
});
afterEach(() => world?.[Symbol.asyncDispose]());
afterAll(async () => {
  process.env.PATH = PATH;
  if (LLAMA_ORCH_NVML_LIBRARY === undefined) delete process.env.LLAMA_ORCH_NVML_LIBRARY;
  else process.env.LLAMA_ORCH_NVML_LIBRARY = LLAMA_ORCH_NVML_LIBRARY;
  await cleanUp();
});

/** What is used beside the engine, and what each process holds, MiB. */
async function reads(otherMib: number, processes: Readonly<Record<number, number>>): Promise<void> {
  const used = Object.values(processes).reduce((sum, mib) => sum + mib, otherMib);
  const gpu = { ...fakeGpu(0), 'memory.used': String(used), 'memory.free': String(24_576 - used) };
  await smi.set({ gpus: [gpu], apps: Object.entries(processes).map(([pid, mib]) => fakeApp(0, Number(pid), mib)) });
}

const onNvidia = (config: string): string => config.replace(/gpu:\n.*\n.*\n/, 'gpu: { mode: nvidia }\n');

interface ReplicaShown {
  readonly state: string;
  readonly restartCount: number;
  readonly lastError: { readonly code: string; readonly message: string } | null;
}
const replica = async (): Promise<ReplicaShown> => {
  const { data } = await gql(world.url, '{ pools { replicas { state restartCount lastError { code message } } } }');
  return data.pools[0].replicas[0];
};
const row = async (): Promise<{ pid: number; bytes: number }> => {
  const [found] = await world.database.query<{ pid: number; bytes: number }>(
    'SELECT pid, vram_bytes::float8 AS bytes FROM replicas',
  );
  if (found === undefined) throw new Error('no replica');
  return found;
};
const count = async (sql: string): Promise<number> => (await world.database.query(sql)).length;

describe('memory of a GPU that is read', () => {
  it.runIf(LONG)(
    'is learned from the engine; one that died and holds it keeps it from the next until it is free',
    async () => {
      await reads(300, {});
      world = await startWorld({ config: onNvidia(simConfig({ replicas: 1, slots: 1 })) });
      const { pid, bytes } = await row();
      // Nothing is known but what the configuration claims.
      expect(bytes).toBe(GIB);
      await reads(300, { [pid]: 5000 });
      const peak = () => world.database.query('SELECT peak_bytes::float8 AS bytes, samples FROM vram_peaks');
      await expect.poll(peak).toEqual([{ bytes: 5000 * MIB, samples: 1 }]);

      process.kill(pid, 'SIGKILL');
      await expect
        .poll(async () => (await replica()).lastError, { timeout: 25_000 })
        .toMatchObject({
          code: 'VRAM_NOT_FREED',
          message: `GPU 0 (NVIDIA RTX 3090, Fake) still misses 4.9 GiB of an engine that has ended; held by process ${pid}`,
        });
      expect((await replica()).state).not.toBe('READY');
      await reads(300, {});
      await expect.poll(replica, { timeout: 25_000 }).toMatchObject({ state: 'READY', lastError: null });
      expect((await row()).bytes).toBe(Math.ceil(5000 * MIB * 1.05));
      await expect.poll(() => count(`SELECT 1 FROM pool_events WHERE kind = 'vram_not_freed'`)).toBe(1);
      await expect.poll(() => count(`SELECT 1 FROM pool_events WHERE kind = 'vram_freed'`)).toBe(1);
    },
    90_000,
  );

  it.runIf(LONG)(
    'that comes back is used again without a word',
    async () => {
      await reads(300, {});
      world = await startWorld({ config: onNvidia(simConfig({ replicas: 1, slots: 1 })) });
      const { pid } = await row();
      await reads(300, { [pid]: 5000 });
      await expect.poll(() => count('SELECT 1 FROM vram_peaks')).toBe(1);
      process.kill(pid, 'SIGKILL');
      await expect.poll(async () => (await replica()).restartCount).toBe(1);
      await reads(300, {});
      await expect.poll(replica).toMatchObject({ state: 'READY' });
      expect((await row()).pid).not.toBe(pid);
      expect(await count(`SELECT 1 FROM pool_events WHERE kind LIKE 'vram%'`)).toBe(0);
    },
    60_000,
  );
});

describe('memory of a simulated GPU', () => {
  it('is told beside that of the host', async () => {
    world = await startWorld({ config: simConfig({ replicas: 1, slots: 1 }) });
    const { data, errors } = await gql(
      world.url,
      '{ host { memoryTotalBytes memoryAvailableBytes limitedBy } gpus { memoryFreeBytes } }',
    );
    expect(errors).toBeUndefined();
    expect(['MACHINE', 'CGROUP']).toContain(data.host.limitedBy);
    const total = Number(data.host.memoryTotalBytes);
    expect(total).toBeGreaterThan(64 * MIB);
    expect(total).toBeLessThanOrEqual(totalmem());
    expect(Number(data.host.memoryAvailableBytes)).toBeLessThanOrEqual(total);
    expect(data.gpus[0].memoryFreeBytes).toBe(String(23 * GIB));
  });

  it('is used as the simulator says, and that is learned', async () => {
    world = await startWorld({
      config: simConfig({ replicas: 1, slots: 1, flags: ['--vram-bytes', String(6 * GIB)] }),
    });
    await expect
      .poll(async () => (await gql(world.url, '{ gpus { memoryFreeBytes } }')).data.gpus[0].memoryFreeBytes)
      .toBe(String(18 * GIB));
    await expect
      .poll(() => world.database.query('SELECT peak_bytes::float8 AS bytes FROM vram_peaks'))
      .toEqual([{ bytes: 6 * GIB }]);
  });

  it.runIf(LONG)(
    'that was too small for an engine is not tried again as long as no more is free',
    async () => {
      world = await startWorld({
        config: simConfig({ replicas: 1, slots: 1, flags: ['--fault', 'oom-at-load'] }),
        expectNotReady: true,
      });
      const refused = "SELECT 1 FROM pool_events WHERE kind = 'replica_preload' AND detail->>'outcome' = 'refused'";
      await expect.poll(() => count(refused), { timeout: 25_000 }).toBeGreaterThan(2);
      // A start that was refused is none: the engine was started anew once.
      expect(await replica()).toMatchObject({ restartCount: 1 });
      expect((await replica()).lastError).toMatchObject({
        code: 'VRAM_OOM_LOAD',
        message: expect.stringContaining('it had when it ran out of memory (VRAM_OOM_LOAD)'),
      });
      await expect.poll(() => count('SELECT 1 FROM crash_records')).toBe(1);
    },
    60_000,
  );
});
