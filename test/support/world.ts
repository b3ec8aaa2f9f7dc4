/** A whole control plane in this process, on a database of its own, with simulated engines as real child processes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { readEnvironment } from '../../src/config/environment.js';
import { parseConfig } from '../../src/config/load.js';
import { pollUntil } from '../../src/runtime/wait.js';
import { type ControlPlane, startControlPlane } from '../../src/server/compose.js';
import { createDatabase, type TestDatabase } from './database.js';
import { endsWithFile } from './lifetimes.js';
import { killProcessesOf } from './server.js';

export interface World extends AsyncDisposable {
  readonly plane: ControlPlane;
  readonly url: string;
  readonly database: TestDatabase;
  /** Every log line so far. */
  readonly logLines: () => readonly string[];
}

export interface WorldOptions {
  /** YAML of the configuration; the default is one pool `sim` with two replicas of two slots. */
  readonly config?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly configDir?: string;
  /** Where all is kept; by default a database of its own, in the server of all tests. */
  readonly database?: TestDatabase;
  /** The way to its database, which has this URL. */
  readonly databaseUrl?: (url: string) => Promise<string>;
  /** True: pools that are not ready are what the test is about. */
  readonly expectNotReady?: boolean;
}

export function simConfig(
  options: {
    engine?: string;
    tokensPerSecond?: number;
    replicas?: number;
    slots?: number;
    capacity?: number;
    fullPolicy?: string;
    /** Of `admission.priorities`. */
    priorities?: readonly object[];
    flags?: string[];
    /** Of engines. */
    env?: Readonly<Record<string, string>>;
    idleMs?: number;
  } = {},
): string {
  const { engine = 'llamacpp', tokensPerSecond = 0, replicas = 2, slots = 2, capacity = 64 } = options;
  const { flags = [], idleMs = 5000, fullPolicy = 'reject', priorities = [], env = {} } = options;
  return `
gpu:
  mode: simulated
  devices: [{ name: Big, memory_bytes: 25769803776 }, { name: Small, memory_bytes: 12884901888 }]
pools:
  - id: sim
    engine: ${engine}
    model: sim-7b
    ctx: 4096
    devices: [0, 1]
    replicas: ${replicas}
    slots: ${slots}
    queue: { capacity: ${capacity}, full_policy: ${fullPolicy} }
    admission: { priorities: ${JSON.stringify(priorities)} }
    timeouts: { wall_ms: 60000, idle_ms: ${idleMs} }
    provisioning:
      mode: simulated
      flags: ${JSON.stringify(flags)}
      env: ${JSON.stringify(env)}
      simulated: { tokens_per_second: ${tokensPerSecond}, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }
`;
}

/** Rows follow what replicas are by a moment: tests that look into them begin when they have. */
async function rowsFollow(database: TestDatabase): Promise<void> {
  const behind = `SELECT id FROM pools p WHERE NOT EXISTS (
    SELECT FROM replicas r WHERE r.pool_id = p.id AND r.state = 'READY' AND NOT r.retired)`;
  const follow = async () => (await database.query(behind)).length === 0;
  if (!(await pollUntil(follow, { everyMs: 20, deadlineMs: 15_000 }))) throw new Error('rows do not follow replicas');
}

/** A pool is ready with its first replica; placement and quotes count all of them. */
export async function allReady({ database }: Pick<World, 'database'>): Promise<void> {
  const missing = "SELECT id FROM replicas WHERE state <> 'READY' AND NOT retired";
  const ready = async () => (await database.query(missing)).length === 0;
  if (!(await pollUntil(ready, { everyMs: 20, deadlineMs: 15_000 }))) throw new Error('not all replicas are ready');
}

export async function startWorld(options: WorldOptions = {}): Promise<World> {
  const home = await mkdtemp(join(tmpdir(), 'llama-orch-world-'));
  const database =
    options.database ??
    (await createDatabase().catch(async (error: unknown) => {
      await rm(home, { recursive: true, force: true });
      throw error;
    }));
  const lines: string[] = [];
  const logTo = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  });
  let plane: ControlPlane | null = null;
  let closing: Promise<void> | null = null;
  const closeAll = async (): Promise<void> => {
    try {
      await plane?.close();
    } finally {
      killProcessesOf(home); // as a rule none
      await Promise.all([database[Symbol.asyncDispose](), rm(home, { recursive: true, force: true })]);
      hasEnded();
    }
  };
  /** Once, however often it is called. */
  const close = (): Promise<void> => {
    closing ??= closeAll();
    return closing;
  };
  const hasEnded = endsWithFile({ end: close, kill: () => killProcessesOf(home) });
  try {
    plane = await startControlPlane({
      environment: readEnvironment({
        ORCHD_ADDR: '127.0.0.1:0',
        LLAMA_ORCH_HOME: home,
        DATABASE_URL: (await options.databaseUrl?.(database.url)) ?? database.url,
        ...options.env,
      }),
      logTo,
      config: parseConfig(options.config ?? simConfig(), 'test.yaml'),
      configDir: options.configDir ?? home,
      embeddedDatabase: false,
      onStep: () => {},
      onFatal: () => {},
      onKillable: () => {},
      ...(options.expectNotReady === true && { poolsReadyDeadlineMs: 0 }),
    });
    const notReady = plane.pools.filter((pool) => !pool.ready);
    if (notReady.length > 0 && options.expectNotReady !== true)
      throw new Error(`pools are not ready: ${JSON.stringify(notReady)}\n${lines.join('')}`);
    if (options.expectNotReady !== true) await rowsFollow(database);
    const { url } = plane;
    return { plane, url, database, logLines: () => lines, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}
