/** What a resume does for a replica that waits for more memory than there will ever be. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { beginOperation, endOf } from '../support/operations.js';
import { startWorld } from '../support/world.js';

const START_FAULTS = fileURLToPath(new URL('../chaos/fixtures/startFaults.mjs', import.meta.url));

let orders: string;
beforeEach(async () => {
  orders = await mkdtemp(join(tmpdir(), 'llama-orch-orders-'));
});
afterEach(() => rm(orders, { recursive: true, force: true }));

it.runIf(LONG)('an engine that ran out of memory once is tried again with what there is', async () => {
  await writeFile(join(orders, 'sim-0'), JSON.stringify({ faults: ['oom-at-load'], starts: 1 }));
  const config = `
gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
pools:
  - id: sim
    engine: llamacpp
    model: sim-7b
    devices: [0]
    provisioning:
      mode: simulated
      env: { NODE_OPTIONS: '--import=${START_FAULTS}', CHAOS_START_FAULTS: '${orders}' }
`;
  await using world = await startWorld({ config, expectNotReady: true });
  const pool = async () =>
    (await gql(world.url, '{ pool(name: "sim") { ready notReadyBecause { message } } }')).data.pool;
  // Its own cause: a start that was refused, not the one that failed.
  const waits = { ready: false, notReadyBecause: [{ message: expect.stringContaining('when it ran out of memory') }] };
  await expect.poll(pool).toEqual(waits);
  const resumed = await endOf(world.url, await beginOperation(world.url, 'resumePool(input: { pool: "sim" })'));
  expect(resumed.state).toBe('SUCCEEDED');
  await expect.poll(pool).toMatchObject({ ready: true });
});
