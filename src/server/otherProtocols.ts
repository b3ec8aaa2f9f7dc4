/**
 * Offers to speak another protocol than the one we know (`Upgrade: h2c`, as Java's HttpClient and `curl --http2` send it with
 * every request). A server may pass them over, and answers as if there were none (RFC 9110 §7.8).
 */
import type { IncomingMessage } from 'node:http';

const OFFER = ['upgrade', 'http2-settings'];

export function offersSocket({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === 'websocket';
}

/** The bytes of the request without the offer; Node, which has stopped to read at one, can begin with them anew. */
export function withoutOffer(req: IncomingMessage, head: Buffer): Buffer {
  const lines = [`${req.method} ${req.url} HTTP/${req.httpVersion}`];
  for (let index = 0; index < req.rawHeaders.length; index += 2) {
    const name = req.rawHeaders[index] ?? '';
    const value = req.rawHeaders[index + 1] ?? '';
    if (OFFER.includes(name.toLowerCase())) continue;
    lines.push(`${name}: ${name.toLowerCase() === 'connection' ? withoutTokens(value) : value}`);
  }
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]);
}

function withoutTokens(value: string): string {
  const tokens = value.split(',').map((token) => token.trim());
  return tokens.filter((token) => !OFFER.includes(token.toLowerCase())).join(', ');
}
