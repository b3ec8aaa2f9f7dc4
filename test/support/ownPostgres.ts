/** A PostgreSQL for one test file, to be stopped and started under whoever uses it; its address stays the same. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDataDir } from '../../src/host/dataDir.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/host/embeddedPostgres.js';
import { migrate } from '../../src/store/migrate.js';
import { type CutProxy, startCutProxy } from './cutProxy.js';
import { query, type TestDatabase } from './database.js';
import { endsWithFile } from './lifetimes.js';

export interface OwnPostgres extends TestDatabase {
  /** As pg_ctl does it: `fast` ends transactions and writes everything down, `immediate` is a crash. */
  stop(mode: 'fast' | 'immediate'): Promise<void>;
  start(): Promise<void>;
}

/** Migrated, and running. */
export async function startOwnPostgres(): Promise<OwnPostgres> {
  const folder = await mkdtemp(join(tmpdir(), 'llama-orch-own-pg-'));
  await chmod(folder, 0o711); // its own user has to reach it
  const dataDir = await openDataDir(folder);
  let postgres: EmbeddedPostgres | null = null;
  let proxy: CutProxy | null = null;
  const start = async (): Promise<URL> => {
    postgres = await startEmbeddedPostgres({ dataDir: dataDir.path, log: () => {} });
    const url = new URL(postgres.url);
    proxy?.leadTo({ host: url.hostname, port: Number(url.port) });
    return url;
  };
  const end = async (): Promise<void> => {
    await postgres?.stop('immediate');
    await proxy?.[Symbol.asyncDispose]();
    await dataDir[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
    hasEnded();
  };
  const hasEnded = endsWithFile({ end, kill: () => void postgres?.stop('immediate') });
  const first = await start();
  await migrate(first.href, 'prisma/migrations');
  const made = await startCutProxy({ host: first.hostname, port: Number(first.port) });
  proxy = made;
  const url = Object.assign(new URL(first), { host: `127.0.0.1:${made.port}` }).href;
  return {
    url,
    query: (text, values) => query(url, text, values),
    stop: async (mode) => postgres?.stop(mode),
    start: async () => void (await start()),
    [Symbol.asyncDispose]: end,
  };
}
