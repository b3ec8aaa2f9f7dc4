/**
 * Memory of one idle subscriber: the server's after a forced full collection, before and after many subscribers of
 * queued tasks (a task each) have come, divided by their number. REST: one connection each. WebSocket: 100 operations
 * a socket, which is the server's limit, so each carries a hundredth of a socket. Live memory is what the process can
 * name (V8 heap, external memory); resident memory is what the system sees, with allocator slack. Every number is of a
 * fresh process on the same database. Beside it: bare node:http event streams, and bare `ws` sockets, of equal number.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { keepAliveAgent, open, post, taskBody } from './http.mjs';
import { EVENTS, GraphSocket, openSocket } from './socket.mjs';
import { kilobytes } from './stats.mjs';
import { HOOKED, startEngine, startHelper, startServer } from './world.mjs';

const CTX = 4096;
const PER_SOCKET = 100;
const SETTLE_MS = 1_000;
const OPEN_AT_ONCE = 32;

export async function measureSubscribers({ scope, postgres, quick, say }) {
  const total = quick ? 1_000 : 2_000;
  const engine = await startEngine(scope, { tokensPerSecond: 1, slots: 1, ctx: CTX });
  const databaseUrl = await postgres.createDatabase();
  const start = () => startServer(scope, { engineUrl: engine.url, databaseUrl, slots: 1, ctx: CTX, nodeArgs: HOOKED });
  const tasks = await queueTasks(start, total + PER_SOCKET);
  const ours = {
    sse: await perSubscriber(start, sseReaders, tasks),
    ws: await perSubscriber(start, socketReaders, tasks),
  };
  say(`ours: ${describe(ours)}`);
  const bare = () => startHelper(scope, 'idleServer.mjs', [], HOOKED);
  const raw = { sse: await perSubscriber(bare, sseReaders, tasks), ws: await perSubscriber(bare, bareSockets, tasks) };
  say(`raw: ${describe(raw)}`);
  await engine.stop();
  return [
    ...rowsOf('REST SSE', ours.sse, raw.sse),
    ...rowsOf(`GraphQL WebSocket, ${PER_SOCKET} a socket`, ours.ws, raw.ws),
  ];
}

/** Durable, so later servers on the same database have them; the first one takes the only slot. */
async function queueTasks(start, total) {
  const server = await start();
  const agent = keepAliveAgent(OPEN_AT_ONCE);
  const bodies = Array.from({ length: total + 1 }, () => taskBody({ max_tokens: 3000, ctx: CTX }));
  const submitOne = (body) => post(`${server.url}/v1/tasks`, body, { agent });
  await submitOne(bodies[0]);
  await inBatches(bodies.slice(1), submitOne);
  agent.destroy();
  await server.stop();
  return bodies.slice(1).map((body) => body.task_id);
}

/** Bytes per subscriber, live and resident, of a fresh process that has served a few before. */
async function perSubscriber(start, subscribe, tasks) {
  const server = await start();
  const warm = await subscribe(server.url, tasks.slice(0, PER_SOCKET));
  await sleep(SETTLE_MS);
  const before = await server.memory();
  const rest = tasks.slice(PER_SOCKET);
  const group = await subscribe(server.url, rest);
  await sleep(SETTLE_MS);
  const after = await server.memory();
  for (const { check } of [warm, group]) check();
  for (const { close } of [warm, group]) close();
  await server.stop();
  const live = ({ heapUsed, external }) => heapUsed + external;
  return { live: (live(after) - live(before)) / rest.length, resident: (after.rss - before.rss) / rest.length };
}

async function sseReaders(url, tasks) {
  const agent = keepAliveAgent(Number.POSITIVE_INFINITY);
  let ended = 0;
  const responses = await inBatches(tasks, (task) => open(`${url}/v1/tasks/${task}/stream`, { agent }));
  for (const response of responses) {
    response.on('error', () => {});
    response.once('close', () => {
      ended += 1;
    });
    response.resume();
  }
  const check = () => {
    if (ended > 0) throw new Error(`${ended} of ${tasks.length} idle event streams ended`);
  };
  return { check, close: () => agent.destroy() };
}

async function socketReaders(url, tasks) {
  const sockets = [];
  for (let from = 0; from < tasks.length; from += PER_SOCKET) {
    const socket = await GraphSocket.connect(url);
    for (const taskId of tasks.slice(from, from + PER_SOCKET)) {
      socket.run(EVENTS, { taskId }, () => {}).catch(() => {});
    }
    await socket.ping();
    sockets.push(socket);
  }
  const check = () => {
    const running = sockets.reduce((sum, socket) => sum + socket.running, 0);
    if (running !== tasks.length) throw new Error(`${running} of ${tasks.length} idle subscriptions are left`);
  };
  return { check, close: () => sockets.map((socket) => socket.close()) };
}

async function bareSockets(url, tasks) {
  const sockets = await inBatches(Array.from({ length: Math.ceil(tasks.length / PER_SOCKET) }), () => openSocket(url));
  const check = () => {
    if (sockets.some((socket) => socket.readyState !== socket.OPEN)) throw new Error('an idle socket was closed');
  };
  return { check, close: () => sockets.map((socket) => socket.terminate()) };
}

async function inBatches(items, each) {
  const results = [];
  for (let from = 0; from < items.length; from += OPEN_AT_ONCE) {
    results.push(...(await Promise.all(items.slice(from, from + OPEN_AT_ONCE).map(each))));
  }
  return results;
}

function describe(groups) {
  return Object.entries(groups)
    .map(([name, { live, resident }]) => `${name} ${kilobytes(live)} live, ${kilobytes(resident)} resident`)
    .join('; ');
}

function rowsOf(name, ours, raw) {
  const row = (what, field, aim) => ({
    what: `${what} of an idle subscriber, ${name}`,
    ours: kilobytes(ours[field]),
    raw: `${kilobytes(raw[field])} (bare)`,
    result: `${kilobytes(ours[field] - raw[field])} ours`,
    aim,
  });
  return [row('live memory', 'live', '≤ 20 kB'), row('resident memory', 'resident', '')];
}
