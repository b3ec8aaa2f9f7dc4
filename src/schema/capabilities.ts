/** What this control plane can do, for clients that adapt to it. */
import type { EngineCapability, PoolCapability } from '../services/pools.js';
import { builder } from './builder.js';
import { Engine, Workload } from './enums.js';

const PoolCapabilities = builder.objectRef<PoolCapability>('PoolCapabilities').implement({
  description: 'What one pool offers.',
  fields: (t) => ({
    pool: t.exposeString('poolId', { description: 'Its name.' }),
    workloads: t.field({
      type: [Workload],
      description: 'What its engines take, or may take as long as none of them has been tried.',
      resolve: ({ workloads }) => [...workloads],
    }),
  }),
});

const EngineCapabilities = builder.objectRef<EngineCapability>('EngineCapabilities').implement({
  description: 'What one kind of engine offers here, over all of its pools.',
  fields: (t) => ({
    engine: t.field({ type: Engine, description: 'The engine.', resolve: (capability) => capability.engine }),
    contextMax: t.exposeInt('contextMax', { description: 'The longest context that any pool offers, in tokens.' }),
    workloads: t.field({
      type: [Workload],
      description: 'What it can be asked for, in some pool.',
      resolve: ({ workloads }) => [...workloads],
    }),
    pools: t.field({
      type: [PoolCapabilities],
      description: 'What each of its pools can be asked for.',
      complexity: { field: 1, multiplier: 5 },
      resolve: ({ pools }) => [...pools],
    }),
    concurrency: t.exposeInt('concurrency', { description: 'How many tasks run at once, in all pools.' }),
  }),
});

const Capabilities = builder.objectRef<{ readonly engines: readonly EngineCapability[] }>('Capabilities').implement({
  description: 'What this control plane can do.',
  fields: (t) => ({
    engines: t.field({
      type: [EngineCapabilities],
      description: 'One per kind of engine that a pool runs.',
      complexity: { field: 1, multiplier: 4 },
      resolve: ({ engines }) => [...engines],
    }),
  }),
});

builder.queryField('capabilities', (t) =>
  t.field({
    type: Capabilities,
    description: 'What this control plane can do.',
    resolve: (_root, _args, { services }) => ({ engines: services.pools.capabilities() }),
  }),
);
