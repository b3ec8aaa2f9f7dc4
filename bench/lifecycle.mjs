/**
 * Whole lives of tasks that cost an engine nothing: admitted, leased, streamed as one token, ended, read to their end over
 * REST. At 16 and at 64 callers that each begin the next task when they have seen the end of the last. Against the same
 * number of callers that ask the same engine for the same token, with nothing in between and nothing written down.
 */
import { completionBody, keepAliveAgent, open, post, readText, taskBody } from './http.mjs';
import { count, median, ms, percentile } from './stats.mjs';
import { startEngine, startServer } from './world.mjs';

const CTX = 4096;
const CALLERS = [16, 64];
const SLOTS = 64;
const ROUND_LIMIT_MS = 60_000;

export async function measureLifecycle({ scope, postgres, quick, nodeArgs, say }) {
  const perRound = quick ? 1_000 : 4_000;
  const rounds = quick ? 3 : 5;
  const engine = await startEngine(scope, { tokensPerSecond: 0, slots: SLOTS, ctx: CTX });
  const databaseUrl = await postgres.createDatabase();
  const server = await startServer(scope, { engineUrl: engine.url, databaseUrl, slots: SLOTS, ctx: CTX, nodeArgs });
  const agent = keepAliveAgent(2 * SLOTS);
  const ways = { ours: () => live(server.url, agent), raw: () => askEngine(engine.url, agent) };
  const rows = [];
  for (const callers of CALLERS) {
    const runs = { ours: [], raw: [] };
    for (const call of Object.values(ways)) await run(call, callers, perRound / 4);
    for (let round = 1; round <= rounds; round += 1) {
      for (const [name, call] of Object.entries(ways)) runs[name].push(await run(call, callers, perRound));
      say(`${callers} callers, round ${round} of ${rounds}: ${describe(runs)}`);
    }
    rows.push(...rowsOf(callers, runs));
  }
  agent.destroy();
  for (const child of [server, engine]) await child.stop();
  return rows;
}

async function live(url, agent) {
  const body = taskBody({ max_tokens: 1 });
  await post(`${url}/v1/tasks`, body, { agent });
  const text = await readText(await open(`${url}/v1/tasks/${body.task_id}/stream`, { agent }));
  if (!text.includes('event: end\n')) throw new Error(`a task did not end well: ${text}`);
}

async function askEngine(url, agent) {
  await readText(await open(`${url}/completion`, { agent, method: 'POST', body: completionBody(1) }));
}

async function run(call, callers, total) {
  const tookMs = [];
  let left = total;
  const startedMs = performance.now();
  const caller = async () => {
    while (left > 0) {
      left -= 1;
      const beganMs = performance.now();
      await call();
      tookMs.push(performance.now() - beganMs);
      if (performance.now() - startedMs > ROUND_LIMIT_MS) throw new Error(`a round took over ${ROUND_LIMIT_MS} ms`);
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  return { perSecond: (total * 1000) / (performance.now() - startedMs), p99Ms: percentile(tookMs, 99) };
}

function describe(runs) {
  return Object.entries(runs)
    .map(([name, list]) => `${name} ${count(list[list.length - 1].perSecond)}/s`)
    .join(', ');
}

function rowsOf(callers, { ours, raw }) {
  const rate = (list) => median(list.map(({ perSecond }) => perSecond));
  const tail = (list) => median(list.map(({ p99Ms }) => p99Ms));
  const ratio = median(ours.map(({ perSecond }, round) => perSecond / raw[round].perSecond));
  return [
    {
      what: `whole lives of tasks/s, ${callers} callers`,
      ours: count(rate(ours)),
      raw: `${count(rate(raw))} (engine alone)`,
      result: `${ratio.toFixed(2)} of the engine alone`,
      aim: '',
    },
    {
      what: `a life from submission to its end, p99, ${callers} callers`,
      ours: ms(tail(ours)),
      raw: `${ms(tail(raw))} (engine alone)`,
      result: `${ms(tail(ours) - tail(raw))} ours`,
      aim: '',
    },
  ];
}
