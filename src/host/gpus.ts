/** The GPUs of this host: as nvidia-smi lists them, or simulated ones that the configuration names. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';

export interface Gpu {
  readonly uuid: string;
  readonly index: number;
  readonly name: string;
  readonly memoryTotalBytes: number;
  readonly simulated: boolean;
}

export type Inventory =
  | { readonly ok: true; readonly gpus: readonly Gpu[] }
  | { readonly ok: false; readonly message: string; readonly fix: string };

const NVIDIA_SMI_TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 256 * 1024;
const MIB = 1024 * 1024;

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

/** Lines of `index, uuid, name, memory.total [MiB]`; a line that is not one (a lost GPU, a warning) is left out. */
export function parseNvidiaSmi(csv: string): Gpu[] {
  const gpus: Gpu[] = [];
  for (const line of csv.split('\n')) {
    const [index, uuid, name, totalMib] = line.split(',').map((cell) => cell.trim());
    if (index === undefined || uuid === undefined || name === undefined || totalMib === undefined) continue;
    const memoryTotalBytes = Number(totalMib) * MIB;
    if (!/^\d+$/.test(index) || !uuid.startsWith('GPU-') || !Number.isFinite(memoryTotalBytes)) continue;
    gpus.push({ uuid, index: Number(index), name, memoryTotalBytes, simulated: false });
  }
  return gpus;
}

/** Asks nvidia-smi once. A driver that hangs, is missing or lists nothing is an answer too, with its fix. */
export function readNvidiaGpus(): Promise<Inventory> {
  const args = ['--query-gpu=index,uuid,name,memory.total', '--format=csv,noheader,nounits'];
  return new Promise((resolve) => {
    execFile(
      'nvidia-smi',
      args,
      { timeout: NVIDIA_SMI_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES, killSignal: 'SIGKILL' },
      (error, stdout) => {
        const gpus = error === null ? parseNvidiaSmi(stdout) : [];
        if (gpus.length > 0) return resolve({ ok: true, gpus });
        const missing = error !== null && 'code' in error && error.code === 'ENOENT';
        resolve({
          ok: false,
          message: missing
            ? 'nvidia-smi is not installed, so there is no usable NVIDIA GPU'
            : 'nvidia-smi lists no usable GPU',
          fix: 'Install the NVIDIA driver and check `nvidia-smi`; or choose `gpu.mode: simulated` in the configuration.',
        });
      },
    );
  });
}
