/** A table of routes over node:http: match, read the body within bounds, answer. Knows no noun of ours. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { stringify as stringifyJson } from 'lossless-json';
import { JsonError, parseJson, REQUEST_LIMITS } from '../core/boundedJson.js';
import { invalid, RefusalError } from '../core/errors.js';

export interface Call {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly correlationId: string;
  /** Who asks: `localhost` or `token:<fingerprint>`. */
  readonly identity: string;
  /** Reads and parses the JSON body. int64 values beyond 2^53 come as bigint. @throws RefusalError on anything else. */
  body(): Promise<unknown>;
}

export type Handler = (call: Call) => Promise<void>;

export interface Route {
  readonly method: string;
  /** Segments; `{name}` matches one and names it. */
  readonly path: string;
  /** What it answers does not end by itself, so HEAD is not served. */
  readonly streams?: true;
  readonly handler: Handler;
}

export type Match =
  | { readonly kind: 'found'; readonly handler: Handler; readonly params: Readonly<Record<string, string>> }
  /** The path is served; by these methods, of which OPTIONS is always one. */
  | { readonly kind: 'other_method'; readonly allow: readonly string[] }
  | { readonly kind: 'none' };

export const MAX_BODY_BYTES = 5 * 1024 * 1024;

function matchPath(pattern: string, path: string): Record<string, string> | null {
  const want = pattern.split('/');
  const have = path.split('/');
  if (want.length !== have.length) return null;
  const params: Record<string, string> = {};
  for (const [index, segment] of want.entries()) {
    const given = have[index] ?? '';
    if (!segment.startsWith('{')) {
      if (segment !== given) return null;
    } else {
      if (given === '') return null;
      params[segment.slice(1, -1)] = decodeSegment(given);
    }
  }
  return params;
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export function matchRoute(routes: readonly Route[], method: string, path: string): Match {
  const allow: string[] = [];
  for (const route of routes) {
    const params = matchPath(route.path, path);
    if (params === null) continue;
    const methods = methodsOf(route);
    // Node leaves the body out of an answer to HEAD.
    if (methods.includes(method)) return { kind: 'found', handler: route.handler, params };
    allow.push(...methods);
  }
  return allow.length > 0 ? { kind: 'other_method', allow: [...allow, 'OPTIONS'] } : { kind: 'none' };
}

function methodsOf({ method, streams }: Route): string[] {
  return method === 'GET' && streams !== true ? ['GET', 'HEAD'] : [method];
}

/** The body was larger than we read; the door answers 413 and closes the connection. */
export class BodyTooLargeError extends RefusalError {
  constructor() {
    super(invalid('body', `must be at most ${MAX_BODY_BYTES} bytes`));
    this.name = 'BodyTooLargeError';
  }
}

/** The body is not JSON by its own word; the door answers 415. */
export class MediaTypeError extends RefusalError {
  constructor() {
    super(invalid('body', 'must be application/json'));
    this.name = 'MediaTypeError';
  }
}

async function readBody(req: IncomingMessage): Promise<string> {
  if (Number(req.headers['content-length'] ?? 0) > MAX_BODY_BYTES) throw new BodyTooLargeError();
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  // Left standing when we have seen enough: the answer has to go out by its connection.
  for await (const chunk of req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_BODY_BYTES) throw new BodyTooLargeError();
    chunks.push(chunk);
  }
  return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
}

/** More digits than any int64 has are not worth the time of a bigint. */
const MAX_DIGITS = 20;

/** Whole numbers beyond 2^53 come as bigint, with all their digits. */
export function parseNumber(text: string): number | bigint {
  const value = Number(text);
  const keepsDigits = Number.isSafeInteger(value) || text.length > MAX_DIGITS || !/^-?\d+$/.test(text);
  return keepsDigits ? value : BigInt(text);
}

export async function readJson(req: IncomingMessage): Promise<unknown> {
  const type = req.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') throw new MediaTypeError();
  try {
    return parseJson(await readBody(req), REQUEST_LIMITS, parseNumber);
  } catch (error) {
    if (error instanceof RefusalError) throw error;
    // What else there is, is no UTF-8, or its sender has gone.
    const problem = error instanceof JsonError ? error.message : 'is not valid JSON';
    throw new RefusalError(invalid('body', problem), { cause: error });
  }
}

export function sendJson(
  res: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  const text = stringifyJson(body) ?? 'null';
  res.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers });
  res.end(text);
}
