/** Captured HTTP answers, served again byte by byte: for a test that wants an engine's own words. */
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';

export interface Capture {
  readonly statusLine: string;
  readonly contentType: string;
  readonly body: Buffer;
}

export function readCapture(name: string): Capture {
  const bytes = readFileSync(new URL(`../engines/fixtures/${name}.http`, import.meta.url));
  const headEnd = bytes.indexOf('\r\n\r\n') >= 0 ? bytes.indexOf('\r\n\r\n') : bytes.indexOf('\n\n');
  const separator = bytes.indexOf('\r\n\r\n') >= 0 ? 4 : 2;
  const [statusLine = '', ...headers] = bytes.subarray(0, headEnd).toString('latin1').split(/\r?\n/);
  const contentType = headers.find((header) => /^content-type:/i.test(header))?.split(': ')[1] ?? '';
  return { statusLine, contentType, body: bytes.subarray(headEnd + separator) };
}

export interface ReplayServer extends AsyncDisposable {
  readonly baseUrl: string;
  /** Heads of the requests, as they came. */
  readonly requests: readonly string[];
}

/**
 * Answers `METHOD /path` with a capture, its bytes written in pieces of `pieceBytes` and the connection closed after
 * them. Anything else gets a 404.
 */
export async function startReplay(
  answers: Readonly<Record<string, Capture>>,
  pieceBytes: number,
): Promise<ReplayServer> {
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    let head = '';
    socket.on('data', (chunk) => {
      if (head.includes('\r\n\r\n')) return; // the body is of no interest here
      head += chunk.toString('latin1');
      if (!head.includes('\r\n\r\n')) return;
      requests.push(head.slice(0, head.indexOf('\r\n\r\n')));
      const [method, path] = head.split(' ', 2);
      const capture = answers[`${method} ${path}`];
      void writeInPieces(socket, capture === undefined ? NOT_FOUND : bytesOf(capture), pieceBytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const NOT_FOUND = Buffer.from('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');

function bytesOf({ statusLine, contentType, body }: Capture): Buffer {
  return Buffer.concat([
    Buffer.from(`${statusLine}\r\nContent-Type: ${contentType}\r\nConnection: close\r\n\r\n`),
    body,
  ]);
}

async function writeInPieces(socket: Socket, bytes: Buffer, pieceBytes: number): Promise<void> {
  for (let at = 0; at < bytes.length && !socket.destroyed; at += pieceBytes) {
    await new Promise<void>((resolve) => socket.write(bytes.subarray(at, at + pieceBytes), () => resolve()));
  }
  socket.end();
}
