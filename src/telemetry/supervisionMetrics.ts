/** What supervision counts and measures: replicas, GPUs and the memory of the host. */
import type { Registry } from 'prom-client';
import { Counter, Gauge } from './instruments.js';

const ENGINE_LABELS = ['engine', 'engine_version', 'pool_id', 'replica_id'] as const;
/** A replica from its first start on; before it is ready nobody knows the version of its engine. */
const REPLICA_LABELS = ['engine', 'pool_id', 'replica_id'] as const;

export function createSupervisionMetrics(registry: Registry) {
  return { ...replicaMetrics(registry), ...gpuMetrics(registry), ...hostMetrics(registry) };
}

function replicaMetrics(registry: Registry) {
  const registers = [registry];
  return {
    replicaRestarts: new Counter({
      name: 'replica_restarts_total',
      help: 'Restarts after an exit nobody asked for.',
      labelNames: REPLICA_LABELS,
      registers,
    }),
    replicaPreloads: new Counter({
      name: 'replica_preload_total',
      help: 'Preloads: passed every gate, failed at one, or refused before a process was started.',
      labelNames: [...REPLICA_LABELS, 'outcome'] as const,
      registers,
    }),
    readinessTransitions: new Counter({
      name: 'replica_readiness_transitions_total',
      help: 'How often a replica became ready, or stopped being so.',
      labelNames: [...REPLICA_LABELS, 'state'] as const,
      registers,
    }),
    replicaReady: new Gauge({
      name: 'replica_ready',
      help: '1: it serves; 0: it does not.',
      labelNames: REPLICA_LABELS,
      registers,
    }),
    breakerState: new Gauge({
      name: 'replica_breaker_state',
      help: 'Circuit breaker of its restarts: 0 closed, 1 half-open, 2 open.',
      labelNames: REPLICA_LABELS,
      registers,
    }),
    kvUsage: new Gauge({
      name: 'kv_cache_usage_ratio',
      help: 'Share of its KV cache that is in use, 0 to 1, by its last heartbeat.',
      labelNames: ENGINE_LABELS,
      registers,
    }),
  };
}

function gpuMetrics(registry: Registry) {
  const registers = [registry];
  const deviceLabels = [...ENGINE_LABELS, 'device'] as const;
  return {
    gpuUtilization: new Gauge({
      name: 'gpu_utilization',
      help: 'Share of time with work on the device, percent; told for each replica on it.',
      labelNames: deviceLabels,
      registers,
    }),
    vramUsed: new Gauge({
      name: 'vram_used_bytes',
      help: 'VRAM booked for a replica; without a replica: what else is in use on the device.',
      labelNames: deviceLabels,
      registers,
    }),
    vramTotal: new Gauge({
      name: 'vram_total_bytes',
      help: 'VRAM that a device has.',
      labelNames: ['device'] as const,
      registers,
    }),
    driverResets: new Counter({
      name: 'gpu_driver_resets_total',
      help: 'How often the GPU driver, or a GPU, began anew.',
      registers,
    }),
    xids: new Counter({
      name: 'gpu_xid_total',
      help: 'Errors that the GPU driver reported, by what they mean for the work on the GPU.',
      labelNames: ['class'] as const,
      registers,
    }),
  };
}

function hostMetrics(registry: Registry) {
  const registers = [registry];
  return {
    hostMemoryTotal: new Gauge({
      name: 'host_memory_total_bytes',
      help: 'Memory of the host, or what its control group allows.',
      registers,
    }),
    hostMemoryAvailable: new Gauge({
      name: 'host_memory_available_bytes',
      help: 'How much of it is left.',
      registers,
    }),
  };
}
