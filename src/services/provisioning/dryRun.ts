/** What would be done for a pool, and everything that is known to stand in its way; opens no socket, starts nothing. */
import { existsSync } from 'node:fs';
import type { PoolConfig } from '../../config/schema.js';
import type { ProvisionPlan } from '../../core/provision/plan.js';
import { filesObstacle } from '../supervision/recipe.js';
import { type ProvisionEnvironment, shownPlan } from './plan.js';

export async function dryRun(pool: PoolConfig, env: ProvisionEnvironment): Promise<ProvisionPlan> {
  const plan = await shownPlan(pool, env);
  const spawns = pool.provisioning.mode !== 'external' && pool.provisioning.mode !== 'simulated';
  const missing = spawns ? filesObstacle(pool, { ...env, fileExists: existsSync }, pool.model) : null;
  return missing === null ? plan : { ...plan, obstacles: [missing, ...plan.obstacles] };
}
