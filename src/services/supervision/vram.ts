/**
 * The ledger of GPU memory: what is booked for which engine, what engines are seen to take, and what those that ended have
 * not given back. A start is given memory here, or told why not.
 */
import type { GpuProcess, GpuReading } from '../../core/gpu.js';
import type { Reason } from '../../core/pool.js';
import type { VramNeed } from '../../core/vram.js';
import { needAfterOom, needOfPeak, type OutOfMemory } from '../../core/vramObserved.js';
import { markVariable } from '../../host/process.js';
import { readEnvironment } from '../../host/procfs.js';
import type { Clock } from '../../runtime/clock.js';
import { delay } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { raiseVramPeak, readVramPeaks, type VramPeakKey, type VramPeakRow } from '../../store/vramPeaks.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { PoolEvents } from '../poolEvents.js';
import { type Device, firstMisfit, firstUnusable, needOf } from './memory.js';
import { peakKeyOf, type StartedAs, simulatedBytesOf } from './vramKeys.js';
import { VramLeft } from './vramLeft.js';
import { VramOoms } from './vramOoms.js';
import { VramRun } from './vramRun.js';

export interface VramDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly events: PoolEvents;
  readonly nodeId: string;
  readonly readings: () => readonly GpuReading[];
  readonly hash: (text: string) => string;
  /** How long memory of an engine that ended is waited for, ms. */
  readonly freeDeadlineMs?: number;
}

/** An engine that is about to be started, or taken over. */
export interface VramStart extends Omit<StartedAs, 'plan'> {
  readonly replicaId: string;
  readonly poolId: string;
  readonly devices: () => readonly Device[];
  /** It runs already, from an earlier start of ours. */
  readonly inherited: boolean;
  /** Whether it has become ready, also once it has ended. */
  readonly isReady: () => boolean;
  readonly pid: () => number | null;
}

/** Memory that is booked until it is released. */
export interface VramClaim {
  /** Bytes by GPU UUID; without those whose need nobody knows. */
  readonly held: ReadonlyMap<string, number>;
  /** Its processes are gone. @param fault why it ended, as a reason's code; null: it was asked to. */
  release(fault: string | null): void;
}

const NOTHING: VramClaim = { held: new Map(), release: () => {} };
const FREE_DEADLINE_MS = 10_000;
const LOOK_EVERY_MS = 50;

export class VramLedger {
  readonly #deps: VramDeps;
  readonly #left: VramLeft;
  readonly #runs = new Set<VramRun>();
  readonly #ooms: VramOoms;
  #written: Promise<void> = Promise.resolve();

  constructor(deps: VramDeps) {
    this.#deps = deps;
    this.#ooms = new VramOoms(deps.clock);
    this.#left = new VramLeft(deps, deps.freeDeadlineMs ?? FREE_DEADLINE_MS);
  }

