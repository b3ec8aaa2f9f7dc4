/** GPUs as the control plane uses them: what they read now, and what becomes of engines when something befalls them. */
import type { Engine } from '../core/errors.js';
import type { GpuEvent, GpuReading } from '../core/gpu.js';
import { type DeviceMemory, freeMemory } from '../core/registry.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Recycle } from './fleet.js';
import { GpuTicks } from './gpuTicks.js';
import type { PoolEvents } from './poolEvents.js';

export interface EngineOnGpu {
  readonly id: string;
  readonly poolId: string;
  readonly engine: Engine;
  readonly engineVersion: string | null;
  /** Booked for it on this GPU, bytes. */
  readonly heldBytes: number;
}

/** The engines of this host, by the GPU they run on. */
export interface EnginesOnGpus {
  poolIds(): readonly string[];
  replicasOn(gpuUuid: string): readonly EngineOnGpu[];
  recycle(replicaId: string, why: Recycle): Promise<void>;
}

export interface GpuNow {
  /** Memory that nobody has taken; null: not known. */
  readonly freeBytes: number | null;
  /** Why nothing may be placed on it; null: it may. */
  readonly obstacle: string | null;
}

export interface DeviceFacts extends DeviceMemory {
  readonly computeCapability: string | null;
}

export interface GpusDeps {
  readonly readings: () => readonly GpuReading[];
  readonly engines: EnginesOnGpus;
  readonly events: PoolEvents;
  readonly telemetry: Telemetry;
}

export class Gpus {
  readonly #deps: GpusDeps;

  constructor(deps: GpusDeps) {
    this.#deps = deps;
    deps.telemetry.measuredBy(() => this.#measure());
  }

  readings(): readonly GpuReading[] {
    return this.#deps.readings();
  }

  /** What a GPU reads now; nothing is held against one that is not read. */
  now(uuid: string): GpuNow {
    const reading = this.readings().find(({ gpu }) => gpu.uuid === uuid);
    if (reading === undefined) return { freeBytes: null, obstacle: null };
    return { freeBytes: reading.memoryFreeBytes, obstacle: obstacleIn(reading) };
  }

  /** What the registry tells of a device; null: it is not of this host, or not read yet. */
  device(uuid: string): DeviceFacts | null {
    const reading = this.readings().find(({ gpu }) => gpu.uuid === uuid);
    if (reading === undefined) return null;
    const totalBytes = reading.gpu.memoryTotalBytes;
    const freeBytes = freeMemory(totalBytes, this.#bookedOn(uuid), reading.memoryFreeBytes);
    return { totalBytes, freeBytes, computeCapability: reading.computeCapability };
  }

  /** A tick at once, then one after each interval, until it is closed. @throws RefusalError invalid */
  ticks(intervalMs: number): GpuTicks {
    return new GpuTicks(intervalMs);
  }

  /** Never throws: what befell a GPU is written down and told, and the engines that cannot go on are ended. */
  handle(event: GpuEvent): void {
    const message = describe(event);
    const { telemetry, events, engines } = this.#deps;
    telemetry.gpuEvent(event, message);
    const record = (poolId: string, replicaId: string | null) =>
      void events.record({ poolId, replicaId, kind: `gpu_${event.type}`, message, detail: { ...event } });
    const uuids = uuidsOf(event);
    // The driver did not say which GPU: any pool may be concerned, no engine is ended for it.
    if (uuids.length === 0) for (const poolId of engines.poolIds()) record(poolId, null);
    for (const [replicaId, poolId] of this.#replicasOn(uuids)) {
      record(poolId, replicaId);
      if (!isFatal(event)) continue;
      const reason = { code: 'GPU_FAULT', message, fix: 'Look at nvidia-smi and the kernel log (dmesg).' };
      engines
        .recycle(replicaId, { reason, blame: true })
        .catch((error: unknown) => telemetry.backgroundFailure('gpu event', error));
    }
  }

  /** The pool of each replica; one that spans several of the GPUs is there once. */
  #replicasOn(uuids: readonly string[]): ReadonlyMap<string, string> {
    const engines = uuids.flatMap((uuid) => this.#deps.engines.replicasOn(uuid));
    return new Map(engines.map(({ id, poolId }) => [id, poolId]));
  }

  #bookedOn(uuid: string): number {
    return this.#deps.engines.replicasOn(uuid).reduce((sum, { heldBytes }) => sum + heldBytes, 0);
  }

  #measure(): void {
    const { telemetry, engines } = this.#deps;
    telemetry.gpusRead(
      this.readings().map(({ gpu, stale, utilizationPercent, memoryUsedBytes }) => ({
        device: String(gpu.index),
        totalBytes: gpu.memoryTotalBytes,
        otherBytes: stale || memoryUsedBytes === null ? null : Math.max(0, memoryUsedBytes - this.#bookedOn(gpu.uuid)),
        utilizationPercent: stale ? null : utilizationPercent,
        replicas: engines.replicasOn(gpu.uuid),
      })),
    );
  }
}

function obstacleIn({ health, stale, ageMs, reason }: GpuReading): string | null {
  if (health === 'ok' && !stale) return null;
  const what = health === 'ok' ? `its reading is ${Math.round(ageMs / 1000)} s old` : health;
  return reason === null ? what : `${what}: ${reason}`;
}

function uuidsOf(event: GpuEvent): readonly string[] {
  if (event.type === 'driver_reset') return event.uuids;
  return event.uuid === null ? [] : [event.uuid];
}

/** Nothing on the GPU can go on. */
function isFatal(event: GpuEvent): boolean {
  if (event.type === 'lost' || event.type === 'driver_reset') return true;
  return event.type === 'xid' && (event.class === 'fatal_reset' || event.class === 'fatal_reboot');
}

function describe(event: GpuEvent): string {
  switch (event.type) {
    case 'xid':
      return `XID ${event.xid}: ${event.meaning}. ${event.action}`;
    case 'lost':
      return `The GPU is lost: ${event.reason}.`;
    case 'recovered':
      return `The GPU is back; it was ${event.from}.`;
    case 'stale':
      return `The GPU has not been read for ${Math.round(event.ageMs / 1000)} s: ${event.reason}.`;
    case 'driver_reset':
      return `The GPU driver began anew: ${event.reason}.`;
  }
}
