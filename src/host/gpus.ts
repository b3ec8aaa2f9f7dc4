/** The GPUs of this host: as nvidia-smi lists them, or simulated ones that the configuration names. */
import { createHash } from 'node:crypto';
import type { GpuPoll, Gpu as HostGpu } from '../core/gpu.js';

export type Gpu = HostGpu;

export type Inventory =
  | { readonly ok: true; readonly gpus: readonly Gpu[] }
  | { readonly ok: false; readonly message: string; readonly fix: string };

/** Simulated GPUs keep their UUIDs from start to start: they are made of the node and the index. */
export function simulatedGpus(
  nodeId: string,
  devices: readonly { readonly name: string; readonly memory_bytes: number; readonly uuid?: string | undefined }[],
): Gpu[] {
  return devices.map((device, index) => {
    const hex = createHash('sha256').update(`${nodeId}/${index}`).digest('hex');
    const uuid =
      device.uuid ??
      `SIM-${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
    return { uuid, index, name: device.name, memoryTotalBytes: device.memory_bytes, simulated: true };
  });
}

/** What a poll means for a start: the GPUs that can be placed on, or why there are none. */
export function inventoryOf(poll: GpuPoll): Inventory {
  if (!poll.ok) return { ok: false, message: poll.message, fix: poll.fix };
  const gpus = poll.samples.flatMap(({ uuid, index, name, memoryTotalBytes }) =>
    memoryTotalBytes === null ? [] : [{ uuid, index, name, memoryTotalBytes, simulated: false }],
  );
  if (gpus.length > 0) return { ok: true, gpus };
  return {
    ok: false,
    message: 'the NVIDIA driver lists no usable GPU',
    fix: 'Install the NVIDIA driver and check `nvidia-smi`; or choose `gpu.mode: simulated` in the configuration.',
  };
}
