/** Answers where no ServerResponse stands for the socket: to an upgrade that is refused, and to bytes that are no HTTP. */
import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';

/** How long the other side may take to close; neither Node's timeouts nor its server know of such a socket any more. */
const CLOSE_MS = 1_000;

export function answerBare(socket: Duplex, status: number, content: object, correlationId: string): void {
  const body = JSON.stringify(content);
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Refused'}`,
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    `x-correlation-id: ${correlationId}`,
    ...(status === 401 ? ['www-authenticate: Bearer'] : []),
    'connection: close',
  ];
  const timer = setTimeout(() => socket.destroy(), CLOSE_MS);
  socket.once('close', () => clearTimeout(timer));
  socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`);
  // Read away what still comes: closing over it would reset the connection, and the answer with it.
  socket.resume();
}
