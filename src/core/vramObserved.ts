/** What engines were seen to take of their GPUs, and what follows: for the next start, and for memory that one left. Pure. */
import type { Reason } from './pool.js';
import { formatBytes, type VramNeed } from './vram.js';

/** The most that engines of one model, started in one way, were seen to take of one GPU. */
export interface ObservedPeak {
  readonly peakBytes: number;
  /** Starts in which it was looked at. */
  readonly runs: number;
}

/** An engine said that it ran out of GPU memory. */
export interface OutOfMemory {
  readonly fault: string;
  /** What it could have had at most: what it held and what was free beside it. */
  readonly capacityBytes: number;
}

const MIB = 1024 ** 2;
/** Engines differ a little from start to start, and a look every few seconds misses the very top. */
const MARGIN = 0.05;
/** Of what an engine held; the driver itself takes and gives such amounts. */
const SLACK = 0.05;
export const MIN_SLACK_BYTES = 64 * MIB;
/** A peak is written down again once it has risen by more than this. */
const NOTABLE_RISE = 0.01;
/** Beyond this factor somebody else has taken memory meanwhile, or the estimate is of no use: believe neither. */
const MAX_DIFFERENCE = 2;
const VRAM_OOM: ReadonlySet<string> = new Set(['VRAM_OOM_LOAD', 'VRAM_OOM_RUNTIME', 'KV_OOM']);

export function isVramOom(code: string): boolean {
  return VRAM_OOM.has(code);
}

export function isNotableRise(peakBytes: number, writtenBytes: number): boolean {
  return peakBytes > writtenBytes * (1 + NOTABLE_RISE);
}

/** The observed peak where there is one that can be true, else the estimate. */
export function needOfPeak(
  estimate: VramNeed | null,
  peak: ObservedPeak | null,
  device: { readonly label: string; readonly simulated: boolean },
): VramNeed | null {
  if (peak === null || !isBelievable(estimate, peak.peakBytes)) return estimate;
  const seen = `observed peak ${formatBytes(peak.peakBytes)} on ${device.label}, seen ${times(peak.runs)}`;
  // What is simulated takes the same each time, to the byte.
  if (device.simulated) return { totalBytes: peak.peakBytes, arithmetic: seen };
  const totalBytes = Math.ceil(peak.peakBytes * (1 + MARGIN));
  return { totalBytes, arithmetic: `${seen}, plus ${MARGIN * 100} % margin = ${formatBytes(totalBytes)}` };
}

/** Less than the weights means that they were not on the GPU when it was looked at. */
function isBelievable(estimate: VramNeed | null, peakBytes: number): boolean {
  const weightsBytes = estimate !== null && 'weightsBytes' in estimate ? Number(estimate.weightsBytes) : 0;
  return peakBytes > 0 && peakBytes >= weightsBytes;
}

/** What a start must find more than an earlier one had that ran out of memory. */
export function needAfterOom(need: VramNeed | null, { fault, capacityBytes }: OutOfMemory): VramNeed {
  const leastBytes = capacityBytes + 1;
  if (need !== null && need.totalBytes >= leastBytes) return need;
  return {
    totalBytes: leastBytes,
    arithmetic: `more than the ${formatBytes(capacityBytes)} that it had when it ran out of memory (${fault}), started in the same way`,
  };
}

/**
 * What an engine took where the driver tells of no process: the rise of what is used. To be asked only if no other
 * engine of ours began or ended meanwhile. Null: nothing that could be told from noise, or more than can be true.
 */
export function risenBy(beforeBytes: number, usedBytes: number, booked: number): number | null {
  const risen = usedBytes - beforeBytes;
  if (risen <= MIN_SLACK_BYTES) return null;
  return booked > 0 && risen > booked * MAX_DIFFERENCE ? null : risen;
}

/** Of a GPU, when an engine was last seen on it. */
export interface LastSeen {
  readonly heldBytes: number;
  /** Of the whole GPU. */
  readonly usedBytes: number;
  /** Used, but by none of the processes that the driver lists; null: it does not tell what each of them uses. */
  readonly unlistedBytes: number | null;
  /** Used before the engine was started; null: not known. */
  readonly beforeBytes: number | null;
}

/** Of the same GPU, after the end of that engine. */
export interface SeenAfter {
  readonly usedBytes: number;
  readonly unlistedBytes: number | null;
  /** What processes of the engine that are still listed hold. */
  readonly listedBytes: number;
  /** What others of ours may have taken since. */
  readonly othersBytes: number;
}

/** Bytes of an ended engine that the GPU has not got back; 0: all is free, as far as it can be told. */
export function notFreed(left: LastSeen, now: SeenAfter): number {
  const slack = Math.max(MIN_SLACK_BYTES, left.heldBytes * SLACK);
  const floor = Math.max(left.usedBytes - left.heldBytes, left.beforeBytes ?? 0);
  const byDevice = now.usedBytes - floor - now.othersBytes;
  // Processes that the driver lists answer for themselves, so that this is not misled by others that grow.
  const byList =
    left.unlistedBytes === null || now.unlistedBytes === null
      ? Number.POSITIVE_INFINITY
      : now.unlistedBytes - left.unlistedBytes;
  const missing = Math.min(byDevice, byList);
  if (now.listedBytes > 0) return Math.max(now.listedBytes, missing);
  return missing <= slack ? 0 : Math.min(missing, left.heldBytes);
}

/** What is said of a replica whose memory did not come back. */
export function notFreedReason(facts: {
  readonly device: string;
  readonly bytes: number;
  readonly pids: readonly number[];
}): Reason {
  const { device, bytes, pids } = facts;
  const holders =
    pids.length === 0
      ? 'no process that is listed holds it'
      : `held by ${pids.length === 1 ? 'process' : 'processes'} ${pids.join(', ')}`;
  const first =
    pids.length === 0 ? 'Look at nvidia-smi for what uses it' : `End what holds it (kill -9 ${pids.join(' ')})`;
  return {
    code: 'VRAM_NOT_FREED',
    message: `${device} still misses ${formatBytes(bytes)} of an engine that has ended; ${holders}`,
    fix: `${first}; where that does not help, reset the GPU (nvidia-smi --gpu-reset) or reboot the host. The replica starts by itself once the memory reads free.`,
  };
}

function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`;
}
