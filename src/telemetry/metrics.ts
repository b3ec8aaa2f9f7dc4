/** The Prometheus registry. Names, types and labels are a contract with dashboards; labels come from closed sets only. */
import { collectDefaultMetrics, Registry } from 'prom-client';
import { createCatalogMetrics } from './catalogMetrics.js';
import { Counter, Gauge, Histogram } from './instruments.js';
import { createQuoteMetrics } from './quoteMetrics.js';
import { createSupervisionMetrics } from './supervisionMetrics.js';

const REPLICA_LABELS = ['engine', 'engine_version', 'pool_id', 'replica_id'] as const;
const POOL_LABELS = ['engine', 'engine_version', 'pool_id', 'priority'] as const;
const OPERATION_LABELS = ['engine', 'pool_id'] as const;
const FIRST_TOKEN_BUCKETS_MS = [50, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000];
const DECODE_BUCKETS_MS = [250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000];
const OPERATION_BUCKETS_MS = [100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000];

export function createMetrics() {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const replicaCounter = (name: string, help: string) =>
    new Counter({ name, help, labelNames: REPLICA_LABELS, registers });
  const operationCounter = (name: string, help: string) =>
    new Counter({ name, help, labelNames: OPERATION_LABELS, registers });
  const taskLabels = [...REPLICA_LABELS, 'priority'] as const;
  return {
    registry,
    ...createSupervisionMetrics(registry),
    ...createQuoteMetrics(registry),
    ...createCatalogMetrics(registry),
    tasksEnqueued: new Counter({
      name: 'tasks_enqueued_total',
      help: 'Tasks admitted to a queue.',
      labelNames: taskLabels,
      registers,
    }),
    tasksStarted: new Counter({
      name: 'tasks_started_total',
      help: 'Leases granted to tasks.',
      labelNames: taskLabels,
      registers,
    }),
    tasksCanceled: new Counter({
      name: 'tasks_canceled_total',
      help: 'Tasks ended by a cancel.',
      labelNames: [...REPLICA_LABELS, 'reason'] as const,
      registers,
    }),
    tasksRejected: new Counter({
      name: 'tasks_rejected_total',
      help: 'Submissions refused, by error code.',
      labelNames: ['engine', 'reason'] as const,
      registers,
    }),
    tasksDropped: new Counter({
      name: 'tasks_dropped_total',
      help: 'Waiting tasks ended to make room for newer ones.',
      labelNames: ['engine', 'pool_id', 'priority', 'policy'] as const,
      registers,
    }),
    requestsDenied: new Counter({
      name: 'requests_denied_total',
      help: 'Requests and sockets turned away for their host, origin, token or form.',
      labelNames: ['reason'] as const,
      registers,
    }),
    rateLimited: new Counter({
      name: 'tasks_rate_limited_total',
      help: 'Submissions refused because their caller came too often.',
      labelNames: ['engine', 'priority'] as const,
      registers,
    }),
    queueDepth: new Gauge({ name: 'queue_depth', help: 'Tasks waiting.', labelNames: POOL_LABELS, registers }),
    firstToken: new Histogram({
      name: 'latency_first_token_ms',
      help: 'From the lease to the first token.',
      labelNames: POOL_LABELS,
      buckets: FIRST_TOKEN_BUCKETS_MS,
      registers,
    }),
    decode: new Histogram({
      name: 'latency_decode_ms',
      help: 'From the first token to the last.',
      labelNames: POOL_LABELS,
      buckets: DECODE_BUCKETS_MS,
      registers,
    }),
    tokensIn: replicaCounter('tokens_in_total', 'Prompt tokens.'),
    tokensOut: replicaCounter('tokens_out_total', 'Generated tokens.'),
    backpressure: new Counter({
      name: 'admission_backpressure_events_total',
      help: 'Submissions that met a full queue.',
      labelNames: ['engine', 'policy'] as const,
      registers,
    }),
    placementDecisions: new Counter({
      name: 'placement_decisions_total',
      help: 'Placements decided.',
      labelNames: ['outcome', 'pinned', 'fallback'] as const,
      registers,
    }),
    placementCandidates: new Gauge({
      name: 'placement_candidates_considered',
      help: 'Candidates of the last placement.',
      registers,
    }),
    taskVerifications: new Counter({
      name: 'task_verifications_total',
      help: 'Tasks that were run again and compared, by verdict.',
      labelNames: [...OPERATION_LABELS, 'result'] as const,
      registers,
    }),
    drainDuration: new Histogram({
      name: 'drain_duration_ms',
      help: 'From refusing leases to the last task gone; drains of reloads are counted too.',
      labelNames: OPERATION_LABELS,
      buckets: OPERATION_BUCKETS_MS,
      registers,
    }),
    reloadDuration: new Histogram({
      name: 'reload_duration_ms',
      help: 'Reloads that changed or tried to change the model, from begin to end.',
      labelNames: OPERATION_LABELS,
      buckets: OPERATION_BUCKETS_MS,
      registers,
    }),
    reloadSuccess: operationCounter('reload_success_total', 'Reloads after which the new model serves.'),
    reloadFailure: new Counter({
      name: 'reload_failure_total',
      help: 'Reloads after which it does not, by the code of the reason.',
      labelNames: [...OPERATION_LABELS, 'reason'] as const,
      registers,
    }),
    streamsDroppedByReload: operationCounter(
      'streams_dropped_by_reload_total',
      'Streams that a reload stopped and that ended with an error for it.',
    ),
    streamReaders: new Gauge({ name: 'stream_readers', help: 'Readers of task streams.', registers }),
    activeLeases: new Gauge({ name: 'active_leases', help: 'Leases held by this node.', registers }),
    databaseConnections: new Gauge({
      name: 'database_connections',
      help: 'Connections to the database, by pool (main, relaxed, lease) and state (taken, idle).',
      labelNames: ['kind', 'state'] as const,
      registers,
    }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;
