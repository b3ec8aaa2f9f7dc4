/** The determinism suite, for as many seeds as a test file asks for: on the simulators, and on the real llama-server. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { expectByteExact, seedsUpTo } from './determinism.js';
import { beginOperation, endOf } from './operations.js';
import { REAL_CTX, realConfig, realEngineOrReason, replicaRows } from './realEngine.js';
import { post, readStream, taskRequest } from './rest.js';
import { writeTinyModel } from './tinyModel.js';
import { beginVerification, verdictOf } from './verification.js';
import { simConfig, startWorld, type World } from './world.js';

const ENGINES = ['llamacpp', 'vllm', 'tgi', 'triton'] as const;
const READY = { everyMs: 20, deadlineMs: 15_000 };
const PER_SEED_MS = 4_000;

/** A pool is ready with its first replica; these runs need all of them. */
async function allReady(world: World, pool: string): Promise<string[]> {
  const areReady = async () => (await replicaRows(world, pool)).every(({ state }) => state === 'READY');
  if (!(await pollUntil(areReady, READY))) throw new Error(`${pool} is not ready\n${world.logLines().join('')}`);
  return (await replicaRows(world, pool)).map(({ id }) => id);
}

export function simulatorSuite(seedCount: number): void {
  vi.setConfig({ testTimeout: 30_000 + seedCount * PER_SEED_MS });

  describe(`the simulators, ${seedCount} seeds on two replicas`, () => {
    // Characters that come as two tokens are told by each protocol in its own way.
    it.each(ENGINES)('%s: every byte the same', async (engine) => {
      const flags = ['--split-characters'];
      const config = simConfig({ engine, replicas: 2, slots: 1, capacity: 256, tokensPerSecond: 500, flags });
      await using world = await startWorld({ config });
      const replicas = await allReady(world, 'sim');
      expect(replicas).toHaveLength(2);
      const request = { engine, max_tokens: 24 };
      await expectByteExact(world, { pool: 'sim', replicas, seeds: seedsUpTo(seedCount), request });
    });
  });
}

export async function realEngineSuite(seedCount: number): Promise<void> {
  vi.setConfig({ testTimeout: 60_000 + seedCount * PER_SEED_MS });
  const server = await realEngineOrReason();
  const reason = 'unavailable' in server ? ` (SKIPPED: ${server.unavailable})` : '';

  describe.skipIf('unavailable' in server)(`the real llama-server, ${seedCount} seeds on two replicas${reason}`, () => {
    const pool = 'pair';
    let folder: string;
    let world: World;
    let request: Record<string, unknown>;

    beforeAll(async () => {
      if ('unavailable' in server) return;
      folder = await mkdtemp(join(tmpdir(), 'llama-orch-determinism-'));
      const modelPath = join(folder, 'tiny.gguf');
      await writeTinyModel(modelPath);
      request = { model_ref: `file:${modelPath}`, ctx: REAL_CTX, max_tokens: 96 };
      const pools = [{ id: pool, replicas: 2, slots: 1 }];
      world = await startWorld({ config: realConfig({ serverFile: server.file, modelPath, pools }) });
    });
    afterAll(async () => {
      await world?.[Symbol.asyncDispose]();
      if (folder !== undefined) await rm(folder, { recursive: true, force: true });
    });

    it('every byte the same', async () => {
      const replicas = await allReady(world, pool);
      expect(replicas).toHaveLength(2);
      await expectByteExact(world, { pool, replicas, seeds: seedsUpTo(seedCount), request });
    });

    it('every byte the same after both engines were started anew', async () => {
      const placement = { mode: 'pin', pin_pool_id: pool };
      const bodies = seedsUpTo(Math.min(seedCount, 8)).map((seed) => taskRequest({ ...request, seed, placement }));
      for (const body of bodies) expect((await post(world.url, '/v1/tasks', body)).status).toBe(202);
      for (const { task_id } of bodies) expect((await readStream(world.url, task_id)).at(-1)?.event).toBe('end');
      for (const id of await allReady(world, pool)) {
        const operation = await beginOperation(world.url, `restartReplica(input: { replica: "${id}" })`);
        expect(await endOf(world.url, operation)).toMatchObject({ state: 'SUCCEEDED' });
      }
      await allReady(world, pool);
      const checks = await Promise.all(bodies.map(({ task_id }) => beginVerification(world.url, task_id)));
      for (const id of checks) {
        expect(await verdictOf(world.url, id)).toMatchObject({ verdict: 'IDENTICAL', reasons: [] });
      }
    });
  });
}
