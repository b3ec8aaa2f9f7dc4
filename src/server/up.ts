/** The commands `up`, `serve` and `migrate`: steps with their times on the terminal, logs in a file, Ctrl-C ends all. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DestinationStream, destination } from 'pino';
import { demoConfig } from '../config/demo.js';
import { readEnvironment } from '../config/environment.js';
import { loadConfig } from '../config/load.js';
import { notBuiltYet } from '../config/notBuilt.js';
import type { Config } from '../config/schema.js';
import { StartupError } from '../host/startupError.js';
import { delay } from '../runtime/wait.js';
import { type ControlPlane, configDirOf, startControlPlane } from './compose.js';
import { migrateDatabase } from './openDatabase.js';

/** What a shell reports for a program ended by Ctrl-C. */
const EXIT_INTERRUPTED = 130;
const KILL_DEADLINE_MS = 3_000;

class Steps {
  readonly #startedMs = performance.now();
  #currentMs: number | null = null;

  begin(text: string): void {
    this.end();
    this.#currentMs = performance.now();
    process.stdout.write(`  ${text} … `);
  }

  end(): void {
    if (this.#currentMs === null) return;
    process.stdout.write(`${Math.round(performance.now() - this.#currentMs)} ms\n`);
    this.#currentMs = null;
  }

  /** Ends the line that a failure interrupted. */
  fail(): void {
    if (this.#currentMs !== null) process.stdout.write('failed\n');
    this.#currentMs = null;
  }

  totalMs(): number {
    return Math.round(performance.now() - this.#startedMs);
  }
}

function readConfig(command: 'up' | 'serve', file: string | undefined): Config {
  if (file !== undefined) return loadConfig(file);
  if (command === 'up') return demoConfig();
  throw new StartupError(
    '`serve` needs a configuration file.',
    'Give --config FILE; docs/config.example.yaml is one to start from.',
  );
}

/** `up` keeps the terminal for people and the log in a file; `serve` writes JSON Lines to standard output. */
function openLog(command: 'up' | 'serve', homeDir: string): { logTo: DestinationStream; file: string | null } {
  if (command === 'serve') return { logTo: destination({ fd: 1, sync: true }), file: null };
  const file = join(homeDir, 'logs', 'llama-orch.log');
  try {
    mkdirSync(join(homeDir, 'logs'), { recursive: true });
    return { logTo: destination({ dest: file, sync: true, append: true }), file };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : error;
    throw new StartupError(
      `The data directory ${homeDir} cannot be written: ${code}.`,
      'Give it to this user, or set LLAMA_ORCH_HOME to another folder.',
    );
  }
}

function printWelcome(plane: ControlPlane, config: Config, logFile: string | null, totalMs: number): void {
  const lines = ['', `llama-orch is up after ${totalMs} ms.`, ''];
  for (const pool of plane.pools) {
    const simulated =
      config.pools.find(({ id }) => id === pool.id)?.provisioning.mode === 'simulated' ? ', simulated' : '';
    lines.push(`  pool ${pool.id}: ${pool.ready ? 'ready' : 'not ready'}${simulated}`);
    for (const reason of pool.reasons)
      lines.push(`    ${reason.message}${reason.fix === null ? '' : ` Fix: ${reason.fix}`}`);
  }
  for (const note of notBuiltYet(config)) lines.push(`  note: ${note}`);
  lines.push(
    '',
    `  GraphQL   ${plane.url}/graphql   (GraphiQL in a browser; HTTP, WebSocket, SSE)`,
    `  REST      ${plane.url}/v1/tasks`,
    `  metrics   ${plane.url}/metrics   health ${plane.url}/health   ready ${plane.url}/ready`,
    ...(logFile === null ? [] : [`  log       ${logFile}`]),
    '',
    'Stream a task from another terminal:',
    '',
    `  npx llama-orch run ${plane.url === 'http://127.0.0.1:8080' ? '' : `--url ${plane.url} `}"hello"`,
    '',
    'Ctrl-C stops everything; twice stops it now.',
    '',
  );
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Waits for the first reason to stop; a second signal ends everything we started at once. */
class StopRequest {
  readonly wait: Promise<string>;
  /** Aborted by it. */
  readonly signal: AbortSignal;
  readonly #kills: (() => Promise<unknown>)[] = [];
  #settle: (reason: string) => void = () => {};
  #asked = false;

  constructor() {
    const asked = new AbortController();
    this.signal = asked.signal;
    this.wait = new Promise((resolve) => {
      this.#settle = (reason) => {
        asked.abort();
        resolve(reason);
      };
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => this.#onSignal(signal));
  }

  fatal(message: string): void {
    this.#settle(message);
  }

  killable(kill: () => Promise<unknown>): void {
    this.#kills.push(kill);
  }

  #onSignal(signal: NodeJS.Signals): void {
    if (!this.#asked) {
      this.#asked = true;
      return this.#settle(signal);
    }
    const killed = Promise.allSettled(this.#kills.map((kill) => kill()));
    void Promise.race([killed, delay(KILL_DEADLINE_MS)]).then(() => process.exit(EXIT_INTERRUPTED));
  }
}

/** @returns the exit code, once everything this started has ended. */
export async function runServer(command: 'up' | 'serve', args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { config: { type: 'string' } } });
  const environment = readEnvironment(process.env);
  const config = readConfig(command, values.config);
  const { logTo, file } = openLog(command, environment.homeDir);
  const steps = new Steps();
  const quiet = command === 'serve';
  const stop = new StopRequest();
  const starting = startControlPlane({
    environment,
    config,
    logTo,
    configDir: configDirOf(values.config ?? null),
    embeddedDatabase: command === 'up',
    onStep: (text) => (quiet ? undefined : steps.begin(text)),
    onFatal: (message) => stop.fatal(message),
    onKillable: (kill) => stop.killable(kill),
    stopWaiting: stop.signal,
  });
  let plane: ControlPlane;
  try {
    plane = await starting;
  } catch (error) {
    steps.fail();
    throw error;
  }
  steps.end();
  if (!quiet) printWelcome(plane, config, file, steps.totalMs());
  const reason = await stop.wait;
  const failed = !reason.startsWith('SIG');
  if (!quiet || failed) process.stderr.write(failed ? `${reason}\n` : '\nstopping …\n');
  await plane.close();
  if (!quiet) process.stderr.write('stopped.\n');
  process.exitCode = failed ? 1 : 0;
  return failed ? 1 : 0;
}

export async function runMigrate(): Promise<number> {
  const url = readEnvironment(process.env).secrets.databaseUrl;
  if (url === null)
    throw new StartupError('No database is named.', 'Set DATABASE_URL=postgresql://user:password@host:5432/name.');
  const applied = await migrateDatabase(url.reveal());
  process.stdout.write(applied.length === 0 ? 'The database is up to date.\n' : `Applied: ${applied.join(', ')}\n`);
  return 0;
}
