/**
 * The GPUs of this host as an operator sees them: what they are, how full, how well, and how old that knowledge is. Asks
 * NVML by its helper, or nvidia-smi where NVML does not work; simulated GPUs are computed.
 */

import {
  GPU_STALE_AFTER_MS,
  type Gpu,
  type GpuEvent,
  type GpuPoll,
  type GpuProcess,
  type GpuReading,
  NO_GAUGES,
} from '../../core/gpu.js';
import { type Clock, systemClock } from '../../runtime/clock.js';
import { type Inventory, inventoryOf } from '../gpus.js';
import { NvidiaSmi, type NvidiaSmiOptions } from './nvidiaSmi.js';
import { NvmlClient, type NvmlClientOptions, type NvmlStatus } from './nvmlClient.js';
import { GpuTracker } from './tracker.js';

type NvmlSettings = Omit<NvmlClientOptions, 'intervalMs' | 'onPoll' | 'onXid' | 'onStatus'>;

export type GpuSource =
  | { readonly kind: 'nvidia'; readonly nvml?: NvmlSettings; readonly nvidiaSmi?: NvidiaSmiOptions }
  | {
      readonly kind: 'simulated';
      readonly gpus: readonly Gpu[];
      /** Asked at each reading. */
      readonly use: (gpu: Gpu) => { readonly usedBytes: number; readonly processes: readonly GpuProcess[] };
    };

export interface GpuMonitorOptions {
  readonly source: GpuSource;
  readonly intervalMs?: number;
  readonly staleAfterMs?: number;
  /** How often NVML is opened anew while a GPU is lost, to see it come back. */
  readonly reopenMs?: number;
  /** Within this time `start` answers, whatever the driver does. */
  readonly startDeadlineMs?: number;
  /** Must not throw. */
  readonly onEvent: (event: GpuEvent) => void;
  /** There are new readings; for simulated GPUs, once in each interval. Must not throw. */
  readonly onReadings?: () => void;
  readonly clock?: Clock;
}

export interface GpuMonitorStatus {
  /** Where readings come from now; null: from nowhere, see the reason. */
  readonly source: 'nvml' | 'nvidia-smi' | 'simulated' | null;
  readonly reason: string | null;
  /** Why XIDs are not told; null: they are, as far as is known. */
  readonly xidsUnavailable: string | null;
}

type FailedPoll = Extract<GpuPoll, { ok: false }>;

const DEFAULT_INTERVAL_MS = 2000;
const DEFAULT_REOPEN_MS = 30_000;
const DEFAULT_START_DEADLINE_MS = 30_000;
const START_TIMEOUT: Inventory = {
  ok: false,
  message: 'the NVIDIA driver does not answer',
  fix: 'Check that `nvidia-smi` answers; look for an Xid in the kernel log (dmesg); reset the GPU or reboot the host.',
};
const CLOSED: Inventory = { ok: false, message: 'the GPU inventory is closed', fix: 'Start it before it is asked.' };

export class GpuMonitor {
  readonly #options: GpuMonitorOptions;
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #tracker: GpuTracker;
  readonly #nvml: NvmlClient | null;
  readonly #smi: NvidiaSmi | null;
  #timer: NodeJS.Timeout | null = null;
  #polling: Promise<void> | null = null;
  #smiFailure: string | null = null;
  #nvmlFailure: FailedPoll | null = null;
  #reopenedAtMs = 0;
  #started: Promise<Inventory> | null = null;
  /** Answers `start`; the first answer counts. */
  #decide: (inventory: Inventory) => void = () => {};
  #closed = false;

