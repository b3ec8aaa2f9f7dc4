/** What happens to models of the catalog, and what retention removes. */
import type { Registry } from 'prom-client';
import { Counter, Gauge } from './instruments.js';

export function createCatalogMetrics(registry: Registry) {
  const registers = [registry];
  return {
    modelState: new Gauge({
      name: 'model_state',
      help: '1 for the state that a model of the catalog is in.',
      labelNames: ['model_id', 'state'] as const,
      registers,
    }),
    catalogVerifications: new Counter({
      name: 'catalog_verifications_total',
      help: 'Verifications of catalog models, by result and the worst of its reasons; engine is that of a pool that serves it.',
      labelNames: ['result', 'reason', 'engine'] as const,
      registers,
    }),
    modelStagings: new Counter({
      name: 'model_stagings_total',
      help: 'Models brought into the cache of this node, or not, by how it ended.',
      labelNames: ['result'] as const,
      registers,
    }),
    retentionRemoved: new Counter({
      name: 'retention_removed_total',
      help: 'Rows that retention removed, by kind.',
      labelNames: ['kind'] as const,
      registers,
    }),
  };
}
