/** A server of files on loopback that can do what servers do wrong: cut, redirect, lie about sizes, hang. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface FileServer extends AsyncDisposable {
  /** http://127.0.0.1:port */
  readonly url: string;
  /** host:port, for an allow-list. */
  readonly host: string;
  /** Method, path and range of every request so far. */
  readonly requests: readonly string[];
  /** Sockets that were opened to it, requests or not. */
  readonly connections: () => number;
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export async function startFileServer(handler: Handler): Promise<FileServer> {
  const requests: string[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url} ${request.headers.range ?? '-'}`);
    response.on('error', () => {});
    handler(request, response);
  });
  server.on('connection', () => {
    connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    requests,
    connections: () => connections,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Serves `body`, ranges too. */
export function serve(body: Buffer): Handler {
  return (request, response) => {
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    if (start > 0 && start >= body.length) {
      response.writeHead(416).end();
      return;
    }
    const range = start === 0 ? {} : { 'content-range': `bytes ${start}-${body.length - 1}/${body.length}` };
    response.writeHead(start === 0 ? 200 : 206, { 'content-length': body.length - start, ...range });
    response.end(body.subarray(start));
  };
}
