/**
 * The thundering herd: every reader of a running task comes back at the same moment, each to where it was, over REST.
 * Measured from that moment to the first token that a reader had missed. Then the task is cancelled, and each of them must
 * have seen every token from its place to the end, once. Beside it: what it takes bare node:http to answer as many.
 */
import { keepAliveAgent, open, post, readText, taskBody, watchFrames } from './http.mjs';
import { cpuSeconds } from './scope.mjs';
import { count, ms, percentile } from './stats.mjs';
import { startEngine, startHelper, startServer } from './world.mjs';

const CTX = 8192;
const TOKENS_PER_SECOND = 50;
const MISSED = 100;

export async function measureResuming({ scope, postgres, quick, nodeArgs, say }) {
  const readers = quick ? 500 : 5_000;
  const engine = await startEngine(scope, { tokensPerSecond: TOKENS_PER_SECOND, slots: 1, ctx: CTX });
  const databaseUrl = await postgres.createDatabase();
  const server = await startServer(scope, { engineUrl: engine.url, databaseUrl, slots: 1, ctx: CTX, nodeArgs });
  const bare = await startHelper(scope, 'idleServer.mjs');
  const raw = await herd(bare, readers, (agent) => open(bare.url, { agent }));
  say(`bare: ${describe(raw)}`);
  const task = `${server.url}/v1/tasks/${await runningTask(server.url)}`;
  const texts = [];
  const ours = await herd(
    server,
    readers,
    (agent) => comeBack(`${task}/stream?after=0`, agent, texts),
    async () => {
      await post(`${task}/cancel`, {}, { expected: 204 });
      for (const text of await Promise.all(texts)) checkComplete(text);
    },
  );
  say(`ours: ${describe(ours)}`);
  for (const child of [server, bare, engine]) await child.stop();
  return rowsOf(readers, ours, raw);
}

/** A task that has said so much already. */
async function runningTask(url) {
  const body = taskBody({ ctx: CTX, max_tokens: CTX - 100 });
  await post(`${url}/v1/tasks`, body, {});
  const response = await open(`${url}/v1/tasks/${body.task_id}/stream`, {});
  await new Promise((resolve) => {
    let seen = 0;
    watchFrames(response, Buffer.from('event: token\n'), (n) => {
      seen += n;
      if (seen >= MISSED) resolve();
    });
  });
  response.destroy();
  return body.task_id;
}

/** Resolves with the first of what was missed; the whole text comes with the end of the task. */
async function comeBack(url, agent, texts) {
  const response = await open(url, { agent });
  texts.push(readText(response));
  await new Promise((resolve) => response.once('data', resolve));
}

function checkComplete(text) {
  const ids = [...text.matchAll(/^event: token\nid: (\d+)$/gm)].map(([, id]) => Number(id));
  const isWhole = ids.length >= MISSED && ids.every((id, index) => id === index + 1);
  if (!isWhole || !text.includes('event: end\n'))
    throw new Error(`a reader saw ${ids.length} tokens: ${text.slice(-500)}`);
}

/** Until all have come back; `finish` runs then, and is not measured. */
async function herd(child, readers, comeBackOne, finish = async () => {}) {
  const agent = keepAliveAgent(Number.POSITIVE_INFINITY);
  const cpuBefore = cpuSeconds(child.pid);
  const startedMs = performance.now();
  const tookMs = await Promise.all(
    Array.from({ length: readers }, async () => {
      await comeBackOne(agent);
      return performance.now() - startedMs;
    }),
  );
  const cpu = cpuSeconds(child.pid) - cpuBefore;
  await finish();
  agent.destroy();
  return { p50Ms: percentile(tookMs, 50), p99Ms: percentile(tookMs, 99), cpu };
}

function describe({ p50Ms, p99Ms, cpu }) {
  return `p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}, ${cpu.toFixed(2)} s of CPU`;
}

function rowsOf(readers, ours, raw) {
  const name = `${count(readers)} readers come back at once`;
  const row = (what, of, result, aim) => ({
    ...{ what: `${name}: ${what}`, ours: of(ours), raw: `${of(raw)} (bare)` },
    ...{ result, aim },
  });
  const times = (a, b) => `${(a / b).toFixed(1)} × bare`;
  return [
    row('first of what was missed, p50', (run) => ms(run.p50Ms), times(ours.p50Ms, raw.p50Ms), ''),
    row('first of what was missed, p99', (run) => ms(run.p99Ms), times(ours.p99Ms, raw.p99Ms), '≤ 5 000 ms'),
    row(
      'CPU of the process',
      ({ cpu }) => `${cpu.toFixed(2)} s`,
      `${((ours.cpu * 1000) / readers).toFixed(2)} ms each`,
      '',
    ),
  ];
}
