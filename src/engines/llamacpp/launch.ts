/** How a real llama-server is started. Pure: facts in, LaunchSpec out. */
import type { LaunchSpec } from '../adapter.js';

export interface LlamaCppLaunch {
  readonly binaryPath: string;
  readonly modelPath: string;
  readonly port: number;
  /** Context of one slot, tokens. */
  readonly contextPerSlot: number;
  readonly slots: number;
  /** GPUs the process may see, by NVML UUID; empty means none at all, never "all of them". */
  readonly gpuUuids: readonly string[];
  readonly apiKey?: string;
  readonly extraArgs?: readonly string[];
  readonly extraEnv?: Readonly<Record<string, string>>;
}

/** llama-server drops its work on SIGTERM and normally ends in under a second; what is longer is a hang. */
const STOP_GRACE_MS = 10_000;

export function llamaCppLaunch(launch: LlamaCppLaunch): LaunchSpec {
  if (launch.slots < 1 || launch.contextPerSlot < 1) {
    throw new RangeError('slots and contextPerSlot must be at least 1');
  }
  return {
    file: launch.binaryPath,
    args: [
      ...['-m', launch.modelPath],
      ...['--host', '127.0.0.1', '--port', String(launch.port)],
      // -c is the context of all slots together.
      ...['-c', String(launch.contextPerSlot * launch.slots), '-np', String(launch.slots)],
      // Alone in its batch and with no cached prefix, a request gives the same text each time.
      ...(launch.slots === 1 ? ['-nocb', '--no-cache-prompt'] : []),
      ...['--metrics', '--slots', '--log-colors', 'off'],
      ...(launch.extraArgs ?? []),
    ],
    env: {
      // Options that some builds lack go by the environment: a build that does not know a name ignores it, whereas
      // an unknown flag stops it. Without this one the server silently shrinks what does not fit into GPU memory.
      LLAMA_ARG_FIT: 'off',
      CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
      CUDA_VISIBLE_DEVICES: launch.gpuUuids.length === 0 ? '-1' : launch.gpuUuids.join(','),
      // Not by --api-key: every user of the machine can read another process's arguments.
      ...(launch.apiKey !== undefined && { LLAMA_API_KEY: launch.apiKey }),
      ...launch.extraEnv,
    },
    stopGraceMs: STOP_GRACE_MS,
  };
}
