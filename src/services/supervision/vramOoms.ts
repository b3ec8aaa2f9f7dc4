/** Starts that ran out of GPU memory: not tried again in the same way before more is free. For as long as this program runs. */
import { DEFAULT_RESTART_POLICY } from '../../core/restart.js';
import { isVramOom, type OutOfMemory } from '../../core/vramObserved.js';
import type { Clock } from '../../runtime/clock.js';
import type { VramPeakKey } from '../../store/vramPeaks.js';
import type { Device } from './memory.js';
import type { VramRun } from './vramRun.js';

/** Ways to start an engine; the oldest is forgotten. */
const MAX_KNOWN = 256;

interface Known {
  /** By GPU; null: it may have been by chance, once more is needed to be held against a start. */
  readonly ooms: ReadonlyMap<string, OutOfMemory> | null;
  readonly replicaId: string;
}

export class VramOoms {
  readonly #clock: Clock;
  readonly #known = new Map<string, Known>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * An engine has ended. One that was ready had enough memory to start with: only when the next one fares alike without a
   * stable run, it counts. @param fault as a reason's code; null: it was asked to end.
   */
  ended(run: VramRun, fault: string | null): void {
    const { key, replicaId, isReady, claimedMs } = run.facts;
    if (key === null) return;
    const name = nameOf(key);
    const before = this.#known.get(name);
    const stable = this.#clock.monotonicMs() - claimedMs >= DEFAULT_RESTART_POLICY.stableMs;
    if (fault === null || !isVramOom(fault)) {
      if (isReady()) this.#known.delete(name);
      return;
    }
    const counts = !isReady() || (before !== undefined && !stable);
    this.#known.delete(name);
    const capacities = [...run.capacities()].map(([uuid, capacityBytes]) => [uuid, { fault, capacityBytes }] as const);
    this.#known.set(name, { ooms: counts ? new Map(capacities) : null, replicaId });
    const [oldest] = this.#known.keys();
    if (this.#known.size > MAX_KNOWN && oldest !== undefined) this.#known.delete(oldest);
  }

  /**
   * What is held against a start on these devices, by GPU. Nobody says which of several was too small: one that has more
   * free now is a reason to try again.
   */
  against(key: VramPeakKey | null, devices: readonly Device[]): ReadonlyMap<string, OutOfMemory> | null {
    const ooms = key === null ? null : (this.#known.get(nameOf(key))?.ooms ?? null);
    if (ooms === null) return null;
    const noneHasMore = devices.every(({ uuid, freeBytes }) => freeBytes <= (ooms.get(uuid)?.capacityBytes ?? 0));
    return devices.length === 1 || noneHasMore ? ooms : null;
  }

  /** An operator wants it tried once more. */
  forgive(replicaId: string): void {
    for (const [name, known] of this.#known) if (known.replicaId === replicaId) this.#known.delete(name);
  }
}

/** Keys hold the GPUs that a start is given. */
function nameOf({ modelKey, flagsKey }: VramPeakKey): string {
  return `${flagsKey} ${modelKey}`;
}
