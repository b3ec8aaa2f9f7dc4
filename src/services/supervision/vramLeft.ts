/** Memory that engines which have ended have not been seen to give back: it stays booked until its GPU reads free. */
import type { GpuReading } from '../../core/gpu.js';
import type { Reason } from '../../core/pool.js';
import { formatBytes } from '../../core/vram.js';
import { type LastSeen, MIN_SLACK_BYTES, notFreed, notFreedReason } from '../../core/vramObserved.js';
import type { Clock } from '../../runtime/clock.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { PoolEvents } from '../poolEvents.js';
import type { Device } from './memory.js';
import { type RunDevice, sumOf, unlistedBytes, type VramRun } from './vramRun.js';

interface Left {
  readonly replicaId: string;
  readonly poolId: string;
  readonly device: RunDevice;
  readonly seen: LastSeen;
  readonly pids: ReadonlySet<number>;
  readonly sinceMs: number;
  /** Engines that had loaded all by then: what they take is in what was seen. */
  readonly settled: ReadonlySet<VramRun>;
  /** At the last reading. */
  missingBytes: number;
  listed: readonly number[];
  told: boolean;
}

export interface LeftDeps {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly events: PoolEvents;
}

export class VramLeft {
  readonly #deps: LeftDeps;
  readonly #deadlineMs: number;
  /** At most one for each replica and GPU: what an earlier engine of a replica left is part of what the next one found. */
  #left: readonly Left[] = [];

  constructor(deps: LeftDeps, deadlineMs: number) {
    this.#deps = deps;
    this.#deadlineMs = deadlineMs;
  }

  /** Bytes of a GPU that are not given back yet. */
  on(uuid: string): number {
    return this.#left.reduce((sum, { device, missingBytes }) => sum + (device.uuid === uuid ? missingBytes : 0), 0);
  }

  /** An engine has ended. Where nothing was seen of it, or GPUs are simulated, there is nothing to wait for. */
  add(run: VramRun, simulated: ReadonlySet<string>, running: Iterable<VramRun>): void {
    const { replicaId, poolId } = run.facts;
    const settled = new Set([...running].filter(({ facts }) => facts.isReady()));
    for (const { device, seen, pids } of run.lastSeen()) {
      if (simulated.has(device.uuid) || (seen.heldBytes <= MIN_SLACK_BYTES && pids.size === 0)) continue;
      this.#drop((left) => left.replicaId === replicaId && left.device.uuid === device.uuid);
      const at = { sinceMs: this.#deps.clock.monotonicMs(), settled, missingBytes: seen.heldBytes };
      const left = { replicaId, poolId, device, seen, pids, ...at, listed: [...pids], told: false };
      this.#left = [...this.#left, left];
    }
  }

  /** @param reading a new one, of a GPU that can be read. */
  judge(reading: GpuReading, running: Iterable<VramRun>): void {
    const { memoryUsedBytes: usedBytes, gpu } = reading;
    const here = this.#left.filter(({ device }) => device.uuid === gpu.uuid);
    if (here.length === 0 || usedBytes === null) return;
    const runs = [...running];
    for (const left of here) {
      const listed = (reading.processes ?? []).filter(({ pid }) => left.pids.has(pid));
      left.listed = listed.map(({ pid }) => pid);
      const others = runs.filter((run) => !left.settled.has(run)).map((run) => run.bookedOn(gpu.uuid));
      left.missingBytes = notFreed(left.seen, {
        usedBytes,
        unlistedBytes: unlistedBytes(reading),
        // One that is listed without a number has something yet.
        listedBytes: listed.length === 0 ? 0 : (sumOf(listed) ?? left.seen.heldBytes),
        othersBytes: others.reduce((sum, bytes) => sum + bytes, 0),
      });
      if (left.missingBytes > 0) this.#tellOverdue(left);
      else this.#freed(left);
    }
  }

  /**
   * Why a replica is not to be started now because of what was left: by its own former engine, as long as that may be
   * freed any moment, is known to be held by its processes, or leaves too little room.
   */
  obstacle(
    replicaId: string,
    devices: readonly Device[],
    misfits: boolean,
  ): (Reason & { readonly mayWait: boolean }) | null {
    const own = this.#left.filter(
      (left) => left.replicaId === replicaId && devices.some(({ uuid }) => uuid === left.device.uuid),
    );
    const left = own.find((one) => !this.#isOverdue(one)) ?? own.find(({ listed }) => listed.length > 0) ?? own[0];
    if (left === undefined) return null;
    this.#tellOverdue(left);
    const mayWait = !this.#isOverdue(left);
    if (!mayWait && left.listed.length === 0 && !misfits) return null;
    return { ...reasonOf(left), mayWait };
  }

  /** Whether memory of these devices may come free any moment. */
  isExpectedOn(devices: readonly Device[]): boolean {
    return this.#left.some((left) => !this.#isOverdue(left) && devices.some(({ uuid }) => uuid === left.device.uuid));
  }

  #isOverdue({ sinceMs }: Left): boolean {
    return this.#deps.clock.monotonicMs() - sinceMs >= this.#deadlineMs;
  }

  #tellOverdue(left: Left): void {
    if (left.told || !this.#isOverdue(left)) return;
    left.told = true;
    this.#tell('vram_not_freed', left, `${reasonOf(left).message}.`);
  }

  #freed(left: Left): void {
    this.#drop((one) => one === left);
    if (!left.told) return;
    const bytes = formatBytes(left.seen.heldBytes);
    this.#tell('vram_freed', left, `${left.device.label} has got back the ${bytes} of an engine that had ended.`);
  }

  #tell(kind: string, { replicaId, poolId, device, missingBytes, listed }: Left, message: string): void {
    const detail = { gpu: device.uuid, bytes: missingBytes, pids: listed };
    this.#deps.telemetry.log.warn({ replica_id: replicaId, pool_id: poolId, ...detail, human: message }, kind);
    void this.#deps.events.record({ poolId, replicaId, kind, message, detail });
  }

  #drop(which: (left: Left) => boolean): void {
    this.#left = this.#left.filter((left) => !which(left));
  }
}

function reasonOf({ device, missingBytes, listed }: Left): Reason {
  return notFreedReason({ device: device.label, bytes: missingBytes, pids: listed });
}
