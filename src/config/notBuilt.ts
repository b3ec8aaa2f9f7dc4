/** Settings that a file may carry already and that nothing obeys yet: said at every start, so that nobody relies on them. */
import type { Config, PoolConfig } from './schema.js';

function ofPool(pool: PoolConfig): string[] {
  const notes: string[] = [];
  const path = `pools.${pool.id}`;
  for (const priority of pool.admission.priorities ?? []) {
    if (priority.weight === undefined) continue;
    notes.push(`${path}.admission.priorities.${priority.name}.weight: is not built yet; interactive goes before batch`);
  }
  const { mode, model, ports } = pool.provisioning;
  if (pool.quant !== undefined) notes.push(`${path}.quant: is a note to the reader; the file of the model decides`);
  if (ports.length > 0) notes.push(`${path}.provisioning.ports: are not built yet; engines get free ports of loopback`);
  if (model?.cache_dir !== undefined) {
    notes.push(`${path}.provisioning.model.cache_dir: is not built yet; models are staged into the data directory`);
  }
  if (mode === 'external' && model?.checksum !== undefined) {
    notes.push(
      `${path}.provisioning.model.checksum: has no effect in mode external; the engine's model is not ours to read`,
    );
  }
  if (pool.tensor_split !== undefined && pool.engine !== 'llamacpp') {
    notes.push(`${path}.tensor_split: is passed to llama.cpp alone; of ${pool.engine} use provisioning.flags`);
  }
  return notes;
}

/** One plain sentence each, with the path of the setting. */
export function notBuiltYet(config: Config): string[] {
  const notes = config.pools.flatMap(ofPool);
  const { trust_policy: trust } = config.catalog;
  if (trust.require_signature) {
    notes.push(
      trust.mode === 'strict'
        ? 'catalog.trust_policy.require_signature: refuses every model, since llama-orch does not verify signatures yet'
        : 'catalog.trust_policy.require_signature: has no effect but under mode strict',
    );
  }
  if (trust.ca_roots.length > 0) {
    notes.push('catalog.trust_policy.ca_roots: are recorded; no signature is verified against them yet');
  }
  const { cost, price_per_1k_tokens: price } = config.budgets;
  const isFree = price === undefined && config.pools.every((pool) => pool.price_per_1k_tokens === undefined);
  if (cost !== undefined && isFree) {
    notes.push('budgets.cost: has no effect without a price; set budgets.price_per_1k_tokens, or that of a pool');
  }
  return notes;
}
