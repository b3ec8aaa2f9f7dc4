/** One engine on its GPUs: what it was given, and what it was seen to take. */
import type { GpuProcess, GpuReading } from '../../core/gpu.js';
import { isNotableRise, type LastSeen, risenBy } from '../../core/vramObserved.js';
import type { VramPeakKey, VramPeakRow } from '../../store/vramPeaks.js';

export interface RunFacts {
  readonly replicaId: string;
  readonly poolId: string;
  readonly key: VramPeakKey | null;
  /** Every GPU it may use; what is booked may be known for none of them. */
  readonly devices: readonly RunDevice[];
  readonly booked: ReadonlyMap<string, number>;
  /** What it will take; less than what is booked where an earlier one ran out of memory with more. */
  readonly expected: ReadonlyMap<string, number>;
  /** It takes no memory, and says how much it would: null where it says nothing. */
  readonly simulated: boolean;
  readonly simulatedBytes: number | null;
  /** Monotonic. */
  readonly claimedMs: number;
  readonly isReady: () => boolean;
  /** null: no process of it runs. */
  readonly pid: () => number | null;
}

export interface RunDevice {
  readonly uuid: string;
  readonly label: string;
  /** When it was booked. */
  readonly freeBytes: number;
  /** Used then, by whomever; null: not known. */
  readonly usedBytes: number | null;
}

interface OnDevice {
  readonly device: RunDevice;
  /** No other engine of ours has begun or ended there since, so that a rise of what is used is its own. */
  alone: boolean;
  compared: boolean;
  /** Those that were seen, since a process that dies may not be recognised any more. */
  readonly pids: Set<number>;
  /** null: nothing that is its own was seen. */
  seen: (LastSeen & { readonly listed: boolean; readonly freeBytes: number | null }) | null;
  peakBytes: number;
  writtenBytes: number;
  /** This start is among those that the peak was seen in. */
  isCounted: boolean;
}

export interface DuePeak {
  readonly row: VramPeakRow;
  /** It could not be written: it is tried once more with the next one, or at the end. */
  readonly onLost: () => void;
}

/** No engine has more processes on a GPU. */
const MAX_PIDS = 64;

export class VramRun {
  readonly facts: RunFacts;
  readonly #on: ReadonlyMap<string, OnDevice>;

  constructor(facts: RunFacts) {
    this.facts = facts;
    this.#on = new Map(facts.devices.map((device) => [device.uuid, emptyView(device)]));
  }

  isOn(uuid: string): boolean {
    return this.#on.has(uuid);
  }

  /** Of one that has loaded and is seen, no more than it takes or may take: what else its start had to find free is free. */
  bookedOn(uuid: string): number {
    const booked = this.facts.booked.get(uuid) ?? 0;
    const seen = this.#on.get(uuid)?.seen;
    if (seen?.listed !== true || !this.facts.isReady()) return booked;
    return Math.min(booked, Math.max(seen.heldBytes, this.expectedOn(uuid)));
  }

  expectedOn(uuid: string): number {
    return this.facts.expected.get(uuid) ?? 0;
  }

  /** Of what is booked, what no reading can show yet; 0 as well where processes cannot be told apart. */
  notTakenOn(uuid: string): number {
    const seen = this.#on.get(uuid)?.seen;
    return seen?.listed === true ? Math.max(0, this.bookedOn(uuid) - seen.heldBytes) : 0;
  }

  /** Another engine of ours begins or ends on that GPU. */
  crowd(uuid: string): void {
    const on = this.#on.get(uuid);
    if (on !== undefined) on.alone = false;
  }

  /** @param own its processes among those listed. */
  see(reading: GpuReading, own: readonly GpuProcess[]): void {
    const on = this.#on.get(reading.gpu.uuid);
    if (on === undefined || reading.memoryUsedBytes === null) return;
    for (const { pid } of own) if (on.pids.size < MAX_PIDS) on.pids.add(pid);
    const held = this.#heldIn(on, reading.memoryUsedBytes, own);
    if (held === null) return;
    on.seen = {
      ...held,
      usedBytes: reading.memoryUsedBytes,
      freeBytes: reading.memoryFreeBytes,
      // A list without any may be one that does not show them.
      unlistedBytes: reading.processes?.length === 0 ? null : unlistedBytes(reading),
      beforeBytes: on.device.usedBytes,
    };
    on.peakBytes = Math.max(on.peakBytes, held.heldBytes);
  }

  #heldIn(on: OnDevice, usedBytes: number, own: readonly GpuProcess[]): { heldBytes: number; listed: boolean } | null {
    const listed = sumOf(own);
    if (own.length > 0 && listed !== null) return { heldBytes: listed, listed: true };
    const { uuid, usedBytes: beforeBytes } = on.device;
    if (!on.compared && on.alone && beforeBytes !== null && this.facts.isReady()) {
      on.compared = true;
      const heldBytes = risenBy(beforeBytes, usedBytes, this.bookedOn(uuid));
      return heldBytes === null ? null : { heldBytes, listed: false };
    }
    return on.seen === null ? null : { heldBytes: on.seen.heldBytes, listed: false };
  }

  /** Peaks to be written down now: only of engines that became ready, as others may not have loaded all. */
  takePeaks(atItsEnd: boolean): DuePeak[] {
    if (this.facts.key === null || !this.facts.isReady()) return [];
    const due = [...this.#on.values()].filter(({ peakBytes, writtenBytes, isCounted }) =>
      atItsEnd ? peakBytes > writtenBytes || (peakBytes > 0 && !isCounted) : isNotableRise(peakBytes, writtenBytes),
    );
    return due.map((on) => {
      const row = { gpuUuid: on.device.uuid, peakBytes: on.peakBytes, runs: on.isCounted ? 0 : 1 };
      on.writtenBytes = on.peakBytes;
      on.isCounted = true;
      const onLost = () => {
        if (row.runs > 0) on.isCounted = false;
      };
      return { row, onLost };
    });
  }

  /** What it left behind on its GPUs, as it was seen last. */
  lastSeen(): { device: RunDevice; seen: LastSeen; pids: ReadonlySet<number> }[] {
    return [...this.#on.values()].flatMap(({ device, seen, pids }) => (seen === null ? [] : [{ device, seen, pids }]));
  }

  /** The most it could have had on each GPU: what it held and what was free beside it, and never more than at its start. */
  capacities(): ReadonlyMap<string, number> {
    return new Map(
      [...this.#on].map(([uuid, { device, seen }]) => {
        const reachable = seen?.freeBytes == null ? Number.POSITIVE_INFINITY : seen.heldBytes + seen.freeBytes;
        return [uuid, Math.min(device.freeBytes, reachable)];
      }),
    );
  }
}

function emptyView(device: RunDevice): OnDevice {
  return {
    device,
    alone: true,
    compared: false,
    pids: new Set(),
    seen: null,
    peakBytes: 0,
    writtenBytes: 0,
    isCounted: false,
  };
}

/** null: one of them is not told. */
export function sumOf(processes: readonly GpuProcess[]): number | null {
  let sum = 0;
  for (const { usedBytes } of processes) {
    if (usedBytes === null) return null;
    sum += usedBytes;
  }
  return sum;
}

/** Used by none of the listed processes: the driver itself, displays, and what an ended process has not given back. */
export function unlistedBytes({ processes, memoryUsedBytes }: GpuReading): number | null {
  const listed = processes === null ? null : sumOf(processes);
  return listed === null || memoryUsedBytes === null ? null : memoryUsedBytes - listed;
}
