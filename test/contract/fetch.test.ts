import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';

/** Answers as a control plane does that keeps no contract, or as an engine does, of which nothing is known. */
let server: Server;
let url: string;

beforeAll(async () => {
  server = createServer((req, res) => {
    if (req.headers['x-as'] !== 'engine') res.setHeader('x-correlation-id', 'here');
    if (req.url?.endsWith('/stream') !== true) {
      return res
        .writeHead(Number(req.headers['x-status'] ?? 200), { 'content-type': 'application/json' })
        .end('{"n":1}');
    }
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    return res.end('event: token\nid: 1\ndata: {"t":"a","i":0}\n\nevent: token\nid: 3\ndata: {"t":"b","i":2}\n\n');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(() => new Promise((resolve) => server.close(resolve)));

it.each([
  ['a body', '/v1/sessions/00000000-0000-4000-8000-000000000001', {}],
  ['a status', '/v1/sessions/00000000-0000-4000-8000-000000000001', { 'x-status': '418' }],
  ['a path', '/v1/chat/completions', {}],
])('a test that fetches sees %s that breaks the contract, wherever it fetches', async (_what, path, headers) => {
  await expect(fetch(url + path, { headers })).rejects.toThrow('breaks the contract');
});

it('a test that reads a stream sees an event that breaks the contract', async () => {
  const response = await fetch(`${url}/v1/tasks/00000000-0000-4000-8000-000000000001/stream`);
  await expect(response.text()).rejects.toThrow('token 1 was expected');
});

it('what an engine answers is not held against our contract', async () => {
  const response = await fetch(`${url}/v1/chat/completions`, { headers: { 'x-as': 'engine' } });
  expect(await response.json()).toEqual({ n: 1 });
});
