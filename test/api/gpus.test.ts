/** GPUs as an operator sees them, and what a lost one means for the engines on it. nvidia-smi is a stand-in. */
import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type FakeNvidiaSmi, fakeGpu, fakeNvidiaSmi } from '../host/gpuSupport.js';
import { cleanUp } from '../host/support.js';
import { gql } from '../support/graphql.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const MIB = 1024 ** 2;
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

  it('that are lost take their engines along, and get new ones when they are back; the others go on', async () => {
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
    expect(lost).toEqual([{ kind: 'gpu_lost', message: expect.stringContaining('lost'), replica: { name: 'sim-0' } }]);

    await smi.set({ gpus: [fakeGpu(0), fakeGpu(1)] });
    await expect.poll(async () => (await replicas()).map(({ state }) => state)).toEqual(['READY', 'READY']);
  });
});
