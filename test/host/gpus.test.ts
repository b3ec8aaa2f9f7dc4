import { afterEach, describe, expect, it } from 'vitest';
import { NvidiaSmi } from '../../src/host/gpu/nvidiaSmi.js';
import { inventoryOf, simulatedGpus } from '../../src/host/gpus.js';
import { fakeGpu, fakeNvidiaSmi } from './gpuSupport.js';
import { cleanUp, later, temporaryFolder } from './support.js';

afterEach(cleanUp);

function searchPath(path: string): void {
  const before = process.env.PATH;
  later(() => {
    process.env.PATH = before;
  });
  process.env.PATH = path;
}

const inventory = async () => inventoryOf(await new NvidiaSmi({ optionalFields: false }).poll());

describe('GPU inventory', () => {
  it('lists what nvidia-smi lists, in one run, and leaves out what cannot be placed on', async () => {
    const smi = await fakeNvidiaSmi({ gpus: [fakeGpu(0), { ...fakeGpu(1), 'memory.total': '[N/A]' }] });
    searchPath(`${smi.folder}:${process.env.PATH}`);
    expect(await inventory()).toEqual({
      ok: true,
      gpus: [
        {
          uuid: 'GPU-00000000-fake',
          index: 0,
          name: 'NVIDIA RTX 3090, Fake',
          memoryTotalBytes: 24_576 * 1024 * 1024,
          simulated: false,
        },
      ],
    });
    expect(await smi.calls()).toHaveLength(1);
  });

  it('says how to go on where there is no nvidia-smi', async () => {
    searchPath(await temporaryFolder());
    expect(await inventory()).toEqual({
      ok: false,
      message: expect.stringContaining('not installed'),
      fix: expect.stringContaining('gpu.mode: simulated'),
    });
  });

  it('keeps the ids of simulated GPUs, and keeps nodes apart', () => {
    const devices = [
      { name: 'A', memory_bytes: 10 },
      { name: 'B', memory_bytes: 20, uuid: 'mine' },
    ];
    const first = simulatedGpus('node-1', devices);
    expect(first).toEqual(simulatedGpus('node-1', devices));
    expect(first[0]?.uuid).not.toBe(simulatedGpus('node-2', devices)[0]?.uuid);
    expect(first[1]).toEqual({ uuid: 'mine', index: 1, name: 'B', memoryTotalBytes: 20, simulated: true });
  });
});
