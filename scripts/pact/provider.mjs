// A control plane with simulated engines for the verification of pacts, and the way back to its first state.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath, pathToFileURL } from 'node:url';
import pg from 'pg';

const dist = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'dist');
const load = (path) => import(pathToFileURL(join(dist, path)).href);

// Less than the verifier waits for a state, so that it is told why.
const READY_DEADLINE_MS = 20_000;
const LOOK_MS = 50;
const GIB = 1024 ** 3;

/** A pool of one simulated engine. */
function pool(id, { engine = 'llamacpp', model, ctx = 4096, slots = 2, tokensPerSecond = 0, queue = {}, flags = [] }) {
  const simulated = { tokens_per_second: tokensPerSecond, first_token_ms: 0, load_ms: 0, vram_bytes: GIB / 8 };
  const provisioning = { mode: 'simulated', flags, simulated };
  return { id, engine, model, ctx, devices: [0], slots, queue, provisioning };
}

const SLOW = { slots: 1, tokensPerSecond: 2 };
const POOLS = [
  pool('sim', { model: 'sim-7b' }),
  // One task runs and one waits, then they are full.
  pool('slow', { ...SLOW, model: 'sim-slow', queue: { capacity: 1, full_policy: 'reject' } }),
  pool('slow-lru', { ...SLOW, model: 'sim-slow-lru', queue: { capacity: 1, full_policy: 'drop-lru' } }),
  pool('failing', { model: 'sim-failing', flags: ['--fault', 'error-frame-at-token:2'] }),
  // Its model is there, but its engine may not be downloaded, and no waiting mends that.
  {
    ...pool('unready', { model: 'sim-unready' }),
    provisioning: {
      mode: 'binary',
      binary: { url: 'https://example.org/llama-server', checksum: `sha256:${'0'.repeat(64)}` },
    },
  },
];

/** Any pact may name engines and models of its own: what it sees admitted gets a pool. */
function poolsFor(pacts) {
  const wanted = new Map();
  for (const { request, response } of pacts.flatMap(({ interactions }) => interactions)) {
    if (request?.method !== 'POST' || request.path !== '/v1/tasks' || response?.status !== 202) continue;
    const { engine, model_ref: model, ctx } = request.body?.content ?? request.body ?? {};
    if (POOLS.some((one) => one.engine === engine && one.model === model)) continue;
    const key = `${engine} ${model}`;
    wanted.set(key, { engine, model, ctx: Math.max(wanted.get(key)?.ctx ?? 4096, ctx) });
  }
  return [...POOLS, ...[...wanted.values()].map((what, index) => pool(`pact-${index}`, what))];
}

async function startDatabase(folder) {
  if (process.env.DATABASE_URL) return { url: process.env.DATABASE_URL, stop: async () => {} };
  const { startEmbeddedPostgres } = await load('host/embeddedPostgres.js');
  const { openDataDir } = await load('host/dataDir.js');
  const dataDir = await openDataDir(folder);
  const postgres = await startEmbeddedPostgres({ dataDir: dataDir.path, log: () => {} });
  const stop = async () => {
    await postgres.stop('immediate');
    dataDir[Symbol.asyncDispose]();
  };
  return { url: postgres.url, stop };
}

async function waitFor(what, look) {
  const deadline = Date.now() + READY_DEADLINE_MS;
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error(`${what} did not come in ${READY_DEADLINE_MS / 1000} s`);
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}

async function startPlane({ home, configDir }, databaseUrl, pools) {
  const { startControlPlane } = await load('server/compose.js');
  const { readEnvironment } = await load('config/environment.js');
  const { ConfigSchema } = await load('config/schema.js');
  return startControlPlane({
    environment: readEnvironment({ ORCHD_ADDR: '127.0.0.1:0', LLAMA_ORCH_HOME: home, DATABASE_URL: databaseUrl }),
    logTo: new Writable({ write: (_chunk, _encoding, done) => done() }),
    config: ConfigSchema.parse({
      gpu: { mode: 'simulated', devices: [{ name: 'Simulated', memory_bytes: 24 * GIB }] },
      pools,
    }),
    configDir,
    embeddedDatabase: false,
    onStep: () => {},
    onFatal: (error) => console.error(error),
    onKillable: () => {},
    poolsReadyDeadlineMs: 0,
  });
}

/** What the states are made with. */
class Provider {
  constructor(plane, database, pools) {
    this.url = plane.url;
    this.database = database;
    this.pools = pools;
  }

  send(method, path, body) {
    return fetch(`${this.url}${path}`, {
      method,
      ...(body !== undefined && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(READY_DEADLINE_MS),
    });
  }

  async must(method, path, body) {
    const answer = await this.send(method, path, body);
    if (!answer.ok) throw new Error(`${method} ${path} answers ${answer.status}: ${await answer.text()}`);
    return answer;
  }

  waitFor = waitFor;

  async #poolsReady() {
    const { pools } = await (await this.send('GET', '/ready')).json();
    return pools.every(({ id, ready }) => ready || id === 'unready');
  }

  /** No task, no session, every pool at work. */
  async reset() {
    const tasks = await this.database.query(
      `SELECT id FROM tasks WHERE status IN ('QUEUED', 'LEASED', 'STREAMING') ORDER BY status`,
    );
    for (const { id } of tasks.rows) await this.must('POST', `/v1/tasks/${id}/cancel`);
    for (const id of await this.#drained()) await this.#resume(id);
    const held = async () => (await this.database.query('SELECT 1 FROM leases WHERE released_at IS NULL')).rows.length;
    await waitFor('an end of all leases', async () => (await held()) === 0);
    await this.database.query('TRUNCATE tasks, stream_chunks, sessions CASCADE');
  }

  async #drained() {
    const atWork = "SELECT 1 FROM operations WHERE state IN ('PENDING', 'RUNNING')";
    await waitFor('an end of all operations', async () => (await this.database.query(atWork)).rows.length === 0);
    return (await this.database.query('SELECT id FROM pools WHERE draining')).rows.map(({ id }) => id);
  }

  async #resume(id) {
    const query = 'mutation ($pool: String!) { resumePool(input: { pool: $pool }) { __typename } }';
    await this.must('POST', '/graphql', { query, variables: { pool: id } });
    await waitFor('an end of the drain', async () => (await this.#drained()).length === 0);
    await waitFor('the pools', () => this.#poolsReady());
  }

  ready() {
    return waitFor('the pools', () => this.#poolsReady());
  }
}

/** @param pacts as read. `close()` leaves nothing behind. */
export async function startProvider(pacts) {
  const home = mkdtempSync(join(tmpdir(), 'llama-orch-pact-'));
  // PostgreSQL does not run as root: its own user has to reach the folder.
  chmodSync(home, 0o711);
  writeFileSync(join(home, 'sim-unready'), '');
  const closers = [async () => rmSync(home, { recursive: true, force: true })];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void close().finally(() => process.exit(130)));
  try {
    const { url, stop } = await startDatabase(join(home, 'database'));
    closers.push(stop);
    const pools = poolsFor(pacts);
    const plane = await startPlane({ home: join(home, 'plane'), configDir: home }, url, pools);
    closers.push(() => plane.close());
    const database = new pg.Client({ connectionString: url });
    database.on('error', () => {});
    await database.connect();
    closers.push(() => database.end());
    const provider = new Provider(plane, database, pools);
    await provider.ready();
    return Object.assign(provider, { close });
  } catch (error) {
    await close();
    throw error;
  }
}
