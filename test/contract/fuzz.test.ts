import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fuzzContract } from '../support/contractFuzz.js';
import { LONG } from '../support/long.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const RUNS = LONG ? 5_000 : 250;

let world: World;
beforeAll(async () => {
  const config = simConfig({ tokensPerSecond: 500, replicas: 1 });
  const [, pool = ''] = config.split('pools:\n');
  world = await startWorld({
    config: `${config}${pool.replace('id: sim', 'id: spare').replace('sim-7b', 'spare-7b')}`,
  });
});
afterAll(() => world[Symbol.asyncDispose]());

describe('random requests, valid and broken', () => {
  it('are never answered with our fault, nor with what the contract does not say', { timeout: 600_000 }, async () => {
    const counts = await fuzzContract(world, {
      runs: RUNS,
      poolId: 'sim',
      modelRef: 'sim-7b',
      sparePoolId: 'spare',
    });
    const lines = [...counts].sort().map(([what, times]) => `  ${what}: ${times}`);
    console.log(lines.join('\n'));
    expect([...counts.values()].reduce((sum, times) => sum + times, 0)).toBeGreaterThanOrEqual(RUNS);
  });
});
