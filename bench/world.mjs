/** What the measurements run against, each a process of its own: PostgreSQL, simulated engines, the real server. */
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { openDataDir } from '../dist/host/dataDir.js';
import { startEmbeddedPostgres } from '../dist/host/embeddedPostgres.js';
import { startChild } from './scope.mjs';

const MEMORY_HOOK = fileURLToPath(new URL('./memoryHook.mjs', import.meta.url));
export const HOOKED = ['--expose-gc', '--import', MEMORY_HOOK];
export const MODEL = 'sim-7b';

async function tempFolder(scope) {
  const path = await mkdtemp(join(tmpdir(), 'llama-orch-bench-'));
  // PostgreSQL does not run as root: its own user has to reach the folder.
  await chmod(path, 0o711);
  scope.defer(path, () => rm(path, { recursive: true, force: true }));
  return path;
}

/** The product's own PostgreSQL with its own settings (fsync on), in a temp folder. Gives fresh databases. */
export async function startPostgres(scope) {
  const folder = await tempFolder(scope);
  const dataDir = await openDataDir(folder);
  scope.defer('data directory lock', async () => dataDir[Symbol.asyncDispose]());
  const postgres = await startEmbeddedPostgres({ dataDir: dataDir.path, log: () => {} });
  scope.defer('PostgreSQL', () => postgres.stop('immediate'));
  return {
    createDatabase: async () => {
      const name = `bench_${randomBytes(4).toString('hex')}`;
      const client = new pg.Client({ connectionString: postgres.url });
      await client.connect();
      await client.query(`CREATE DATABASE ${name}`);
      await client.end();
      return postgres.url.replace(/[^/]*$/, name);
    },
  };
}

/** @param {{ tokensPerSecond: number, slots: number, ctx: number }} options 0 tokens per second: as fast as possible. */
export function startEngine(scope, { tokensPerSecond, slots, ctx }) {
  const speed = ['--tokens-per-second', String(tokensPerSecond), '--first-token-ms', '0', '--load-ms', '0'];
  const size = ['--slots', String(slots), '--ctx', String(ctx)];
  return startChild(scope, {
    name: 'engine-sim',
    args: ['dist/engines/sim/main.js', '--protocol', 'llamacpp', '--port', '0', '--model', MODEL, ...speed, ...size],
    ready: /listening on (http:\/\/\S+)/,
  });
}

/** One pool over an engine that we run ourselves, so that the baseline can call the same process. */
function configOf(engineUrl, { slots, ctx }) {
  return JSON.stringify({
    gpu: { mode: 'simulated', devices: [{ name: 'Bench', memory_bytes: 25_769_803_776 }] },
    pools: [
      {
        id: 'bench',
        engine: 'llamacpp',
        model: MODEL,
        ctx,
        slots,
        endpoint: engineUrl,
        queue: { capacity: 100_000 },
        timeouts: { wall_ms: 3_600_000, idle_ms: 60_000 },
        provisioning: { mode: 'external' },
      },
    ],
  });
}

/**
 * `llama-orch up` as a user starts it, on the given database.
 * @param {{ engineUrl: string, databaseUrl: string, slots: number, ctx: number, nodeArgs?: string[] }} options
 */
export async function startServer(scope, { engineUrl, databaseUrl, slots, ctx, nodeArgs = [] }) {
  const home = await tempFolder(scope);
  const config = join(home, 'bench.yaml');
  await writeFile(config, configOf(engineUrl, { slots, ctx }));
  return startChild(scope, {
    name: 'llama-orch up',
    args: [...nodeArgs, 'bin/llama-orch.js', 'up', '--config', config],
    ready: /pool bench: ready[\s\S]*?GraphQL {3}(http:\/\/\S+)\/graphql[\s\S]*Ctrl-C stops everything/,
    env: { LLAMA_ORCH_HOME: home, ORCHD_ADDR: '127.0.0.1:0', DATABASE_URL: databaseUrl },
  });
}

/** @param {string} script of this folder @param {string[]} args */
export function startHelper(scope, script, args = [], nodeArgs = []) {
  const file = fileURLToPath(new URL(`./${script}`, import.meta.url));
  return startChild(scope, {
    name: script,
    args: [...nodeArgs, file, ...args],
    ready: /listening on (http:\/\/\S+)/,
  });
}
