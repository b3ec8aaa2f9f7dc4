/** How start quotes do against the waits that come. */
import type { Registry } from 'prom-client';
import { Counter, Histogram } from './instruments.js';

const LANE_LABELS = ['engine', 'pool_id', 'priority'] as const;
const ERROR_BUCKETS_MS = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000];

export function createQuoteMetrics(registry: Registry) {
  const registers = [registry];
  return {
    startQuoteError: new Histogram({
      name: 'start_quote_error_ms',
      help: 'Distance of the quoted median start from the one that came, either way.',
      labelNames: LANE_LABELS,
      buckets: ERROR_BUCKETS_MS,
      registers,
    }),
    startQuotes: new Counter({
      name: 'start_quotes_total',
      help: 'Tasks started, by how their quote did: within_p50, within_p90, over_p90, or withheld for thin data.',
      labelNames: [...LANE_LABELS, 'verdict'] as const,
      registers,
    }),
  };
}