  constructor(options: GpuMonitorOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#intervalMs = options.intervalMs ?? DEFAULT_INTERVAL_MS;
    this.#tracker = new GpuTracker({
      clock: this.#clock,
      staleAfterMs: options.staleAfterMs ?? GPU_STALE_AFTER_MS,
      emit: (event) => options.onEvent(event),
    });
    const { source } = options;
    this.#smi = source.kind === 'nvidia' ? new NvidiaSmi(source.nvidiaSmi) : null;
    this.#nvml =
      source.kind !== 'nvidia'
        ? null
        : new NvmlClient({
            ...source.nvml,
            intervalMs: this.#intervalMs,
            onPoll: (poll) => this.#fromNvml(poll),
            onXid: (uuid, xid) => this.#tracker.xid(uuid, xid),
            onStatus: (status) => this.#nvmlChanged(status),
          });
  }

  /**
   * Begins to poll and answers with the GPUs of the first poll, or why there are none. Polling goes on either way until
   * `close`, so GPUs that appear later are read too. Safe to repeat.
   */
  start(): Promise<Inventory> {
    this.#started ??= this.#start();
    return this.#started;
  }

  readings(): readonly GpuReading[] {
    const { source } = this.#options;
    if (source.kind === 'simulated') {
      return source.gpus.map((gpu) => simulatedReading(gpu, source.use(gpu)));
    }
    return this.#tracker.readings();
  }

  status(): GpuMonitorStatus {
    if (this.#nvml === null) return { source: 'simulated', reason: null, xidsUnavailable: null };
    const { state, reason, xidsUnavailable } = this.#nvml.status;
    if (state === 'up') return { source: 'nvml', reason: null, xidsUnavailable };
    if (state !== 'unavailable' && state !== 'failing') return { source: null, reason, xidsUnavailable: reason };
    const withoutNvml = reason ?? 'NVML does not work';
    const source = this.#smiFailure === null ? 'nvidia-smi' : null;
    return { source, reason: this.#smiFailure ?? reason, xidsUnavailable: withoutNvml };
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#decide(CLOSED);
    this.#smi?.close();
    await this.#nvml?.close();
    await this.#polling;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #start(): Promise<Inventory> {
    const { source } = this.#options;
    if (this.#closed) return Promise.resolve(CLOSED);
    if (source.kind === 'simulated') {
      this.#timer = setInterval(() => this.#options.onReadings?.(), this.#intervalMs);
      return Promise.resolve({ ok: true, gpus: source.gpus });
    }
    this.#timer = setInterval(() => this.#tick(), this.#intervalMs);
    return new Promise((resolve) => {
      const deadlineMs = this.#options.startDeadlineMs ?? DEFAULT_START_DEADLINE_MS;
      const deadline = setTimeout(() => resolve(START_TIMEOUT), deadlineMs);
      this.#decide = (inventory) => {
        clearTimeout(deadline);
        resolve(inventory);
      };
      this.#nvml?.start();
    });
  }

  #tick(): void {
    this.#tracker.check();
    this.#reopenWhileLost();
    this.#pollSmi();
  }

  #fromNvml(poll: GpuPoll): void {
    // A failure is nvidia-smi's to confirm: the driver may be well and this library alone unfit.
    this.#nvmlFailure = poll.ok ? null : poll;
    if (!poll.ok) return;
    this.#tracker.apply(poll);
    this.#decide(inventoryOf(poll));
    this.#options.onReadings?.();
  }

  #nvmlChanged(status: NvmlStatus): void {
    if (status.state === 'hung' && status.reason !== null) {
      this.#tracker.fail(status.reason);
      // nvidia-smi would only hang as well, one process at each poll.
      this.#decide(START_TIMEOUT);
    }
    this.#pollSmi();
  }

  /** Single-flight, and only where NVML has said that it does not work. */
  #pollSmi(): void {
    const state = this.#nvml?.status.state;
    if (this.#closed || this.#smi === null || this.#polling !== null) return;
    if (state !== 'unavailable' && state !== 'failing') return;
    this.#polling = this.#smi.poll().then((poll) => {
      this.#polling = null;
      if (this.#closed) return;
      const agreed = withNvml(poll, this.#nvmlFailure);
      this.#smiFailure = agreed.ok ? null : agreed.message;
      // NVML came up meanwhile: its word is newer.
      if (this.#nvml?.status.state !== 'up') this.#tracker.apply(agreed);
      this.#decide(inventoryOf(agreed));
      if (agreed.ok) this.#options.onReadings?.();
    });
  }

  #reopenWhileLost(): void {
    const nowMs = this.#clock.monotonicMs();
    if (!this.#tracker.anyLost) {
      this.#reopenedAtMs = nowMs;
      return;
    }
    if (nowMs - this.#reopenedAtMs < (this.#options.reopenMs ?? DEFAULT_REOPEN_MS)) return;
    this.#reopenedAtMs = nowMs;
    this.#nvml?.reopen();
  }
}

/** Where both fail, both are named; a host can have NVML without nvidia-smi. */
function withNvml(poll: GpuPoll, nvml: FailedPoll | null): GpuPoll {
  if (poll.ok || nvml === null) return poll;
  const message = `${poll.message}; NVML: ${nvml.message}`;
  return { ...poll, message, driverGone: poll.driverGone || nvml.driverGone };
}

function simulatedReading(
  gpu: Gpu,
  use: { readonly usedBytes: number; readonly processes: readonly GpuProcess[] },
): GpuReading {
  const { processes } = use;
  const usedBytes = Math.min(gpu.memoryTotalBytes, Math.max(0, Math.round(use.usedBytes)));
  return {
    ...NO_GAUGES,
    gpu,
    memoryUsedBytes: usedBytes,
    memoryFreeBytes: gpu.memoryTotalBytes - usedBytes,
    processes,
    stale: false,
    ageMs: 0,
    lastXid: null,
    health: 'ok',
    reason: null,
  };
}
