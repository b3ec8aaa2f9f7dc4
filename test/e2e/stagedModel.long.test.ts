/** A model of the catalog, fetched over HTTP and served by a real llama-server. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { digestOf, register, send } from '../support/catalog.js';
import { serve, startFileServer } from '../support/fileServer.js';
import { gql } from '../support/graphql.js';
import { REAL_CTX, realConfig, realEngineOrReason } from '../support/realEngine.js';
import { readStream, taskRequest, tokensOf } from '../support/rest.js';
import { writeTinyModel } from '../support/tinyModel.js';
import { startWorld } from '../support/world.js';

const SOON = { timeout: 60_000, interval: 50 };
const engine = await realEngineOrReason();

it.skipIf('unavailable' in engine)(
  'is staged by the reload that needs it, and runs by its id and digest',
  { timeout: 120_000 },
  async () => {
    if ('unavailable' in engine) return;
    const folder = await mkdtemp(join(tmpdir(), 'llama-orch-staged-'));
    try {
      const modelPath = join(folder, 'tiny.gguf');
      await writeTinyModel(modelPath);
      const bytes = await readFile(modelPath);
      await using server = await startFileServer(serve(bytes));
      const pools = [{ id: 'real', replicas: 1, slots: 1 }];
      const config = {
        ...JSON.parse(realConfig({ serverFile: engine.file, modelPath, pools })),
        network: { allow_hosts: [server.host] },
      };
      await using world = await startWorld({ config: JSON.stringify(config) });
      const run = async (model_ref: string) => {
        const request = taskRequest({ model_ref, ctx: REAL_CTX, seed: 7, max_tokens: 32 });
        expect(await send(world.url, '/v1/tasks', request)).toMatchObject({ status: 202 });
        return tokensOf(await readStream(world.url, request.task_id)).join('');
      };
      const before = await run(`file:${modelPath}`);
      await register(world.url, { id: 'tiny', digest: digestOf(bytes), source_url: `${server.url}/tiny.gguf` });
      const reload = async () => (await send(world.url, '/v1/pools/real/reload', { new_model_ref: 'tiny' })).status;
      await expect.poll(reload, SOON).toBe(202);
      const modelOf = async () =>
        (await gql(world.url, '{ pool(name: "real") { ready modelRef operation { kind } } }')).data.pool;
      const staged = `file:${join(world.plane.dataDir, 'models', digestOf(bytes).replace(':', '-'))}`;
      await expect.poll(modelOf, SOON).toEqual({ ready: true, modelRef: staged, operation: null });
      expect(await send(world.url, '/v1/catalog/models/tiny/verify')).toMatchObject({ status: 202, said: 'warned' });
      expect(await run('tiny')).toBe(before);
      expect(await run(digestOf(bytes))).toBe(before);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
);
