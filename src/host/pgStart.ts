/** Starting a PostgreSQL server process on a cluster folder, and waiting until it is ready. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { logSizeBytes, openLog, tailLines } from './logFile.js';
import type { PostgresBinaries } from './pgBinaries.js';
import { type ClusterPlace, clusterName } from './pgCluster.js';
import { clearStrays, findPostmaster, type Postmaster, removeStalePidFile, stopPostmaster } from './pgPostmaster.js';
import { freePort } from './ports.js';
import type { ExitFacts } from './process.js';
import { readStat, waitUntil } from './procfs.js';
import { messageOf, StartupError } from './startupError.js';

const readyTimeoutMs = 30_000;
/** Replaying the log after a crash may take longer, and giving up would only make the next start begin again. */
const recoveryTimeoutMs = 300_000;
const attempts = 4;
const quotedLines = 8;

export interface StartedServer extends Postmaster {
  /** Resolves once when the server ends; never rejects. */
  readonly exited: Promise<ExitFacts>;
}

export interface StartRequest {
  readonly place: ClusterPlace;
  readonly binaries: PostgresBinaries;
  readonly logFile: string;
  readonly log: (step: string) => void;
  readonly signal: AbortSignal | undefined;
}

/** What may be overcome by trying again: a port taken between the choice and the bind, or helpers still dying. */
const transient = /could not (?:bind|create any TCP)|Address already in use|shared memory block .* is still in use/;

/**
 * Starts the server and resolves when it takes connections. Throws StartupError with the end of its log, or the
 * signal's reason; nothing of it runs then.
 */
export async function startServer(request: StartRequest): Promise<StartedServer> {
  let failure: StartupError | undefined;
  for (let attempt = 0; attempt < attempts; attempt++) {
    removeStalePidFile(request.place.pgData);
    await clearStrays(clusterName(request.place.pgData), request.place.runAs);
    const outcome = await tryStart(request);
    if (!(outcome instanceof StartupError)) return outcome;
    failure = outcome;
    if (!transient.test(outcome.message)) break;
  }
  throw failure ?? new Error('unreachable');
}

async function tryStart(request: StartRequest): Promise<StartedServer | StartupError> {
  const { place, logFile, signal } = request;
  const log = openLog(logFile);
  const fromByte = logSizeBytes(logFile);
  let child: ChildProcess;
  try {
    child = spawn(request.binaries.postgres, serverArgs(place.pgData, await freePort()), {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' },
      // A terminal's Ctrl-C goes to our group only: we end the server ourselves, after the last write.
      detached: true,
      stdio: ['ignore', log, log],
      ...place.runAs,
    });
  } finally {
    closeSync(log);
  }
  const watch = watchChild(child);
  child.unref();
  try {
    const ready = await awaitReady(request, child.pid, watch.ended);
    if (ready !== null) return { ...ready, exited: watch.exited };
    const quote = (await tailLines(logFile, quotedLines, fromByte)).join('\n');
    const what = watch.failed() ?? (watch.ended() ? 'ended while starting' : 'did not become ready in time');
    await stopChild(child.pid);
    return new StartupError(
      `The built-in PostgreSQL ${what}. Its log ends:\n${quote === '' ? '(nothing written)' : quote}`,
      `See ${logFile}. Start with DATABASE_URL=postgresql://… to use a PostgreSQL of your own.`,
    );
  } catch (error) {
    await stopChild(child.pid);
    signal?.throwIfAborted();
    throw error;
  }
}

function watchChild(child: ChildProcess): {
  readonly exited: Promise<ExitFacts>;
  readonly ended: () => boolean;
  readonly failed: () => string | undefined;
} {
  let ended = false;
  let failed: string | undefined;
  const exited = new Promise<ExitFacts>((resolve) => {
    child.once('exit', (code, signal) => {
      ended = true;
      resolve({ code, signal });
    });
    child.once('error', (error) => {
      ended = true;
      failed = `could not be started (${messageOf(error)})`;
      resolve({ code: null, signal: null });
    });
  });
  return { exited, ended: () => ended, failed: () => failed };
}

/** The server once its pid file says it is ready; null when it ended first or ran out of time. */
async function awaitReady(
  { place, log, signal }: StartRequest,
  pid: number | undefined,
  ended: () => boolean,
): Promise<Postmaster | null> {
  let server: Postmaster | null = null;
  const settled = (): boolean => {
    if (ended()) return true;
    const found = findPostmaster(place.pgData);
    server = found?.pid === pid ? found : null;
    return server?.status === 'ready';
  };
  let ready = await waitUntil(settled, readyTimeoutMs, signal);
  if (!ready && statusOf(server) === 'starting') {
    log('PostgreSQL is recovering its database; this may take minutes');
    ready = await waitUntil(settled, recoveryTimeoutMs, signal);
  }
  return ready && !ended() ? server : null;
}

/** Behind a function, as the compiler cannot see the closure that assigns it. */
function statusOf(server: Postmaster | null): string | undefined {
  return server?.status;
}

async function stopChild(pid: number | undefined): Promise<void> {
  const stat = pid === undefined ? null : readStat(pid);
  if (pid !== undefined && stat !== null)
    await stopPostmaster({ pid, startTimeTicks: stat.startTimeTicks }, 'immediate');
}

/** Settings go on the command line, not into the folder: a later version's always apply. */
function serverArgs(pgData: string, port: number): string[] {
  const settings: Record<string, string> = {
    cluster_name: clusterName(pgData),
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: '100',
    shared_buffers: '128MB',
    fsync: 'on',
    synchronous_commit: 'on',
    // One server, no replicas: the log only has to bring this one back after a crash.
    wal_level: 'minimal',
    max_wal_senders: '0',
    // Containers give /dev/shm 64 MB, on which parallel queries fail; ours are short anyway.
    max_parallel_workers_per_gather: '0',
    timezone: 'UTC',
    log_timezone: 'UTC',
    logging_collector: 'off',
    log_destination: 'stderr',
    log_min_messages: 'warning',
    // Every five minutes a line, for ever.
    log_checkpoints: 'off',
    // Statements and row details would bring users' prompts into the log.
    log_min_error_statement: 'panic',
    log_error_verbosity: 'terse',
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  return ['-D', pgData, '-p', String(port), ...flags];
}
