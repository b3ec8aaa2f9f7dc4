/**
 * Time to the first token on an idle server, and how much of it we add. One caller, one task of 1 to 4 tokens after the
 * other; a direct call to the same engine process stands between every two of ours, so that what else the machine does
 * hits all alike. REST: from sending POST /v1/tasks to the first token frame of GET …/stream, both on kept-alive
 * connections. GraphQL: mutation, then subscription, on one open socket. Added: percentile minus percentile.
 * Beside them stands what one durable single-row INSERT takes, which no durable admission can be faster than.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { completionBody, countFrames, ENGINE_TOKEN, keepAliveAgent, open, post, SSE_TOKEN, taskBody } from './http.mjs';
import { EVENTS, GraphSocket, submit } from './socket.mjs';
import { ms, percentile } from './stats.mjs';
import { startEngine, startServer } from './world.mjs';

const CTX = 4096;
const SLOTS = 4;
const WARM_UP = 30;
/** What a task leaves behind (its ending, the next look at the queue) is over by then. */
const PAUSE_MS = 5;

export async function measureFirstToken({ scope, postgres, quick, nodeArgs, say }) {
  const samples = quick ? 100 : 300;
  const engine = await startEngine(scope, { tokensPerSecond: 0, slots: SLOTS, ctx: CTX });
  const databaseUrl = await postgres.createDatabase();
  const server = await startServer(scope, { engineUrl: engine.url, databaseUrl, slots: SLOTS, ctx: CTX, nodeArgs });
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query('CREATE TABLE bench_commit (id uuid PRIMARY KEY)');
  const agent = keepAliveAgent(1);
  const socket = await GraphSocket.connect(server.url);
  const paths = {
    direct: (tokens) => direct(engine.url, agent, tokens),
    rest: (tokens) => rest(server.url, agent, tokens),
    ws: (tokens) => overSocket(socket, tokens),
    commit: () => commit(client),
  };
  const times = { direct: [], rest: [], ws: [], commit: [] };
  for (let n = -WARM_UP; n < samples; n += 1) {
    for (const [name, path] of Object.entries(paths)) {
      const sample = await path(1 + (Math.abs(n) % 4));
      if (n >= 0) times[name].push(sample);
      await sleep(PAUSE_MS);
    }
    if (n >= 0 && (n + 1) % 100 === 0) say(`${n + 1} of ${samples} tasks: ${describe(times)}`);
  }
  socket.close();
  agent.destroy();
  await client.end();
  for (const child of [server, engine]) await child.stop();
  return rowsOf(times);
}

/** @typedef {{ submitMs: number, firstMs: number }} Sample */

/** @returns {Promise<Sample>} */
async function direct(url, agent, tokens) {
  const startMs = performance.now();
  const response = await open(`${url}/completion`, { agent, method: 'POST', body: completionBody(tokens) });
  const { firstMs } = await countFrames(response, ENGINE_TOKEN);
  return { submitMs: 0, firstMs: firstMs - startMs };
}

/** @returns {Promise<Sample>} */
async function rest(url, agent, tokens) {
  const body = taskBody({ max_tokens: tokens });
  const startMs = performance.now();
  await post(`${url}/v1/tasks`, body, { agent });
  const submitMs = performance.now() - startMs;
  const response = await open(`${url}/v1/tasks/${body.task_id}/stream`, { agent });
  const { firstMs } = await countFrames(response, SSE_TOKEN);
  return { submitMs, firstMs: firstMs - startMs };
}

/** @returns {Promise<Sample>} */
async function overSocket(socket, tokens) {
  const body = taskBody({ max_tokens: tokens });
  const startMs = performance.now();
  await submit(socket, body);
  const submitMs = performance.now() - startMs;
  let firstMs = 0;
  await socket.run(EVENTS, { taskId: body.task_id }, ({ taskEvents }) => {
    if (firstMs === 0 && taskEvents.tokens !== undefined) firstMs = performance.now() - startMs;
  });
  if (firstMs === 0) throw new Error('the stream ended without a token');
  return { submitMs, firstMs };
}

/** @returns {Promise<Sample>} */
async function commit(client) {
  const startMs = performance.now();
  await client.query({ name: 'commit', text: 'INSERT INTO bench_commit VALUES ($1)', values: [randomUUID()] });
  return { submitMs: 0, firstMs: performance.now() - startMs };
}

function at(samples, field, rank) {
  return percentile(
    samples.map((sample) => sample[field]),
    rank,
  );
}

function describe(times) {
  return Object.entries(times)
    .map(([name, samples]) => `${name} p50 ${ms(at(samples, 'firstMs', 50))}`)
    .join(', ');
}

function rowsOf(times) {
  const row = (what, samples, rank, aim) => {
    const [ours, raw] = [at(samples, 'firstMs', rank), at(times.direct, 'firstMs', rank)];
    return {
      what: `${what}, p${rank}`,
      ours: ms(ours),
      raw: `${ms(raw)} (direct)`,
      result: `${ms(ours - raw)} added`,
      aim,
    };
  };
  const submitRow = (what, samples) => ({
    what: `${what}, p50`,
    ours: ms(at(samples, 'submitMs', 50)),
    raw: `${ms(at(times.commit, 'firstMs', 50))} (one durable INSERT)`,
    result: '',
    aim: '',
  });
  return [
    row('first token, REST', times.rest, 50, '≤ 3 ms added'),
    row('first token, REST', times.rest, 99, '≤ 10 ms added'),
    row('first token, GraphQL WebSocket', times.ws, 50, '≤ 3 ms added'),
    row('first token, GraphQL WebSocket', times.ws, 99, '≤ 10 ms added'),
    submitRow('  of it until the receipt, REST', times.rest),
    submitRow('  of it until the receipt, GraphQL WebSocket', times.ws),
  ];
}
