/** A restart whose engine does not come back: it ends with the cause, and the pool is free for what mends it. */

import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { LLAMA_SERVER } from '../support/fakeTools.js';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { beginOperation, endOf, statesOf } from '../support/operations.js';
import { tinyModelBytes } from '../support/tinyModel.js';
import { startWorld } from '../support/world.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-restart-'));
  await writeFile(join(folder, 'tiny.gguf'), tinyModelBytes());
  await writeFile(join(folder, 'llama-server'), LLAMA_SERVER);
  await chmod(join(folder, 'llama-server'), 0o755);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function config(): string {
  return `
gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
pools:
  - id: sim
    engine: llamacpp
    model: file:${folder}/tiny.gguf
    ctx: 512
    devices: [0]
    slots: 2
    provisioning: { mode: binary, binary: { url: 'file://${folder}/llama-server' } }
`;
}

it.runIf(LONG)('of an engine whose program has gone ends with the cause, and a resume mends it', async () => {
  const program = join(folder, 'llama-server');
  await using world = await startWorld({ config: config() });
  await rename(program, `${program}.away`);
  const failed = await endOf(world.url, await beginOperation(world.url, 'restartReplica(input: { replica: "sim-0" })'));
  expect(failed).toMatchObject({ state: 'FAILED', error: { code: 'ENGINE_MISSING' } });
  expect(statesOf(failed)).toEqual({ stop_engine: 'SUCCEEDED', verify: 'FAILED' });

  await rename(`${program}.away`, program);
  const resumed = await endOf(world.url, await beginOperation(world.url, 'resumePool(input: { pool: "sim" })'));
  expect(resumed.state).toBe('SUCCEEDED');
  const ready = async () => (await gql(world.url, '{ pool(name: "sim") { ready } }')).data.pool.ready;
  await expect.poll(ready).toBe(true);
});
