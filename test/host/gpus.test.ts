import { describe, expect, it } from 'vitest';
import { parseNvidiaSmi, simulatedGpus } from '../../src/host/gpus.js';

describe('GPU inventory', () => {
  it('reads what nvidia-smi lists and leaves out what is no GPU', () => {
    const csv = `0, GPU-11111111-2222-3333-4444-555555555555, NVIDIA GeForce RTX 3090, 24576
1, GPU-aaaaaaaa-2222-3333-4444-555555555555, NVIDIA GeForce RTX 3060, 12288
2, [GPU is lost], [Unknown Error], [N/A]
3, GPU-bbbbbbbb-2222-3333-4444-555555555555, Odd, [N/A]
Failed to initialize NVML: Driver/library version mismatch
`;
    expect(parseNvidiaSmi(csv)).toEqual([
      {
        uuid: 'GPU-11111111-2222-3333-4444-555555555555',
        index: 0,
        name: 'NVIDIA GeForce RTX 3090',
        memoryTotalBytes: 24_576 * 1024 * 1024,
        simulated: false,
      },
      {
        uuid: 'GPU-aaaaaaaa-2222-3333-4444-555555555555',
        index: 1,
        name: 'NVIDIA GeForce RTX 3060',
        memoryTotalBytes: 12_288 * 1024 * 1024,
        simulated: false,
      },
    ]);
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