  /** Bytes of a GPU that are booked, or not given back yet. */
  heldOn(uuid: string): number {
    let held = this.#left.on(uuid);
    for (const run of this.#runs) held += run.bookedOn(uuid);
    return held;
  }

  /** Bytes that are booked and that the reading of a GPU cannot show yet, since the engine is still loading. */
  notTakenOn(uuid: string): number {
    let bytes = 0;
    for (const run of this.#runs) bytes += run.notTakenOn(uuid);
    return bytes;
  }

  /** A simulated GPU is as full as its engines say: a simulator by its own word, others by what was booked for them. */
  simulatedUse(uuid: string): { readonly usedBytes: number; readonly processes: readonly GpuProcess[] } {
    let usedBytes = 0;
    const processes: GpuProcess[] = [];
    for (const run of this.#runs) {
      const pid = run.isOn(uuid) ? run.facts.pid() : null;
      if (pid === null) continue;
      const bytes = run.facts.simulatedBytes ?? run.expectedOn(uuid);
      usedBytes += bytes;
      if (run.facts.simulated) processes.push({ pid, usedBytes: bytes });
    }
    return { usedBytes, processes };
  }

  /**
   * Books what a start needs, or says why it cannot have it. Waits, at most some seconds, for memory that an engine that
   * has ended is giving back.
   */
  async claim(start: VramStart, signal: AbortSignal): Promise<VramClaim | Reason> {
    const { recipe, modelRef } = start;
    if (!recipe.spawns) return NOTHING;
    // One whose processes could not be ended then: what it still holds is seen on the GPU.
    for (const run of this.#runs) if (run.facts.replicaId === start.replicaId) this.#release(run, null);
    const plan = recipe.memory(modelRef);
    const estimates = await needOf(plan, start.devices());
    // What an earlier start left running is there, whatever stands in the way of another one.
    if ('code' in estimates && !start.inherited) return estimates;
    const known = 'code' in estimates ? [] : estimates;
    // A real engine is shown no simulated GPU: there is nothing to be learned from it.
    const key = start.gpuUuids.length === 0 ? null : peakKeyOf({ ...start, plan }, this.#deps.hash);
    const peaks = await this.#peaks(key, start.gpuUuids);
    for (;;) {
      const outcome = this.#book(start, key, known, peaks);
      if (!('code' in outcome)) return outcome;
      const { mayWait, ...refusal } = outcome;
      if (!mayWait || signal.aborted) return refusal;
      await delay(LOOK_EVERY_MS, signal);
    }
  }

  /** To be called after each reading of the GPUs. */
  look(): void {
    const readings = this.#deps.readings().filter(({ stale, health }) => !stale && health !== 'lost');
    for (const reading of readings) {
      const owned = this.#ownersIn(reading);
      for (const run of this.#runs) run.see(reading, owned.get(run.facts.replicaId) ?? []);
      this.#left.judge(reading, this.#runs);
    }
    for (const run of this.#runs) this.#keep(run, false);
  }

  /** An operator wants a replica tried once more, whatever became of it before. */
  forgive(replicaId: string): void {
    this.#ooms.forgive(replicaId);
  }

  /** Resolves when what was seen is written down. */
  settled(): Promise<void> {
    return this.#written;
  }

  /** Nothing is awaited between the look at what is free and the booking, so that two starts never count on the same. */
  #book(
    start: VramStart,
    key: VramPeakKey | null,
    estimates: readonly VramNeed[],
    peaks: ReadonlyMap<string, VramPeakRow>,
  ): VramClaim | (Reason & { readonly mayWait: boolean }) {
    const devices = start.devices();
    const unusable = firstUnusable(devices);
    if (unusable !== null && !start.inherited) return { ...unusable, mayWait: false };
    const readings = new Map(this.#deps.readings().map((reading) => [reading.gpu.uuid, reading]));
    const seen = devices.map(({ uuid, label }, at) =>
      needOfPeak(estimates[at] ?? null, peaks.get(uuid) ?? null, {
        label,
        simulated: readings.get(uuid)?.gpu.simulated === true,
      }),
    );
    const ooms = this.#ooms.against(key, devices);
    const needs = seen.map((need, at) => {
      const oom = ooms?.get(devices[at]?.uuid ?? '');
      return oom === undefined ? need : needAfterOom(need, oom);
    });
    // What an earlier start left running has its memory already.
    const refusal = start.inherited ? null : this.#refusal(start, devices, { seen, needs, ooms });
    if (refusal !== null) return refusal;
    return this.#enter(start, key, devices, { needs, expected: seen, readings });
  }

  #refusal(
    { replicaId }: VramStart,
    devices: readonly Device[],
    { seen, needs, ooms }: { seen: Needs; needs: Needs; ooms: ReadonlyMap<string, OutOfMemory> | null },
  ): (Reason & { readonly mayWait: boolean }) | null {
    const misfit = misfitOf(needs, devices);
    const left = this.#left.obstacle(replicaId, devices, misfit !== null);
    if (left !== null) return left;
    if (misfit === null) return null;
    // The cause is the earlier end, where the start would have been tried without it.
    const [oom] = ooms?.values() ?? [];
    const code = oom !== undefined && misfitOf(seen, devices) === null ? oom.fault : misfit.code;
    return { ...misfit, code, mayWait: this.#left.isExpectedOn(devices) };
  }

  #enter(
    start: VramStart,
    key: VramPeakKey | null,
    devices: readonly Device[],
    { needs, expected, readings }: { needs: Needs; expected: Needs; readings: ReadonlyMap<string, GpuReading> },
  ): VramClaim {
    const byDevice = (of: Needs): ReadonlyMap<string, number> =>
      new Map(
        devices.flatMap(({ uuid }, at) => {
          const bytes = of[at]?.totalBytes;
          return bytes === undefined ? [] : [[uuid, bytes] as const];
        }),
      );
    const { replicaId, poolId, isReady, pid, recipe } = start;
    const run = new VramRun({
      ...{ replicaId, poolId, key, isReady, pid, booked: byDevice(needs), expected: byDevice(expected) },
      claimedMs: this.#deps.clock.monotonicMs(),
      devices: devices.map(({ uuid, label, freeBytes }) => ({
        ...{ uuid, label, freeBytes },
        usedBytes: start.inherited ? null : (readings.get(uuid)?.memoryUsedBytes ?? null),
      })),
      simulated: recipe.simulated,
      simulatedBytes: simulatedBytesOf(start),
    });
    this.#crowd(run);
    this.#runs.add(run);
    return { held: run.facts.booked, release: (fault) => this.#release(run, fault) };
  }

  #release(run: VramRun, fault: string | null): void {
    if (!this.#runs.delete(run)) return;
    this.#crowd(run);
    this.#ooms.ended(run, fault);
    const simulated = new Set(this.#deps.readings().flatMap(({ gpu }) => (gpu.simulated ? [gpu.uuid] : [])));
    this.#left.add(run, simulated, this.#runs);
    this.#keep(run, true);
  }

  /** Where an engine begins or ends, a rise of what is used says nothing of the others that are loading. */
  #crowd(run: VramRun): void {
    for (const { uuid } of run.facts.devices) {
      for (const other of this.#runs) {
        if (!other.isOn(uuid)) continue;
        other.crowd(uuid);
        if (!other.facts.isReady()) run.crowd(uuid);
      }
      if (this.#left.on(uuid) > 0) run.crowd(uuid);
    }
  }

  #ownersIn({ processes }: GpuReading): ReadonlyMap<string, GpuProcess[]> {
    const owned = new Map<string, GpuProcess[]>();
    for (const process of processes ?? []) {
      const [nodeId, replicaId] = (readEnvironment(process.pid, markVariable) ?? '').split('/');
      if (nodeId !== this.#deps.nodeId || replicaId === undefined) continue;
      owned.set(replicaId, [...(owned.get(replicaId) ?? []), process]);
    }
    return owned;
  }

  async #peaks(key: VramPeakKey | null, uuids: readonly string[]): Promise<ReadonlyMap<string, VramPeakRow>> {
    if (key === null || uuids.length === 0) return new Map();
    const rows = await readVramPeaks(this.#deps.db, key, uuids).catch((error: unknown) => {
      this.#deps.telemetry.backgroundFailure('reading of vram peaks', error);
      return [];
    });
    return new Map(rows.map((row) => [row.gpuUuid, row]));
  }

  #keep(run: VramRun, atItsEnd: boolean): void {
    const { key } = run.facts;
    if (key === null) return;
    for (const { row, onLost } of run.takePeaks(atItsEnd)) {
      this.#written = this.#written
        .then(() => raiseVramPeak(this.#deps.db, key, row))
        .catch((error: unknown) => {
          onLost();
          this.#deps.telemetry.backgroundFailure('vram peak', error);
        });
    }
  }
}

type Needs = readonly (VramNeed | null)[];

/** Where a need is not known, whatever is free will do. */
function misfitOf(needs: Needs, devices: readonly Device[]): Reason | null {
  for (const [at, need] of needs.entries()) {
    const device = devices[at];
    const misfit = need === null || device === undefined ? null : firstMisfit([need], [device]);
    if (misfit !== null) return misfit;
  }
  return null;
}
