/**
 * The metrics as a contract: what contracts/metrics.json says, made from the registry itself, so that neither can have a
 * name, a label or a bucket that the other lacks.
 */
import { LABEL_BUDGETS, OTHER } from './budget.js';
import type { Telemetry } from './events.js';
import { createMetrics, type Metrics } from './metrics.js';

type Event = keyof Telemetry;
/** Functions of `Telemetry`; `scrape` where it is measured anew for each answer. */
type MovedBy = readonly (Event | 'scrape')[];

const DEPTH: MovedBy = ['laneRead'];
const GPU: MovedBy = ['gpusRead'];

/** Which event moves what. A metric that is missing here does not compile. */
const MOVED_BY = {
  tasksEnqueued: ['admitted'],
  tasksStarted: ['started'],
  tasksCanceled: ['ended', 'endedInQueue'],
  tasksRejected: ['rejected'],
  tasksDropped: ['displaced'],
  requestsDenied: ['denied'],
  rateLimited: ['rejected'],
  queueDepth: DEPTH,
  firstToken: ['firstToken'],
  decode: ['ended'],
  tokensIn: ['ended'],
  tokensOut: ['ended'],
  backpressure: ['rejected', 'displaced'],
  placementDecisions: ['placed'],
  placementCandidates: ['placed'],
  taskVerifications: ['verified'],
  drainDuration: ['drained'],
  reloadDuration: ['reloaded'],
  reloadSuccess: ['reloaded'],
  reloadFailure: ['reloaded'],
  streamsDroppedByReload: ['ended', 'endedInQueue'],
  streamReaders: ['nodeRead'],
  activeLeases: ['nodeRead'],
  databaseConnections: ['nodeRead'],
  startQuoteError: ['quoteGraded'],
  startQuotes: ['quoteGraded', 'quoteWithheld'],
  replicaRestarts: ['restarted'],
  replicaPreloads: ['preloaded'],
  readinessTransitions: ['replicaChanged'],
  replicaReady: ['replicaChanged', 'replicaGone'],
  breakerState: ['replicaChanged', 'breakerChanged', 'replicaGone'],
  kvUsage: ['kvUsage', 'replicaChanged', 'replicaGone'],
  gpuUtilization: GPU,
  vramUsed: GPU,
  vramTotal: GPU,
  driverResets: ['gpuEvent'],
  xids: ['gpuEvent'],
  hostMemoryTotal: ['hostMemoryRead'],
  hostMemoryAvailable: ['hostMemoryRead'],
  modelState: ['modelStates'],
  catalogVerifications: ['modelVerified'],
  modelStagings: ['staged'],
  retentionRemoved: ['forgotten'],
} satisfies Record<Exclude<keyof Metrics, 'registry'>, MovedBy>;

/** Of the process, by prom-client; their labels have the values that Node has. */
const NODE_LABELS = { type: 64, space: 16, kind: 8, version: 1, major: 1, minor: 1, patch: 1 };

export interface MetricRow {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  /** Most values that each label has, `other` included. */
  readonly labels: Readonly<Record<string, number>>;
  readonly buckets?: readonly number[];
  readonly moved_by: readonly string[];
}

/** What prom-client keeps of a metric and does not type. */
interface Registered {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly labelNames: readonly string[];
  readonly upperBounds?: readonly number[];
}

function budgetsOf(labels: readonly string[]): Record<string, number> {
  const budgets = new Map<string, number>(Object.entries(NODE_LABELS));
  for (const [name, { values }] of Object.entries(LABEL_BUDGETS)) budgets.set(name, values);
  return Object.fromEntries(
    labels.map((label) => {
      const budget = budgets.get(label);
      if (budget === undefined) throw new Error(`the label ${label} has no budget in telemetry/budget`);
      return [label, budget];
    }),
  );
}

function rowOf(metric: Registered, movedBy: readonly string[]): MetricRow {
  const { name, type, help, labelNames, upperBounds } = metric;
  return {
    name,
    type,
    help,
    labels: budgetsOf(labelNames),
    ...(upperBounds !== undefined && { buckets: upperBounds }),
    moved_by: movedBy,
  };
}

/** Every metric by name, sorted; those of the process are moved by a scrape. */
export function metricsContract(): { readonly other: string; readonly metrics: readonly MetricRow[] } {
  const { registry, ...ours } = createMetrics();
  const events = new Map<unknown, readonly string[]>();
  for (const [key, metric] of Object.entries(ours)) events.set(metric, MOVED_BY[key as keyof typeof MOVED_BY]);
  const rows = registry
    .getMetricsAsArray()
    .map((metric) => rowOf(metric as unknown as Registered, events.get(metric) ?? ['scrape']));
  const byName = (a: MetricRow, b: MetricRow) => (a.name < b.name ? -1 : 1);
  return { other: OTHER, metrics: rows.sort(byName) };
}
