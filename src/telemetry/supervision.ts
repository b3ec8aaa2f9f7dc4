/** The business events of supervision: what happens to replicas, GPUs and the host. As in `events`, one function each. */
import type { Engine } from '../core/errors.js';
import type { GpuEvent } from '../core/gpu.js';
import type { Logger } from './log.js';
import type { Metrics } from './metrics.js';

export interface ReplicaFacts {
  readonly id: string;
  readonly poolId: string;
  readonly engine: Engine;
}

/** A GPU of this host, and who uses it. */
export interface DeviceUse {
  /** Its index on the host, as device masks have it. */
  readonly device: string;
  readonly totalBytes: number;
  /** In use beyond what is booked for replicas; null: not known. */
  readonly otherBytes: number | null;
  readonly utilizationPercent: number | null;
  readonly replicas: readonly (ReplicaFacts & {
    readonly engineVersion: string | null;
    /** Booked for it on this GPU. */
    readonly heldBytes: number;
  })[];
}

const BREAKER_VALUES = { CLOSED: 0, HALF_OPEN: 1, OPEN: 2 } as const;

function inWords(state: string): string {
  return state.toLowerCase().replaceAll('_', ' ');
}

function replicaLabels({ engine, poolId, id }: ReplicaFacts) {
  return { engine, pool_id: poolId, replica_id: id };
}

export class SupervisionTelemetry {
  readonly log: Logger;
  readonly metrics: Metrics;
  /** The labels under which the KV usage of a replica is told; the version among them changes. */
  readonly #kvLabels = new Map<string, ReturnType<typeof replicaLabels> & { engine_version: string }>();
  readonly #beforeScrape: (() => void)[] = [];

  constructor(log: Logger, metrics: Metrics) {
    this.log = log;
    this.metrics = metrics;
  }

  /** Calls `measure` before each scrape, to set what is only known by looking. */
  measuredBy(measure: () => void): void {
    this.#beforeScrape.push(measure);
  }

  /** The metrics as Prometheus reads them. */
  scrape(): Promise<string> {
    for (const measure of this.#beforeScrape) {
      try {
        measure();
      } catch (error) {
        this.backgroundFailure('measure', error);
      }
    }
    return this.metrics.registry.metrics();
  }

  replicaChanged(replica: ReplicaFacts, change: { from: string; to: string; message: string }): void {
    const labels = replicaLabels(replica);
    const ready = change.to === 'READY';
    this.metrics.replicaReady.set(labels, Number(ready));
    // Closed until something is said of it.
    this.metrics.breakerState.inc(labels, 0);
    if (!ready) this.kvUsage(replica, null, null);
    if (ready !== (change.from === 'READY')) {
      this.metrics.readinessTransitions.inc({ ...labels, state: ready ? 'ready' : 'unready' });
    }
    this.log.info(
      {
        ...{ replica_id: replica.id, pool_id: replica.poolId, engine: replica.engine, ...change },
        human: ready ? 'A replica is ready.' : `A replica is ${inWords(change.to)}; it was ${inWords(change.from)}.`,
      },
      'replica state',
    );
  }

  restarted(replica: ReplicaFacts): void {
    this.metrics.replicaRestarts.inc(replicaLabels(replica));
  }

  /** @param outcome `refused`: no process was started. */
  preloaded(replica: ReplicaFacts, outcome: 'passed' | 'failed' | 'refused', durationMs: number): void {
    this.metrics.replicaPreloads.inc({ ...replicaLabels(replica), outcome });
    this.log[outcome === 'passed' ? 'info' : 'warn'](
      {
        replica_id: replica.id,
        pool_id: replica.poolId,
        engine: replica.engine,
        outcome,
        duration_ms: Math.round(durationMs),
        human: `The preload of a replica ${outcome === 'refused' ? 'was refused' : outcome} after ${Math.round(durationMs)} ms.`,
      },
      'replica preload',
    );
  }

  breakerChanged(replica: ReplicaFacts, state: 'CLOSED' | 'HALF_OPEN' | 'OPEN'): void {
    this.metrics.breakerState.set(replicaLabels(replica), BREAKER_VALUES[state]);
    this.log.info(
      {
        replica_id: replica.id,
        pool_id: replica.poolId,
        engine: replica.engine,
        breaker: state,
        human: `The circuit breaker of a replica is ${state === 'HALF_OPEN' ? 'half-open' : state.toLowerCase()} now.`,
      },
      'replica breaker',
    );
  }

  /** @param ratio share of its KV cache that is in use, 0 to 1; null: its engine does not tell. */
  kvUsage(replica: ReplicaFacts, engineVersion: string | null, ratio: number | null): void {
    const known = ratio !== null && Number.isFinite(ratio);
    const before = this.#kvLabels.get(replica.id);
    if (before !== undefined && (!known || before.engine_version !== (engineVersion ?? ''))) {
      this.metrics.kvUsage.remove(before);
      this.#kvLabels.delete(replica.id);
    }
    if (!known) return;
    const labels = { ...replicaLabels(replica), engine_version: engineVersion ?? '' };
    this.#kvLabels.set(replica.id, labels);
    this.metrics.kvUsage.set(labels, Math.min(1, Math.max(0, ratio)));
  }

  /** It does not exist any more: nothing tells of its present state. What it did stays counted. */
  replicaGone(replica: ReplicaFacts): void {
    const labels = replicaLabels(replica);
    this.metrics.replicaReady.remove(labels);
    this.metrics.breakerState.remove(labels);
    this.kvUsage(replica, null, null);
  }

  /** What the GPUs of this host are used for now; says everything, so that what is not said any more is forgotten. */
  gpusRead(devices: readonly DeviceUse[]): void {
    const { gpuUtilization, vramUsed, vramTotal } = this.metrics;
    for (const gauge of [gpuUtilization, vramUsed, vramTotal]) gauge.reset();
    for (const { device, totalBytes, otherBytes, utilizationPercent, replicas } of devices) {
      vramTotal.set({ device }, totalBytes);
      const nobody = { engine: '', engine_version: '', pool_id: '', replica_id: '', device };
      if (otherBytes !== null) vramUsed.set(nobody, otherBytes);
      if (utilizationPercent !== null && replicas.length === 0) gpuUtilization.set(nobody, utilizationPercent);
      for (const { engineVersion, heldBytes, ...replica } of replicas) {
        const labels = { ...replicaLabels(replica), engine_version: engineVersion ?? '', device };
        vramUsed.set(labels, heldBytes);
        if (utilizationPercent !== null) gpuUtilization.set(labels, utilizationPercent);
      }
    }
  }

  hostMemoryRead(memory: { readonly totalBytes: number; readonly availableBytes: number }): void {
    this.metrics.hostMemoryTotal.set(memory.totalBytes);
    this.metrics.hostMemoryAvailable.set(memory.availableBytes);
  }

  gpuEvent(event: GpuEvent, message: string): void {
    if (event.type === 'driver_reset') this.metrics.driverResets.inc();
    if (event.type === 'xid') this.metrics.xids.inc({ class: event.class });
    this.log.warn({ gpu_event: event, human: message }, 'gpu event');
  }

  /** Something failed that has no caller to tell: a reconciler run, a flush. It is retried; the log says so. */
  backgroundFailure(name: string, error: unknown): void {
    this.log.warn({ task: name, err: error }, 'background work failed and will be retried');
  }
}
