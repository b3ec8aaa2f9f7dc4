/** A pool as the configuration wants it. */
import type { PoolConfig } from '../../config/schema.js';
import type { Gpu } from '../../host/gpus.js';
import type { PoolDesired } from '../../store/pools.js';

export function desiredPool(
  config: PoolConfig,
  facts: {
    readonly gpus: readonly Gpu[];
    readonly simulatedEngine: boolean;
    readonly hash: (text: string) => string;
  },
): PoolDesired {
  const capacityOf = (name: 'interactive' | 'batch') =>
    config.admission.priorities?.find((priority) => priority.name === name)?.queue_capacity ?? config.queue.capacity;
  const simulatedGpu = facts.gpus.some((gpu) => gpu.simulated && config.devices.includes(gpu.index));
  return {
    id: config.id,
    engine: config.engine,
    modelRef: config.model,
    contextLength: config.ctx,
    deviceMask: config.devices.join(','),
    quant: config.quant ?? null,
    samplerProfileVersion: config.sampler_profile_version ?? null,
    slotsPerReplica: config.slots,
    fullPolicy: config.queue.full_policy,
    simulated: facts.simulatedEngine || simulatedGpu,
    configHash: facts.hash(JSON.stringify(config)),
    capacity: {
      interactive: capacityOf('interactive'),
      batch: capacityOf('batch'),
      total: config.queue.capacity,
    },
  };
}
