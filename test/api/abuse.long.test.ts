/** Floods and slow drips against the real program: it lets go of them, stays small, and serves everybody else meanwhile. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { delay } from '../../src/runtime/wait.js';
import { type MeasuredServer, startMeasured } from '../support/measured.js';
import { post } from '../support/rest.js';

const MIB = 1024 ** 2;
/** Heap and buffers that a flood may leave behind, after a collection: compiled code. */
const MAX_LEFT_BYTES = 16 * MIB;
/** While a flood lasts: what thousands of sockets, and what is read of their bytes until the next collection, may take. */
const MAX_PEAK_BYTES = 128 * MIB;
/** CPU of the longest that the loop is held, in a flood of thousands of events that may come in one turn. */
const MAX_TURN_MS = 1_500;

let server: MeasuredServer;
const table: string[] = [];

beforeAll(async () => {
  server = await startMeasured();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  console.log(`\n${table.join('\n')}`);
});

/** Runs a flood and holds what it did to the server against the bounds. */
async function withinBounds(name: string, flood: () => Promise<void>): Promise<void> {
  const before = await server.liveBytes();
  const rss = server.rssBytes();
  server.resetPeak();
  const { longestTurnMs, cpuMs } = await server.measure(flood);
  const peak = server.peakBytes() - rss;
  const left = async () => (await server.liveBytes()) - before;
  await expect.poll(left, { timeout: 30_000 }).toBeLessThan(MAX_LEFT_BYTES);
  const numbers = [peak / MIB, (await left()) / MIB].map((value) => value.toFixed(1));
  table.push(
    `${name.padEnd(28)} turn ${longestTurnMs.toFixed(1)} ms, cpu ${cpuMs.toFixed(0)} ms, peak ${numbers[0]}, left ${numbers[1]} MiB`,
  );
  expect(longestTurnMs).toBeLessThan(MAX_TURN_MS);
  expect(peak).toBeLessThan(MAX_PEAK_BYTES);
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

const NO_HELLO = 4408;

async function greeted(tries = 3): Promise<WebSocket> {
  const socket = await openSocket();
  const closed = closeCode(socket);
  // It may end in an error when this has long been answered.
  closed.catch(() => {});
  socket.send(JSON.stringify({ type: 'connection_init' }));
  const code = await Promise.race([once(socket, 'message').then(() => null), closed]);
  if (code === null) return socket;
  // A machine that stands still for so long lets the server see the hello too late.
  if (code === NO_HELLO && tries > 1) return greeted(tries - 1);
  throw new Error(`a socket was closed with ${code} before it was greeted`);
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

/** Sends until the other side has gone. */
async function flooded(socket: WebSocket, send: () => void): Promise<void> {
  let gone = false;
  // A paused socket never reads that it is closed; that its bytes are not taken any more is seen by writing.
  socket.on('error', () => {
    gone = true;
  });
  socket.on('close', () => {
    gone = true;
  });
  for (let sent = 0; !gone && sent < 2_000_000; sent += 200) {
    for (let count = 0; count < 200; count += 1) send();
    if (socket.bufferedAmount > MIB) socket.resume();
    await delay(0);
  }
  expect(gone).toBe(true);
}

/** Sends chunks of a body as long as they are taken. */
async function pour(start: string): Promise<string> {
  const socket = await open();
  let answer = '';
  socket.setEncoding('latin1').on('data', (text: string) => {
    answer += text;
  });
  const closed = new Promise((resolve) => socket.once('close', resolve));
  const chunk = `10000\r\n${'x'.repeat(64 * 1024)}\r\n`;
  const more = (): void => {
    while (socket.writable && socket.write(chunk));
  };
  socket.on('drain', more).write(start);
  more();
  await closed;
  return answer;
}

describe('slow clients', () => {
  it('are let go: headers by the drop, bodies by the drop, and a thousand that say nothing', async () => {
    await withinBounds('slow clients', async () => {
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
    await withinBounds('mute and greedy sockets', async () => {
      const mute = await Promise.all(Array.from({ length: 1_000 }, openSocket));
      const codes = await Promise.all(mute.map(closeCode));
      expect(new Set(codes)).toEqual(new Set([4408]));
      const greedy = await Promise.all(Array.from({ length: 20 }, () => greeted()));
      const ended = greedy.map(closeCode);
      const payload = { query: 'subscription { poolEvents { __typename } }' };
      for (const socket of greedy) {
        for (let id = 0; id < 5_000; id += 1) {
          socket.send(JSON.stringify({ id: String(id), type: 'subscribe', payload }));
        }
      }
      for (const code of await Promise.all(ended)) expect(code).toBeOneOf([1006, 1013]);
    });
  }, 120_000);

  it('are cut at the bound of a message, whole or in pieces', async () => {
    await withinBounds('messages beyond the bound', async () => {
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

describe('floods on sockets', () => {
  it('of hellos are ended at the second', async () => {
    await withinBounds('hellos', async () => {
      const sockets = await Promise.all(Array.from({ length: 500 }, openSocket));
      const ended = sockets.map(closeCode);
      for (const socket of sockets) {
        for (let hello = 0; hello < 50; hello += 1) socket.send('{"type":"connection_init"}');
      }
      expect(new Set(await Promise.all(ended))).toEqual(new Set([4429]));
    });
  }, 60_000);

  it('of pings are answered to those that read, and end those that do not', async () => {
    await withinBounds('pings', async () => {
      const reader = await greeted();
      let pongs = 0;
      reader.on('pong', () => {
        pongs += 1;
      });
      for (let sent = 1; sent <= 5_000; sent += 1) {
        reader.ping('x'.repeat(100));
        if (sent % 500 === 0) await expect.poll(() => pongs).toBe(sent);
      }
      reader.terminate();
      const deaf = await Promise.all(Array.from({ length: 20 }, () => greeted()));
      for (const socket of deaf) socket.pause();
      const gone = deaf.map((socket) => flooded(socket, () => socket.ping('x'.repeat(100))));
      await Promise.all(gone);
    });
  }, 120_000);

  it('of what is no operation, or one more of the same name, are ended', async () => {
    await withinBounds('broken messages', async () => {
      const messages = ['{"type":"next"}', '{', '[]', 'x'.repeat(10_000), '{"id":"1","type":"subscribe","payload":{}}'];
      for (const message of messages) {
        const sockets = await Promise.all(Array.from({ length: 50 }, () => greeted()));
        const ended = sockets.map(closeCode);
        for (const socket of sockets) socket.send(message);
        expect(new Set(await Promise.all(ended))).toEqual(new Set([4400]));
      }
      const twice = await Promise.all(Array.from({ length: 50 }, () => greeted()));
      const ended = twice.map(closeCode);
      const payload = { query: 'subscription { poolEvents { __typename } }' };
      for (const socket of twice) {
        for (let sent = 0; sent < 2; sent += 1) socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload }));
      }
      expect(new Set(await Promise.all(ended))).toEqual(new Set([4409]));
    });
  }, 60_000);
});

describe('floods of requests', () => {
  it('whose bodies have no end are answered, and closed soon after', async () => {
    await withinBounds('bodies without end', async () => {
      const start = 'POST /v1/tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n';
      const lengths = ['content-length: 100000000000\r\n\r\n', 'transfer-encoding: chunked\r\n\r\n'];
      const answers = lengths.flatMap((length) => Array.from({ length: 10 }, () => pour(start + length)));
      for (const answer of await Promise.all(answers)) expect(answer).toMatch(/^(HTTP\/1\.1 413 |$)/);
    });
  }, 60_000);

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
    await withinBounds('documents', async () => {
      for (let round = 0; round < 10; round += 1) {
        const answers = await Promise.all(DOCUMENTS.map((query) => post(server.url, '/graphql', { query })));
        for (const answer of answers) expect(await answer.text()).toContain('"errors"');
      }
    });
  }, 120_000);

  it('of bodies cost no more than the largest that is read', async () => {
    await withinBounds('bodies', async () => {
      const body = JSON.stringify({ query: '{ __typename }', variables: { a: 'x'.repeat(10 * MIB) } });
      for (let round = 0; round < 10; round += 1) {
        const answers = await Promise.allSettled(Array.from({ length: 10 }, () => post(server.url, '/graphql', body)));
        for (const answer of answers) if (answer.status === 'fulfilled') expect(answer.value.status).toBe(413);
        await delay(10);
      }
    });
  }, 120_000);

  it('of requests sent ahead on one connection end it, without a pile of answers', async () => {
    await withinBounds('requests sent ahead', async () => {
      const request = 'GET /v1/capabilities HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n';
      for (let round = 0; round < 10; round += 1) {
        const socket = await open();
        const closed = new Promise((resolve) => socket.once('close', resolve));
        socket.resume();
        expect(socket.write(request.repeat(200_000))).toBe(false);
        await closed;
      }
    });
  }, 60_000);
});
