/** GPUs as the control plane uses them: what they read now, and what becomes of engines when something befalls them. */
import type { GpuEvent, GpuReading } from '../core/gpu.js';
import type { Telemetry } from '../telemetry/events.js';
import type { PoolEvents } from './poolEvents.js';

/** The engines of this host, by the GPU they run on. */
export interface EnginesOnGpus {
  replicasOn(gpuUuid: string): readonly { readonly id: string; readonly poolId: string }[];
  recycle(replicaId: string, cause: string): Promise<void>;
}

export interface GpuNow {
  /** Memory that nobody has taken; null: not known. */
  readonly freeBytes: number | null;
  /** Why nothing may be placed on it; null: it may. */
  readonly obstacle: string | null;
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

  /** Never throws: what befell a GPU is written down and told, and the engines that cannot go on are ended. */
  handle(event: GpuEvent): void {
    const message = describe(event);
    const { telemetry, events, engines } = this.#deps;
    telemetry.log.warn({ gpu_event: event, human: message }, 'gpu event');
    for (const uuid of uuidsOf(event)) {
      for (const { id: replicaId, poolId } of engines.replicasOn(uuid)) {
        void events.record({ poolId, replicaId, kind: `gpu_${event.type}`, message, detail: { ...event } });
        if (!isFatal(event)) continue;
        engines.recycle(replicaId, message).catch((error: unknown) => telemetry.backgroundFailure('gpu event', error));
      }
    }
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
