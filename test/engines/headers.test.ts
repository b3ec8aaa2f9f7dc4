/** What an engine is told of who asks: our id for the request, its own key, and nothing else. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { adapterFor, ask, PROTOCOLS, run } from '../support/adapters.js';

const seen: IncomingHttpHeaders[] = [];
const server = createServer((req, res) => {
  seen.push(req.headers);
  req.resume();
  res.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"no"}');
});

beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

it.each(PROTOCOLS)(
  '%s gets the correlation id of the request, and no header that names a conversation',
  async (name) => {
    const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const adapter = adapterFor(name, { baseUrl }, { apiKey: 'the-key' });
    for (const correlationId of ['corr-1', '']) {
      seen.length = 0;
      expect((await run(adapter, ask({ correlationId }))).error).not.toBeNull();
      const headers = seen.find((one) => one['content-type'] === 'application/json');
      expect(headers?.['x-correlation-id']).toBe(correlationId === '' ? undefined : correlationId);
      const names = Object.keys(headers ?? {}).filter((header) => header !== 'x-correlation-id');
      expect(names.sort()).toEqual(['authorization', 'connection', 'content-length', 'content-type', 'host']);
    }
    await adapter.close();
  },
);
