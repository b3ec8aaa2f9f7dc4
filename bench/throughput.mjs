/**
 * Tokens per second of one task, engine to reader: over REST (SSE) and over GraphQL (WebSocket), against a plain Node
 * pipe that hands the same engine's bytes to the same kind of reader. The engine decodes as fast as it is read, so the
 * slowest part sets the pace; with fewer cores than processes that is the sum of all their work. Time runs from the
 * request to the last token. CPU time is that of the server (or the pipe) alone, from /proc, summed over all rounds because
 * it comes in steps of 10 ms.
 */
import { completionBody, countFrames, ENGINE_TOKEN, keepAliveAgent, open, post, SSE_TOKEN, taskBody } from './http.mjs';
import { cpuSeconds } from './scope.mjs';
import { EVENTS, GraphSocket, submit } from './socket.mjs';
import { count, median } from './stats.mjs';
import { startEngine, startHelper, startServer } from './world.mjs';

const CTX = 1_000_000;
const SLOTS = 4;

/** @typedef {{ tokens: number, tokensPerSecond: number, cpuSeconds: number, tokensPerEvent: number }} Run */

export async function measureThroughput({ scope, postgres, quick, nodeArgs, say }) {
  const tokens = quick ? 100_000 : 300_000;
  const rounds = quick ? 3 : 5;
  const engine = await startEngine(scope, { tokensPerSecond: 0, slots: SLOTS, ctx: CTX });
  const proxy = await startHelper(scope, 'proxy.mjs', [engine.url]);
  const databaseUrl = await postgres.createDatabase();
  const server = await startServer(scope, { engineUrl: engine.url, databaseUrl, slots: SLOTS, ctx: CTX, nodeArgs });
  const socket = await GraphSocket.connect(server.url);
  const paths = {
    pipe: (n) => timed(proxy.pid, n, () => readPipe(proxy.url, n)),
    sse: (n) => timed(server.pid, n, () => readSse(server.url, n)),
    ws: (n) => timed(server.pid, n, () => readSocket(socket, n)),
  };
  for (const run of Object.values(paths)) await run(Math.round(tokens / 4));
  const runs = { pipe: [], sse: [], ws: [] };
  for (let round = 1; round <= rounds; round += 1) {
    for (const [name, run] of Object.entries(paths)) runs[name].push(await run(tokens));
    say(`round ${round} of ${rounds}: ${describe(runs)}`);
  }
  socket.close();
  for (const child of [server, proxy, engine]) await child.stop();
  return rowsOf(runs);
}

/** @returns {Promise<Run>} */
async function timed(pid, tokens, read) {
  const cpuBefore = cpuSeconds(pid);
  const startedMs = performance.now();
  const seen = await read();
  // Writing the ending is part of the work: looked at after the end.
  const cpu = cpuSeconds(pid) - cpuBefore;
  if (seen.count !== tokens) throw new Error(`${seen.count} tokens came of ${tokens}`);
  return {
    tokens,
    tokensPerSecond: (tokens * 1000) / (seen.lastMs - startedMs),
    cpuSeconds: cpu,
    tokensPerEvent: tokens / (seen.events ?? tokens),
  };
}

async function readPipe(url, tokens) {
  const agent = keepAliveAgent(1);
  const response = await open(`${url}/completion`, { agent, method: 'POST', body: completionBody(tokens) });
  const seen = await countFrames(response, ENGINE_TOKEN);
  agent.destroy();
  return seen;
}

async function readSse(url, tokens) {
  const agent = keepAliveAgent(1);
  const body = taskBody({ ctx: CTX, max_tokens: tokens });
  await post(`${url}/v1/tasks`, body, { agent });
  const response = await open(`${url}/v1/tasks/${body.task_id}/stream`, { agent });
  const seen = await countFrames(response, SSE_TOKEN);
  agent.destroy();
  return seen;
}

/** The reader asks for the tokens only; `events` tells by how much it was behind. */
async function readSocket(socket, tokens) {
  const body = taskBody({ ctx: CTX, max_tokens: tokens });
  await submit(socket, body);
  const seen = { count: 0, lastMs: 0, events: 0 };
  await socket.run(EVENTS, { taskId: body.task_id }, ({ taskEvents }) => {
    if (taskEvents.tokens === undefined) return;
    seen.count += taskEvents.tokens.length;
    seen.events += 1;
    seen.lastMs = performance.now();
  });
  return seen;
}

function describe(runs) {
  return Object.entries(runs)
    .map(([name, list]) => `${name} ${count(list[list.length - 1].tokensPerSecond)}/s`)
    .join(', ');
}

/** Tokens per CPU second of the measured process, over all rounds. */
function perCpuSecond(list) {
  const sum = (field) => list.reduce((total, run) => total + run[field], 0);
  return sum('tokens') / Math.max(sum('cpuSeconds'), 0.01);
}

function speedRow(what, list, pipe, aim) {
  const of = (runs) => count(median(runs.map((run) => run.tokensPerSecond)));
  // Each round's ratio is of neighbours in time, so that what else the machine does hits both.
  const ratio = median(list.map((run, round) => run.tokensPerSecond / pipe[round].tokensPerSecond));
  return { what, ours: of(list), raw: `${of(pipe)} (pipe)`, result: `${ratio.toFixed(2)} of the pipe`, aim };
}

function cpuRow(what, list, pipe, aim) {
  const [ours, raw] = [perCpuSecond(list), perCpuSecond(pipe)];
  const result = `${(ours / raw).toFixed(2)} of the pipe`;
  return { what, ours: count(ours), raw: `${count(raw)} (pipe)`, result, aim };
}

function rowsOf({ pipe, sse, ws }) {
  const behind = Math.round(median(ws.map((run) => run.tokensPerEvent)));
  return [
    speedRow('tokens/s, REST SSE', sse, pipe, '≥ 0.5 of the pipe'),
    cpuRow('tokens per CPU second of the process, REST SSE', sse, pipe, ''),
    speedRow(`tokens/s, GraphQL WebSocket (${behind} tokens an event)`, ws, pipe, ''),
    cpuRow('tokens per CPU second of the process, GraphQL WebSocket', ws, pipe, '≥ 100 k'),
  ];
}
