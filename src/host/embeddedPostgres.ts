/**
 * A PostgreSQL of our own, from the programs that come with npm, in the data directory. It outlives a killed parent,
 * and the next start takes it over.
 */
import { join } from 'node:path';
import pg from 'pg';
import { watchLog } from './logFile.js';
import { preparePostgresBinaries } from './pgBinaries.js';
import { checkMajor, createCluster, databaseUser, locateCluster, readPassword } from './pgCluster.js';
import { findPostmaster, type Postmaster, stopPostmaster } from './pgPostmaster.js';
import { type StartedServer, type StartRequest, startServer } from './pgStart.js';
import type { ExitFacts } from './process.js';
import { isAlive, waitUntil } from './procfs.js';
import { messageOf, StartupError } from './startupError.js';

const databaseName = 'llama_orch';
const connectTimeoutMs = 10_000;
const queryTimeoutMs = 30_000;
const takeOverTimeoutMs = 15_000;
const pollMs = 250;

export interface EmbeddedPostgresOptions {
  /** The data directory; the caller holds its lock (openDataDir). */
  readonly dataDir: string;
  /** Told of each step that takes time. */
  readonly log: (step: string) => void;
  readonly signal?: AbortSignal;
  /** For root only: where things go that PostgreSQL's user must reach. Default /var/lib/llama-orch. */
  readonly systemDir?: string;
}

export interface EmbeddedPostgres {
  /** postgresql://llama_orch:…@127.0.0.1:PORT/llama_orch. Carries the password: never log it. */
  readonly url: string;
  /** As in `18.4`. */
  readonly version: string;
  readonly pid: number;
  /** True when it was still running from an earlier start. */
  readonly reused: boolean;
  /** Resolves once when the server ends, for whatever reason; never rejects. Nothing is known of a reused one's end. */
  readonly exited: Promise<ExitFacts>;
  /** Ends the server, `fast` unless told, within 25 s. Rejects when it cannot be ended. Safe to repeat. */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
}

/**
 * Starts or takes over the server of a data directory; makes cluster and database when missing. Throws StartupError
 * with a cause and a fix, or the signal's reason; a server started here does not run then.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { log, signal } = options;
  const systemDir = options.systemDir ?? '/var/lib/llama-orch';
  signal?.throwIfAborted();
  const place = await locateCluster(options.dataDir, systemDir);
  const copyRoot = process.getuid?.() === 0 ? systemDir : options.dataDir;
  const binaries = await preparePostgresBinaries({ runAs: place.runAs, copyRoot, log });
  const request = { place, binaries, log, signal, logFile: join(options.dataDir, 'logs', 'postgres.log') };
  if (place.exists) await checkMajor(place, binaries);
  else await makeCluster(request);
  const password = await readPassword(place);
  return (await takeOver(request, password)) ?? (await startFresh(request, password));
}

async function makeCluster({ place, binaries, log, signal }: StartRequest): Promise<void> {
  // Only where a data directory was deleted under a running server can one be found here.
  const abandoned = findPostmaster(place.pgData);
  if (abandoned !== null) await stopPostmaster(abandoned, 'immediate');
  log(`making the database folder ${place.folder}`);
  await createCluster(place, binaries, signal);
}

async function startFresh(request: StartRequest, password: string): Promise<EmbeddedPostgres> {
  request.log(`starting PostgreSQL ${request.binaries.version}`);
  const server = await startServer(request);
  try {
    await ensureDatabase(server.port, password);
    request.signal?.throwIfAborted();
    return handle(server, password, request, false);
  } catch (error) {
    await stopPostmaster(server, 'fast');
    if (request.signal?.aborted === true || error instanceof StartupError) throw error;
    throw new StartupError(
      `The built-in PostgreSQL started, but refused its owner: ${messageOf(error)}.`,
      `See ${request.logFile}; the password is in ${join(request.place.folder, 'password')}.`,
      { cause: error },
    );
  }
}

/** The server that an earlier start left running, if it is sound and of our version; otherwise ends it and says null. */
async function takeOver(request: StartRequest, password: string): Promise<EmbeddedPostgres | null> {
  const { place, binaries, log, signal } = request;
  const settled = (): boolean => ['ready', undefined].includes(findPostmaster(place.pgData)?.status);
  await waitUntil(settled, takeOverTimeoutMs, signal);
  const server = findPostmaster(place.pgData);
  if (server === null) return null;
  try {
    if (server.status !== 'ready') throw new Error(`it is ${server.status}`);
    const version = await ensureDatabase(server.port, password);
    if (version !== binaries.version) throw new Error(`it is version ${version}`);
    log(`taking over PostgreSQL, running as pid ${server.pid}`);
    return handle({ ...server, exited: pollExit(server) }, password, request, true);
  } catch (error) {
    log(`restarting PostgreSQL, left running as pid ${server.pid}: ${messageOf(error)}`);
    await stopPostmaster(server, 'fast');
    return null;
  }
}

/** A process that is not our child tells nobody of its end, so it is asked for. */
function pollExit(server: Postmaster): Promise<ExitFacts> {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (isAlive(server.pid, server.startTimeTicks)) return;
      clearInterval(timer);
      resolve({ code: null, signal: null });
    }, pollMs);
    timer.unref();
  });
}

function handle(server: StartedServer, password: string, request: StartRequest, reused: boolean): EmbeddedPostgres {
  const endWatch = watchLog(request.logFile);
  void server.exited.then(endWatch);
  return {
    url: urlOf(server.port, password, databaseName),
    version: request.binaries.version,
    pid: server.pid,
    reused,
    exited: server.exited,
    stop: (mode = 'fast') => stopPostmaster(server, mode),
  };
}

function urlOf(port: number, password: string, database: string): string {
  return `postgresql://${databaseUser}:${encodeURIComponent(password)}@127.0.0.1:${port}/${database}`;
}

/** Makes the database when missing. Returns the server's version, as in `18.4`. */
async function ensureDatabase(port: number, password: string): Promise<string> {
  const client = new pg.Client({
    connectionString: urlOf(port, password, 'postgres'),
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: queryTimeoutMs,
    application_name: 'llama-orch start',
  });
  // A connection that breaks also fails the query under way; without a listener it would end the process.
  client.on('error', () => {});
  await client.connect();
  try {
    const { rows } = await client.query<{ version: string; known: boolean }>(
      `SELECT current_setting('server_version') AS version,
              EXISTS (SELECT FROM pg_database WHERE datname = $1) AS known`,
      [databaseName],
    );
    const [facts] = rows;
    if (facts === undefined) throw new Error('PostgreSQL did not tell its version');
    if (!facts.known) await client.query(`CREATE DATABASE ${databaseName}`);
    return facts.version;
  } finally {
    await client.end();
  }
}
