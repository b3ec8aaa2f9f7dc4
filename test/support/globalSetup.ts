/** Before all tests: the build, which child processes run from, and one real PostgreSQL with a migrated template. */
import { spawnSync } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { query, TEMPLATE } from './database.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** Of the server's maintenance database. */
    readonly postgresUrl: string;
  }
}

function build(): void {
  const run = spawnSync(process.execPath, ['scripts/build.mjs', '--if-stale'], { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`the build failed:\n${run.stdout}${run.stderr}`);
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  build();
  const { startEmbeddedPostgres } = await import('../../src/host/embeddedPostgres.js');
  const { migrate } = await import('../../src/store/migrate.js');
  const { openDataDir } = await import('../../src/host/dataDir.js');
  const folder = await mkdtemp(join(tmpdir(), 'llama-orch-test-pg-'));
  // PostgreSQL does not run as root: its own user has to reach the folder.
  await chmod(folder, 0o711);
  const dataDir = await openDataDir(folder);
  const postgres = await startEmbeddedPostgres({ dataDir: dataDir.path, log: () => {} });
  const template = postgres.url.replace(/[^/]*$/, TEMPLATE);
  await query(postgres.url, `CREATE DATABASE ${TEMPLATE}`);
  await migrate(template, 'prisma/migrations');
  project.provide('postgresUrl', postgres.url);
  return async () => {
    await postgres.stop('immediate');
    await dataDir[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  };
}
