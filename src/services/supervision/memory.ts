/** Whether a model will fit, found before anything is started: from the file itself, with the arithmetic shown. */
import type { Reason } from '../../core/pool.js';
import { checkFit, contextTokensOf, estimateSplit, formatBytes, type VramNeed } from '../../core/vram.js';
import { readGgufHeader } from '../../host/gguf.js';
import { modelShape } from '../../host/ggufShape.js';
import { readHostMemory } from '../../host/hostMemory.js';

/** What is known of a replica's need without looking at anything. */
export type MemoryPlan =
  /** A simulated engine claims so much of each of its devices. */
  | { readonly kind: 'claimed'; readonly bytes: number }
  /** llama.cpp: weights, KV cache and working memory follow from the file. */
  | {
      readonly kind: 'gguf';
      readonly path: string;
      readonly contextPerSlot: number;
      readonly slots: number;
      /** Shares of the devices; null: all on one. */
      readonly ratios: readonly number[] | null;
    };

export interface Device {
  readonly uuid: string;
  /** As people know it: `GPU 0 (RTX 3090)`. */
  readonly label: string;
  /** What is neither booked by a replica of ours nor, as far as it can be read, taken by anybody else. */
  readonly freeBytes: number;
  /** Why nothing may be placed on it now. */
  readonly obstacle: string | null;
}

/** For the process itself: the CUDA libraries alone take half of it. */
const HOST_WORKING_BYTES = 256 * 1024 ** 2;

/** Flags of llama-server that change the sum in ways it is not worth following: then the engine finds out by itself. */
const MEMORY_FLAG =
  /^(?:-c|--ctx-size|-np|--parallel|-ngl|--(?:n-)?gpu-layers|-ct[kv]|--cache-type-[kv]|-nkvo|--no-kv-offload|-u?b|--u?batch-size|-sm|--split-mode|-ts|--tensor-split|-ot|--override-tensor|-ncmoe|--(?:n-)?cpu-moe|-cmoe|--swa-full|--mmproj|-md|--model-draft|-fit|--fit)(?:=|$)/;

export function changesMemory(flags: readonly string[]): boolean {
  return flags.some((flag) => MEMORY_FLAG.test(flag));
}

/** Need per device, in their order; empty when nothing can be said; a Reason when the model cannot be read at all. */
export async function needOf(
  plan: MemoryPlan | null,
  devices: readonly Device[],
): Promise<readonly VramNeed[] | Reason> {
  if (plan === null || devices.length === 0) return [];
  if (plan.kind === 'claimed') {
    const { bytes: totalBytes } = plan;
    return devices.map(() => ({
      totalBytes,
      arithmetic: `${totalBytes} bytes, as provisioning.simulated.vram_bytes says`,
    }));
  }
  const header = await readGgufHeader(plan.path);
  if ('unreadable' in header) {
    const fix = 'Download the model again, or correct the model reference; it has to be a complete GGUF file.';
    return { code: 'MODEL_UNREADABLE', message: header.unreadable, fix };
  }
  const short = hostMemoryObstacle(header.hostTensorBytes);
  if (short !== null) return short;
  const shape = modelShape(header);
  if ('unknown' in shape) return [];
  const { contextPerSlot, slots, ratios } = plan;
  const input = { ...shape, slots, contextTokens: contextTokensOf(contextPerSlot, slots) };
  return estimateSplit(input, ratios ?? [1]);
}

/** What stays in host memory beside the GPU's share; the page cache that the rest is read through can be taken back. */
function hostMemoryObstacle(tensorBytes: number): Reason | null {
  const { availableBytes, limitedBy } = readHostMemory();
  const needBytes = tensorBytes + HOST_WORKING_BYTES;
  if (needBytes <= availableBytes) return null;
  return {
    code: 'HOST_MEMORY_INSUFFICIENT',
    message: `the ${limitedBy === 'cgroup' ? 'control group' : 'host'} has ${formatBytes(availableBytes)} of memory available; the engine needs ${formatBytes(needBytes)} beside its GPU memory`,
    fix: 'End other programs, raise the limit of the control group, or use a smaller model.',
  };
}

/** The first device that cannot be used at all. */
export function firstUnusable(devices: readonly Device[]): Reason | null {
  const device = devices.find(({ obstacle }) => obstacle !== null);
  if (device === undefined) return null;
  const fix = 'Look at nvidia-smi and the kernel log (dmesg); it is used again once it reads well.';
  return { code: 'GPU_UNUSABLE', message: `${device.label} cannot be used now: ${device.obstacle}`, fix };
}

/** The first device on which its share does not fit. */
export function firstMisfit(needs: readonly VramNeed[], devices: readonly Device[]): Reason | null {
  for (const [index, need] of needs.entries()) {
    const device = devices[index];
    const misfit = device && checkFit({ need, freeBytes: device.freeBytes, device: device.label });
    if (misfit) return misfit;
  }
  return null;
}
