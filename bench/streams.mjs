/**
 * Many streams at once at a reading pace: how evenly their tokens come, and what the server spends on them. Read over
 * REST, against a plain Node pipe in front of the same engine. The gap is the time between two tokens of one stream as its
 * reader sees them; tokens that come together have none between them, so delivering in lumps shows as a long tail.
 * Tokens, gaps and CPU time are those of a window in which all streams run.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { completionBody, ENGINE_TOKEN, keepAliveAgent, open, post, SSE_TOKEN, taskBody, watchFrames } from './http.mjs';
import { cpuSeconds } from './scope.mjs';
import { count, ms, percentile } from './stats.mjs';
import { HOOKED, startEngine, startHelper, startServer } from './world.mjs';

const CTX = 4096;
const TOKENS_PER_SECOND = 50;
/** More than are watched: no stream ends within the window. */
const TOKENS = 4_000;
const OPEN_AT_ONCE = 32;
const SETTLE_MS = 3_000;

export async function measureStreams({ scope, postgres, quick, nodeArgs, say }) {
  const streams = quick ? 200 : 1_000;
  const windowMs = quick ? 3_000 : 10_000;
  const engine = await startEngine(scope, { tokensPerSecond: TOKENS_PER_SECOND, slots: streams, ctx: CTX });
  const proxy = await startHelper(scope, 'proxy.mjs', [engine.url], HOOKED);
  const raw = await watch(proxy, windowMs, streams, (agent) => openAtEngine(proxy.url, agent));
  say(`pipe: ${describe(raw)}`);
  await proxy.stop();
  const databaseUrl = await postgres.createDatabase();
  const server = await startServer(scope, {
    ...{ engineUrl: engine.url, databaseUrl, slots: streams, ctx: CTX },
    nodeArgs: [...HOOKED, ...nodeArgs],
  });
  const ours = await watch(server, windowMs, streams, (agent) => openTask(server.url, agent));
  say(`ours: ${describe(ours)}`);
  for (const child of [server, engine]) await child.stop();
  return rowsOf(streams, ours, raw);
}

async function openTask(url, agent) {
  const body = taskBody({ ctx: CTX, max_tokens: TOKENS });
  await post(`${url}/v1/tasks`, body, { agent });
  return { needle: SSE_TOKEN, response: await open(`${url}/v1/tasks/${body.task_id}/stream`, { agent }) };
}

async function openAtEngine(url, agent) {
  const call = { agent, method: 'POST', body: completionBody(TOKENS) };
  return { needle: ENGINE_TOKEN, response: await open(`${url}/completion`, call) };
}

/** Opens the streams, lets them settle, and looks at them for the window. */
async function watch(child, windowMs, streams, openOne) {
  const agent = keepAliveAgent(Number.POSITIVE_INFINITY);
  const before = await child.memory();
  const gapsMs = [];
  let tokens = 0;
  let watching = false;
  let ended = 0;
  const follow = ({ response, needle }) => {
    let lastMs = null;
    const onTokens = (n) => {
      const nowMs = performance.now();
      if (watching) {
        tokens += n;
        if (lastMs !== null) gapsMs.push(nowMs - lastMs);
        for (let same = 1; same < n; same += 1) gapsMs.push(0);
      }
      lastMs = nowMs;
    };
    watchFrames(response, needle, onTokens);
    response.once('close', () => {
      ended += 1;
    });
  };
  for (let from = 0; from < streams; from += OPEN_AT_ONCE) {
    const some = Array.from({ length: Math.min(OPEN_AT_ONCE, streams - from) }, () => openOne(agent));
    for (const opened of await Promise.all(some)) follow(opened);
  }
  await sleep(SETTLE_MS);
  const cpuBefore = cpuSeconds(child.pid);
  const startedMs = performance.now();
  watching = true;
  await sleep(windowMs);
  watching = false;
  const seconds = (performance.now() - startedMs) / 1000;
  const cpu = cpuSeconds(child.pid) - cpuBefore;
  const after = await child.memory();
  if (ended > 0) throw new Error(`${ended} of ${streams} streams ended while they were watched`);
  agent.destroy();
  return {
    tokensPerSecond: tokens / seconds,
    p50Ms: percentile(gapsMs, 50),
    p99Ms: percentile(gapsMs, 99),
    cores: cpu / seconds,
    bytes: (after.rss - before.rss) / streams,
  };
}

function describe({ tokensPerSecond, p50Ms, p99Ms, cores }) {
  return `${count(tokensPerSecond)} tokens/s, gap p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}, ${cores.toFixed(2)} cores`;
}

function rowsOf(streams, ours, raw) {
  const name = `${count(streams)} streams of ${TOKENS_PER_SECOND} tokens/s`;
  const row = (what, of, result) => ({
    what: `${name}: ${what}`,
    ours: of(ours),
    raw: `${of(raw)} (pipe)`,
    result,
    aim: '',
  });
  const kilobytes = (bytes) => `${(bytes / 1000).toFixed(0)} kB`;
  return [
    row(
      'tokens/s',
      (run) => count(run.tokensPerSecond),
      `${(ours.tokensPerSecond / raw.tokensPerSecond).toFixed(2)} of the pipe`,
    ),
    row('gap between tokens, p99', (run) => ms(run.p99Ms), `${ms(ours.p99Ms - raw.p99Ms)} ours`),
    row('cores used', (run) => run.cores.toFixed(2), `${(ours.cores / raw.cores).toFixed(1)} × the pipe`),
    row('resident memory of a stream', (run) => kilobytes(run.bytes), `${kilobytes(ours.bytes - raw.bytes)} ours`),
  ];
}
