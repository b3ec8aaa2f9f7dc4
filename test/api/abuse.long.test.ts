/** Floods and slow drips against the real program: it lets go of them, stays small, and serves everybody else meanwhile. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { delay } from '../../src/runtime/wait.js';
import { scrape } from '../support/metrics.js';
import { post } from '../support/rest.js';
import { makeHome, type ServerProcess, startServer } from '../support/server.js';

const MIB = 1024 ** 2;
/** What a flood may leave behind: pools of buffers, compiled code. */
const MAX_GROWTH_BYTES = 128 * MIB;
/** A machine of two cores that runs other tests too; an unbounded loop takes many times as long. */
const MAX_STALL_S = 2;

let home: Awaited<ReturnType<typeof makeHome>>;
let server: ServerProcess;

beforeAll(async () => {
  home = await makeHome();
  server = await startServer(home.path);
});
afterAll(() => home?.remove());

function rssBytes(): number {
  const [, kib] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8')) ?? [];
  return Number(kib) * 1024;
}

/** Runs a flood and holds what it did to the server against the bounds. */
async function withinBounds(flood: () => Promise<void>): Promise<void> {
  await scrape(server.url); // begins the measurement of stalls anew
  const before = rssBytes();
  await flood();
  const [stall] = (await scrape(server.url)).get('nodejs_eventloop_lag_max_seconds') ?? [];
  expect(stall?.value).toBeLessThan(MAX_STALL_S);
  await expect.poll(() => rssBytes() - before, { timeout: 30_000 }).toBeLessThan(MAX_GROWTH_BYTES);
  expect((await fetch(`${server.url}/ready`)).status).toBe(200);
}

function open(): Promise<Socket> {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  return once(socket, 'connect').then(() => socket);
}

async function openSocket(): Promise<WebSocket> {
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws');
  await once(socket, 'open');
  socket.on('error', () => {});
  return socket;
}

async function greeted(): Promise<WebSocket> {
  const socket = await openSocket();
  socket.send(JSON.stringify({ type: 'connection_init' }));
  await once(socket, 'message');
  return socket;
}

async function closeCode(socket: WebSocket): Promise<number> {
  const [code] = (await once(socket, 'close')) as [number];
  return code;
}

/** Writes a byte every 500 ms until the other side closes. */
async function drip(start: string): Promise<{ answer: string; afterMs: number }> {
  const socket = await open();
  const startedMs = performance.now();
  let answer = '';
  socket.setEncoding('latin1').on('data', (text: string) => {
    answer += text;
  });
  socket.write(start);
  const timer = setInterval(() => socket.write('a'), 500);
  await once(socket, 'close');
  clearInterval(timer);
  return { answer, afterMs: performance.now() - startedMs };
}

describe('slow clients', () => {
  it('are let go: headers by the drop, bodies by the drop, and a thousand that say nothing', async () => {
    await withinBounds(async () => {
      const honest = setInterval(() => void fetch(`${server.url}/health`).then((answer) => answer.text()), 200);
      const silent = await Promise.all(Array.from({ length: 1_000 }, open));
      for (const socket of silent) socket.resume();
      const allClosed = Promise.all(silent.map((socket) => once(socket, 'close')));
      const length = 'content-type: application/json\r\ncontent-length: 1000\r\n\r\n';
      const [headers, body] = await Promise.all([
        drip('GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: '),
        drip(`POST /v1/tasks HTTP/1.1\r\nhost: 127.0.0.1\r\n${length}`),
        allClosed,
      ]);
      clearInterval(honest);
      expect(headers.answer).toMatch(/^HTTP\/1\.1 408 /);
      expect(headers.afterMs).toBeLessThan(25_000);
      expect(body.answer).toMatch(/^HTTP\/1\.1 408 /);
      expect(body.afterMs).toBeLessThan(50_000);
    });
  }, 120_000);
});

describe('floods of sockets', () => {
  it('are ended: those that never say hello, and those that ask for thousands of operations', async () => {
    await withinBounds(async () => {
      const mute = await Promise.all(Array.from({ length: 1_000 }, openSocket));
      const codes = await Promise.all(mute.map(closeCode));
      expect(new Set(codes)).toEqual(new Set([4408]));
      const greedy = await Promise.all(Array.from({ length: 20 }, greeted));
      const ended = greedy.map(closeCode);
      const payload = { query: 'subscription { poolEvents { seq } }' };
      for (const socket of greedy) {
        for (let id = 0; id < 5_000; id += 1) {
          socket.send(JSON.stringify({ id: String(id), type: 'subscribe', payload }));
        }
      }
      for (const code of await Promise.all(ended)) expect(code).toBeOneOf([1006, 1013]);
    });
  }, 120_000);

  it('are cut at the bound of a message, whole or in pieces', async () => {
    await withinBounds(async () => {
      const whole = await openSocket();
      const wholeEnded = closeCode(whole);
      whole.send('x'.repeat(100 * MIB));
      expect(await wholeEnded).toBeOneOf([1006, 1009]);
      const pieces = await openSocket();
      const piecesEnded = closeCode(pieces);
      for (let sent = 0; sent < 20_000; sent += 1) pieces.send('x', { fin: false });
      expect(await piecesEnded).toBeOneOf([1006, 1008]);
    });
  }, 60_000);
});

describe('floods of requests', () => {
  const DOCUMENTS = [
    `{ ${Array.from({ length: 5_000 }, (_, index) => `a${index}: __typename`).join(' ')} }`,
    `{ ${'__typename '.repeat(80_000)} }`,
    `{ __typename ${'@skip(if: false) '.repeat(50_000)} }`,
    `{ ...f0 } ${Array.from({ length: 400 }, (_, i) => `fragment f${i} on Query { ...f${i + 1} ...f${i + 1} }`).join(' ')}`,
    `{ ${'pools { replicas { pool { '.repeat(2_000)}`,
    `query (${Array.from({ length: 5_000 }, (_, index) => `$v${index}: Int`).join(' ')}) { __typename }`,
    `{ a: tasks(first: 100) { edges { node { pool { tasks(first: 100) { edges { node { text } } } } } } } }`,
  ];

  it('of documents cost a refusal each', async () => {
    await withinBounds(async () => {
      for (let round = 0; round < 10; round += 1) {
        const answers = await Promise.all(DOCUMENTS.map((query) => post(server.url, '/graphql', { query })));
        for (const answer of answers) expect(await answer.text()).toContain('"errors"');
      }
    });
  }, 120_000);

  it('of bodies cost no more than the largest that is read', async () => {
    await withinBounds(async () => {
      const body = JSON.stringify({ query: '{ __typename }', variables: { a: 'x'.repeat(10 * MIB) } });
      for (let round = 0; round < 10; round += 1) {
        const answers = await Promise.allSettled(Array.from({ length: 10 }, () => post(server.url, '/graphql', body)));
        for (const answer of answers) if (answer.status === 'fulfilled') expect(answer.value.status).toBe(413);
        await delay(10);
      }
    });
  }, 120_000);

  it('of requests sent ahead on one connection are answered in turn, without a pile of answers', async () => {
    await withinBounds(async () => {
      const socket = await open();
      const request = 'GET /v1/capabilities HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n';
      socket.pause();
      const sent = socket.write(request.repeat(200_000));
      expect(sent).toBe(false);
      await delay(3_000);
      socket.destroy();
    });
  }, 60_000);
});
