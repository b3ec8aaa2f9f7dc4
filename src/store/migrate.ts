/**
 * Applies prisma/migrations at start, offline. Rows in `_prisma_migrations` are as Prisma writes them, so its own tools
 * can take over a database at any time. One migrator at a time (advisory lock), each file in one transaction, and a
 * refusal when the history in the database is not the history in the files.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';

/** Prisma's own key for the same purpose, so that the two exclude each other. */
const ADVISORY_LOCK_KEY = 72707369;
const MIN_SERVER_VERSION = 140000;
const LOCK_TIMEOUT_MS = 60_000;

/** The database cannot be used as it is; `fix` says what to do. */
export class MigrationError extends Error {
  readonly fix: string;
  constructor(message: string, fix: string) {
    super(message);
    this.name = 'MigrationError';
    this.fix = fix;
  }
}

export interface Migration {
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

interface AppliedRow {
  readonly migration_name: string;
  readonly checksum: string;
  readonly finished: boolean;
}

export function readMigrations(folder: string): Migration[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort()
    .map((name) => {
      const sql = readFileSync(join(folder, name, 'migration.sql'), 'utf8');
      return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
    });
}

const CREATE_TABLE = `
CREATE TABLE IF NOT EXISTS "_prisma_migrations" (
  "id" VARCHAR(36) PRIMARY KEY NOT NULL,
  "checksum" VARCHAR(64) NOT NULL,
  "finished_at" TIMESTAMPTZ,
  "migration_name" VARCHAR(255) NOT NULL,
  "logs" TEXT,
  "rolled_back_at" TIMESTAMPTZ,
  "started_at" TIMESTAMPTZ NOT NULL DEFAULT now(),
  "applied_steps_count" INTEGER NOT NULL DEFAULT 0
)`;

const SELECT_APPLIED = `
SELECT migration_name, checksum, finished_at IS NOT NULL AS finished
FROM "_prisma_migrations" WHERE rolled_back_at IS NULL ORDER BY migration_name`;

const INSERT_APPLIED = `
INSERT INTO "_prisma_migrations" (id, checksum, finished_at, migration_name, started_at, applied_steps_count)
VALUES ($1, $2, clock_timestamp(), $3, now(), 1)`;

/** Pure: what is left to apply; throws on drift. */
export function planMigrations(files: readonly Migration[], applied: readonly AppliedRow[]): Migration[] {
  const byName = new Map(files.map((file) => [file.name, file]));
  for (const row of applied) {
    const file = byName.get(row.migration_name);
    if (file === undefined) {
      throw new MigrationError(
        `migration drift: the database has "${row.migration_name}", which this version does not know`,
        'Run the newer version that made it, or use another database.',
      );
    }
    if (!row.finished) {
      throw new MigrationError(
        `migration "${row.migration_name}" was started and never finished`,
        'Restore the database from before it, or finish it by hand and mark its row finished.',
      );
    }
    if (row.checksum !== file.checksum) {
      throw new MigrationError(
        `migration drift: "${row.migration_name}" was changed after it was applied`,
        'Put the file back as it was applied; write changes as a new migration.',
      );
    }
  }
  const done = new Set(applied.map((row) => row.migration_name));
  return files.filter((file) => !done.has(file.name));
}

/** @returns the names of the migrations that were applied now. */
export async function migrate(url: string, folder: string): Promise<string[]> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 5_000,
    lock_timeout: LOCK_TIMEOUT_MS,
  });
  await client.connect();
  try {
    await checkServerVersion(client);
    await client.query('SELECT pg_advisory_lock($1)', [ADVISORY_LOCK_KEY]);
    await client.query(CREATE_TABLE);
    const applied = await client.query<AppliedRow>(SELECT_APPLIED);
    const pending = planMigrations(readMigrations(folder), applied.rows);
    for (const migration of pending) await applyOne(client, migration);
    return pending.map((migration) => migration.name);
  } finally {
    // Closing the session releases the advisory lock as well.
    await client.end();
  }
}

async function checkServerVersion(client: pg.Client): Promise<void> {
  const result = await client.query<{ version: number; text: string }>(
    `SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS text`,
  );
  const row = result.rows[0];
  if (row === undefined || row.version >= MIN_SERVER_VERSION) return;
  throw new MigrationError(`PostgreSQL ${row.text} is too old`, 'Use PostgreSQL 14 or newer.');
}

async function applyOne(client: pg.Client, migration: Migration): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(migration.sql);
    await client.query(INSERT_APPLIED, [randomUUID(), migration.checksum, migration.name]);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    const detail = error instanceof Error ? error.message : String(error);
    throw new MigrationError(
      `migration "${migration.name}" failed and was undone: ${detail}`,
      'Use an empty database, or one that only llama-orch has written to.',
    );
  }
}
