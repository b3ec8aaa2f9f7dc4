/** The server by itself: what it makes of other protocols, of bytes that are none, and of sockets that nobody closes. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Route, readJson, sendJson } from '../../src/rest/router.js';
import { HttpServer } from '../../src/server/http.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { exchange } from '../support/raw.js';

const RULES = { token: null, loopbackOnly: true, loopbackIsFree: true, proxyIsTrusted: false, hosts: [], origins: [] };
const ROUTES: Route[] = [
  { method: 'POST', path: '/echo', handler: async ({ req, res }) => sendJson(res, 200, await readJson(req)) },
  {
    method: 'GET',
    path: '/begun',
    handler: async ({ res }) => {
      res.writeHead(200).write('begun');
    },
  },
];
const never = () => expect.unreachable();

async function startServer() {
  const telemetry = new Telemetry(pino({ level: 'silent' }), createMetrics());
  const server = new HttpServer({ rules: RULES, telemetry });
  const url = `http://127.0.0.1:${await server.listen('127.0.0.1', 0)}`;
  server.open({ routes: ROUTES, graphql: never, graphiql: never, upgrade: never });
  return { server, url };
}

const head = (...lines: string[]) => `${[...lines, 'host: 127.0.0.1'].join('\r\n')}\r\n\r\n`;
const OFFER = ['connection: Upgrade, HTTP2-Settings', 'upgrade: h2c', 'http2-settings: AAMAAABkAAQCAAAAAAIAAAAA'];
const SOCKET = ['connection: upgrade', 'upgrade: websocket'];

let server: HttpServer;
let url: string;
beforeAll(async () => ({ server, url } = await startServer()));
afterAll(() => server.close(1_000));

/** All that came, as answers: each with its head and its body. */
function answersIn(bytes: string) {
  return bytes
    .split(/(?=HTTP\/1\.1 )/)
    .filter((text) => text !== '')
    .map((text) => {
      const [top = '', ...rest] = text.split('\r\n\r\n');
      // Some are in chunks.
      const [body = ''] = /\{.*\}/.exec(rest.join('')) ?? [];
      return { status: Number(top.split(' ')[1]), correlationId: /^x-correlation-id: (.*)$/im.exec(top)?.[1], body };
    });
}

describe('an offer of another protocol is passed over', () => {
  it.each([
    ['whose body came with its head', '{"a":1}', ''],
    ['whose body comes in two parts', '{"a"', ':1}'],
    ['whose body comes later', '', '{"a":1}'],
  ])('of a request %s', async (_what, soon, later) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const lines = ['content-type: application/json', 'content-length: 7', 'x-correlation-id: mine'];
    socket.write(head('POST /echo HTTP/1.1', ...OFFER, ...lines) + soon);
    await once(socket, 'connect');
    if (later !== '') setImmediate(() => socket.write(later));
    await expect.poll(() => answersIn(text)).toMatchObject([{ status: 200, correlationId: 'mine', body: '{"a":1}' }]);
    // The connection stays one like any other.
    socket.write(head('GET /echo HTTP/1.1', ...OFFER) + head('GET /health HTTP/1.1', 'connection: close'));
    await once(socket, 'close');
    expect(answersIn(text).map(({ status }) => status)).toEqual([200, 405, 200]);
  });
});

describe('what cannot be read is answered with the envelope and a correlation id', () => {
  it.each<[string, string, number]>([
    ['headers beyond the limit', head('GET /health HTTP/1.1', `x-long: ${'x'.repeat(20_000)}`), 431],
    ['a second length', head('POST /echo HTTP/1.1', 'content-length: 1', 'content-length: 2'), 400],
    ['an expectation that nobody knows', head('GET /health HTTP/1.1', 'expect: foo'), 417],
    ['a socket elsewhere', head('GET /elsewhere HTTP/1.1', ...SOCKET), 404],
  ])('%s', async (_what, bytes, status) => {
    const answers = answersIn(await exchange(url, bytes));
    expect(answers).toMatchObject([{ status, correlationId: expect.stringMatching(/^[0-9a-f-]{36}$/) }]);
    expect(JSON.parse(answers[0]?.body ?? '')).toMatchObject({
      code: 'INVALID_PARAMS',
      message: expect.stringContaining(' '),
      retriable: false,
    });
  });

  it('but never into an answer that has begun', async () => {
    const text = await exchange(url, `${head('GET /begun HTTP/1.1')}\0\0\0`);
    expect(answersIn(text).length).toBeLessThanOrEqual(1);
    expect(text).not.toContain('INVALID_PARAMS');
  });
});

describe('sockets that their owner keeps open', () => {
  const held: Socket[] = [];
  afterEach(() => {
    for (const socket of held.splice(0)) socket.destroy();
  });

  /** Reads the answer, and does not close its half. */
  async function hold(port: number, bytes: string): Promise<Socket> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    held.push(socket);
    socket.on('error', () => {});
    socket.write(bytes);
    await once(socket, 'data');
    return socket;
  }

  it.each([
    ['a refused upgrade', head('GET /elsewhere HTTP/1.1', ...SOCKET)],
    ['an unreadable request', 'no HTTP\r\n\r\n'],
  ])('%s is closed by the server', async (_what, bytes) => {
    const own = await startServer();
    const socket = await hold(Number(new URL(own.url).port), bytes);
    // Nobody but the server can end it, and what is written after that is reset.
    await expect
      .poll(() => {
        socket.write('x');
        return socket.destroyed;
      })
      .toBe(true);
    await own.server.close(60_000);
  });

  it('nothing keeps the server from closing after its grace', async () => {
    const own = await startServer();
    const port = Number(new URL(own.url).port);
    await hold(port, head('GET /begun HTTP/1.1'));
    await hold(port, head('GET /elsewhere HTTP/1.1', ...SOCKET));
    await own.server.close(100);
  });
});
