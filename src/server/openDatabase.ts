/** The database of a start: one of the user's, or the PostgreSQL that we bring; migrated, and watched where it is ours. */
import { type Environment, Secret } from '../config/environment.js';
import type { Config } from '../config/schema.js';
import type { DataDir } from '../host/dataDir.js';
import { startEmbeddedPostgres } from '../host/embeddedPostgres.js';
import { StartupError } from '../host/startupError.js';
import type { Scope } from '../runtime/scope.js';
import { Database } from '../store/database.js';
import { MigrationError, migrate } from '../store/migrate.js';
import type { Telemetry } from '../telemetry/events.js';
import { redactText } from '../telemetry/log.js';
import { MIGRATIONS_DIR } from './paths.js';

/** What a start is given that concerns its database. */
export interface DatabaseOptions {
  readonly environment: Environment;
  readonly config: Config;
  /** Brings its own PostgreSQL when no URL is given. */
  readonly embeddedDatabase: boolean;
  /** Told of each step when it begins. */
  readonly onStep: (step: string) => void;
  /** Something the process cannot live without is gone for good. */
  readonly onFatal: (message: string) => void;
  /** Given a way to end something at once, for a user who does not want to wait for the orderly way. */
  readonly onKillable: (kill: () => Promise<unknown>) => void;
}

/** Brings a database up to date. @returns the names applied. @throws StartupError; no password is in its message. */
export async function migrateDatabase(url: string): Promise<string[]> {
  try {
    return await migrate(url, MIGRATIONS_DIR);
  } catch (error) {
    if (error instanceof MigrationError) throw new StartupError(`${error.message}.`, error.fix);
    throw new StartupError(
      `The database refused us: ${detailOf(error)}.`,
      'Check DATABASE_URL: host, port, user, password and database; PostgreSQL 14 or newer.',
    );
  }
}

function detailOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // A refused connection to several addresses has a code and no message.
  return redactText(error.message || ('code' in error ? String(error.code) : error.name));
}

export async function openDatabase(options: DatabaseOptions, telemetry: Telemetry, dataDir: DataDir, scope: Scope) {
  const { environment, config, onStep } = options;
  const given =
    environment.secrets.databaseUrl ?? (config.database.url === undefined ? null : new Secret(config.database.url));
  const onIdleError = (error: Error) => telemetry.backgroundFailure('database connection', error);
  if (given !== null) {
    onStep('connecting to the database');
    await applyMigrations(given.reveal(), onStep);
    const db = new Database(given.reveal(), onIdleError);
    scope.defer('database connections', () => db.close());
    return { db, databaseIsEmbedded: false };
  }
  if (!options.embeddedDatabase) {
    throw new StartupError(
      'No database is configured.',
      'Set DATABASE_URL=postgresql://…, or use `llama-orch up`, which brings its own.',
    );
  }
  onStep('starting PostgreSQL');
  return { db: await openEmbedded(options, telemetry, dataDir, scope, onIdleError), databaseIsEmbedded: true };
}

async function openEmbedded(
  options: DatabaseOptions,
  telemetry: Telemetry,
  dataDir: DataDir,
  scope: Scope,
  onIdleError: (error: Error) => void,
): Promise<Database> {
  const { onStep } = options;
  let postgres = await startEmbeddedPostgres({ dataDir: dataDir.path, log: onStep });
  const closing = new AbortController();
  scope.defer('PostgreSQL', () => postgres.stop());
  options.onKillable(() => {
    closing.abort();
    return postgres.stop('immediate');
  });
  await applyMigrations(postgres.url, onStep);
  const db = new Database(postgres.url, onIdleError);
  scope.defer('database connections', () => db.close());
  const watch = async () => {
    for (;;) {
      const exit = await Promise.race([postgres.exited, aborted(closing.signal)]);
      if (exit === null || closing.signal.aborted) return;
      telemetry.log.error(
        { ...exit, human: 'PostgreSQL ended by itself and is started again.' },
        'database process ended',
      );
      const log = (step: string) => telemetry.log.info({ step }, 'database start');
      postgres = await startEmbeddedPostgres({ dataDir: dataDir.path, log, signal: closing.signal });
      db.moveTo(postgres.url);
    }
  };
  const watching = watch().catch((error: unknown) => {
    if (!closing.signal.aborted) options.onFatal(`PostgreSQL ended and cannot be started again: ${String(error)}`);
  });
  // A start under way is ended before the server is stopped: none may come up after that.
  scope.defer('PostgreSQL watch', async () => {
    closing.abort();
    await watching;
  });
  return db;
}

function aborted(signal: AbortSignal): Promise<null> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(null), { once: true }));
}

async function applyMigrations(url: string, onStep: (step: string) => void): Promise<void> {
  const applied = await migrateDatabase(url);
  if (applied.length > 0) onStep(`applied ${applied.length} migration${applied.length === 1 ? '' : 's'}`);
}
