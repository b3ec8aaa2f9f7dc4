/** Polls and XIDs in, readings and events out: the last good word about each GPU, and how old it is. */

import {
  type Gpu,
  type GpuEvent,
  type GpuPoll,
  type GpuReading,
  type GpuSample,
  healthOf,
  isStale,
  type LostGpu,
  NO_GAUGES,
} from '../../core/gpu.js';
import type { Clock } from '../../runtime/clock.js';
import { XidHistory } from './xid.js';

/** Ever seen, the lost included. A driver that makes up new uuids must not fill memory. */
const MAX_GPUS = 256;

interface Entry {
  gpu: Gpu;
  sample: GpuSample;
  sampledAtMs: number;
  lost: string | null;
  toldStale: boolean;
  readonly xids: XidHistory;
}

type GoodPoll = Extract<GpuPoll, { ok: true }>;

export class GpuTracker {
  readonly #entries = new Map<string, Entry>();
  readonly #clock: Clock;
  readonly #staleAfterMs: number;
  readonly #emit: (event: GpuEvent) => void;
  #lastFailure: string | null = null;
  #driverGone: string | null = null;

  constructor(options: {
    readonly clock: Clock;
    readonly staleAfterMs: number;
    readonly emit: (event: GpuEvent) => void;
  }) {
    this.#clock = options.clock;
    this.#staleAfterMs = options.staleAfterMs;
    this.#emit = options.emit;
  }

  get anyLost(): boolean {
    return [...this.#entries.values()].some((entry) => entry.lost !== null);
  }

  apply(poll: GpuPoll): void {
    if (poll.ok) return this.#applyGood(poll);
    this.fail(poll.message);
    if (poll.driverGone) this.#driverGone = poll.message;
  }

  /** No poll came, and why: the reason shown once the readings are stale. */
  fail(reason: string): void {
    this.#lastFailure = reason;
  }

  xid(uuid: string | null, xid: number): void {
    const history = (uuid === null ? undefined : this.#entries.get(uuid)?.xids) ?? new XidHistory(this.#clock);
    this.#emit({ type: 'xid', uuid, ...history.record(xid) });
  }

  /** Tells of readings that have just become stale. To be called now and then. */
  check(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [uuid, entry] of this.#entries) {
      const ageMs = nowMs - entry.sampledAtMs;
      if (entry.lost !== null || entry.toldStale || !isStale(ageMs, this.#staleAfterMs)) continue;
      entry.toldStale = true;
      this.#emit({ type: 'stale', uuid, ageMs, reason: this.#lastFailure ?? 'the last polls did not tell of it' });
    }
  }

  /** In the order of their indexes. Stale is decided here and now, not at the last check. */
  readings(): readonly GpuReading[] {
    const nowMs = this.#clock.monotonicMs();
    return [...this.#entries.values()]
      .sort((left, right) => left.gpu.index - right.gpu.index)
      .map((entry) => this.#reading(entry, nowMs));
  }

  #reading(entry: Entry, nowMs: number): GpuReading {
    const ageMs = Math.max(0, Math.round(nowMs - entry.sampledAtMs));
    const stale = isStale(ageMs, this.#staleAfterMs);
    const { eccUncorrected } = entry.sample;
    const { health, reason } = healthOf({ lost: entry.lost, needsRepair: entry.xids.needsRepair, eccUncorrected });
    const { uuid: _uuid, index: _index, name: _name, memoryTotalBytes: _total, ...gauges } = entry.sample;
    return {
      ...NO_GAUGES,
      ...gauges,
      gpu: entry.gpu,
      stale,
      ageMs,
      lastXid: entry.xids.last,
      health,
      reason: reason ?? (stale ? this.#lastFailure : null),
    };
  }

  #applyGood(poll: GoodPoll): void {
    const returned = this.#driverGone;
    this.#driverGone = null;
    this.#lastFailure = null;
    for (const sample of poll.samples) this.#take(sample, returned !== null);
    this.#markLost(poll);
    if (returned === null) return;
    const uuids = poll.samples.map((sample) => sample.uuid);
    this.#emit({ type: 'driver_reset', uuids, reason: `the driver is back after: ${returned}` });
  }

  #take(sample: GpuSample, driverReturned: boolean): void {
    const { uuid } = sample;
    const entry = this.#entries.get(uuid);
    const gpu = gpuOf(sample, entry?.gpu);
    if (gpu === null) return;
    if (entry === undefined) return this.#add(gpu, sample);
    const eccBefore = entry.sample.eccUncorrected ?? 0;
    const wasLost = entry.lost !== null;
    Object.assign(entry, { gpu, sample, sampledAtMs: this.#clock.monotonicMs(), lost: null });
    if (wasLost) this.#emit({ type: 'recovered', uuid, from: 'lost' });
    else if (entry.toldStale) this.#emit({ type: 'recovered', uuid, from: 'stale' });
    entry.toldStale = false;
    // The count starts again only when the GPU does.
    const countFell = sample.eccUncorrected !== null && sample.eccUncorrected < eccBefore;
    // A GPU that was lost answers again only after it was reset.
    if (wasLost || countFell || driverReturned) entry.xids.forgive();
    if (!countFell || driverReturned) return;
    this.#emit({ type: 'driver_reset', uuids: [uuid], reason: 'its count of memory errors began anew' });
  }

  #add(gpu: Gpu, sample: GpuSample): void {
    if (this.#entries.size >= MAX_GPUS) return;
    const sampledAtMs = this.#clock.monotonicMs();
    const xids = new XidHistory(this.#clock);
    this.#entries.set(gpu.uuid, { gpu, sample, sampledAtMs, lost: null, toldStale: false, xids });
  }

  #markLost(poll: GoodPoll): void {
    const listed = new Set(poll.samples.map((sample) => sample.uuid));
    for (const [uuid, entry] of this.#entries) {
      if (listed.has(uuid) || entry.lost !== null) continue;
      const reason = reasonFor(entry.gpu, poll.lost) ?? (poll.complete ? 'the driver does not list it any more' : null);
      if (reason === null) continue;
      entry.lost = reason;
      this.#emit({ type: 'lost', uuid, reason });
    }
  }
}

/** What broke a GPU; one without a uuid is known by its index, as long as the index has not moved. */
function reasonFor(gpu: Gpu, lost: readonly LostGpu[]): string | null {
  const match =
    lost.find((one) => one.uuid === gpu.uuid) ?? lost.find((one) => one.uuid === null && one.index === gpu.index);
  return match?.reason ?? null;
}

/** null: nobody ever said how much memory it has, so nothing can be placed on it. */
function gpuOf(sample: GpuSample, before: Gpu | undefined): Gpu | null {
  const memoryTotalBytes = sample.memoryTotalBytes ?? before?.memoryTotalBytes ?? null;
  if (memoryTotalBytes === null) return null;
  return { uuid: sample.uuid, index: sample.index, name: sample.name, memoryTotalBytes, simulated: false };
}
