/** The answer to a request whose body is not worth reading. */
import type { IncomingMessage, ServerResponse } from 'node:http';

/** More than anybody sends by mistake. */
const MAX_DROPPED_BYTES = 32 * 1024 * 1024;
const MAX_DROP_MS = 2_000;

/**
 * Answers, drops what still comes, and closes. A connection that is closed over bytes that nobody read is reset, and its
 * client, which is still writing, would never see the answer.
 */
export function answerUnread(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): void {
  const text = JSON.stringify(body);
  const length = String(Buffer.byteLength(text));
  res.writeHead(status, {
    ...{ 'content-type': 'application/json; charset=utf-8', 'content-length': length, connection: 'close' },
    ...headers,
  });
  res.write(text);
  let dropped = 0;
  const end = (): void => {
    clearTimeout(timer);
    res.end();
  };
  const timer = setTimeout(end, MAX_DROP_MS);
  req.on('data', (chunk: Buffer) => {
    dropped += chunk.length;
    if (dropped > MAX_DROPPED_BYTES) end();
  });
  req.once('end', end).once('close', end);
}
