/**
 * HTTP for every simulated protocol: the loop that answers a request, bodies in and out, writes that wait for a slow
 * reader, and the simulator's own switchboard under /sim/control, which is open at any time and without a key.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { z } from 'zod';
import { EngineFailed } from './deaths.js';
import type { SimEngine } from './engine.js';
import { UnknownFault } from './faults.js';

const MAX_REQUEST_BYTES = 64 * 1024 * 1024;
const CONTROL_PATH = '/sim/control';

export interface Call {
  readonly engine: SimEngine;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Of the URL, without its query. */
  readonly path: string;
  /** Aborts when the client is gone, the process stops or the engine has failed (EngineFailed). */
  readonly signal: AbortSignal;
  /** Throws when the client has gone and the dialect notices that at its next step, as now is. */
  throwIfGone(): void;
}

export type Route = (call: Call) => void | Promise<void>;

/** What a protocol makes of HTTP. */
export interface Dialect {
  /** Sets what every answer carries; nothing else is known yet. */
  prepare?(request: IncomingMessage, response: ServerResponse): void;
  /** Throws what `refuse` then answers. */
  routeOf(call: Call): Route;
  /** Answers what a route threw before its head was sent; EngineFailed and PayloadTooLarge are among it. */
  refuse(call: Call, error: unknown): void;
  /** When a client that goes is noticed: at once, before its prompt or its next token is worked on, or by a write. */
  readonly noticesGoneClient: 'at once' | 'at its next step' | 'when it writes';
  /** How long an idle connection is kept. */
  readonly keepAliveMs: number;
  /** 0: any number. */
  readonly requestsPerConnection: number;
}

export class PayloadTooLarge extends Error {}
class ClientGone extends Error {}

/** A listener of the engine, not listening yet. */
export function createSimServer(engine: SimEngine, dialect: Dialect): Server {
  const { traffic } = engine;
  const server = createServer({ keepAliveTimeout: dialect.keepAliveMs, noDelay: true }, (request, response) => {
    const path = pathOf(request);
    if (path !== CONTROL_PATH) traffic.requests += 1;
    dialect.prepare?.(request, response);
    const ended = new AbortController();
    response.on('error', () => {}); // a write to a client that has gone; `close` tells of it too
    response.once('close', () => {
      const noticed = dialect.noticesGoneClient === 'at once' && !engine.faults.has('ignore-cancel');
      if (noticed) ended.abort(new ClientGone());
    });
    const throwIfGone = (): void => {
      if (dialect.noticesGoneClient !== 'at its next step' || engine.faults.has('ignore-cancel')) return;
      if (response.destroyed) throw new ClientGone();
    };
    const call: Call = { engine, request, response, path, signal: ended.signal, throwIfGone };
    engine.calls.add(ended, path === CONTROL_PATH ? answerControl(call) : answer(call, dialect));
  });
  server.maxRequestsPerSocket = dialect.requestsPerConnection;
  server.on('connection', (socket) => {
    traffic.sockets.add(socket);
    socket.once('close', () => traffic.sockets.delete(socket));
  });
  return server;
}

function pathOf(request: IncomingMessage): string {
  return (request.url ?? '/').split('?', 1)[0] ?? '/';
}

async function answer(call: Call, dialect: Dialect): Promise<void> {
  const { response, signal } = call;
  try {
    await dialect.routeOf(call)(call);
  } catch (error) {
    const failure = failureOf(signal);
    // Nobody to answer: the client has gone, or the process is going.
    if (error instanceof ClientGone || (signal.aborted && failure === null)) return;
    if (response.headersSent || response.destroyed) response.destroy();
    else dialect.refuse(call, failure ?? error);
  }
}

/** Why a call was ended, when it was the engine's failure. What it threw may be a mere AbortError. */
export function failureOf(signal: AbortSignal): EngineFailed | null {
  return signal.reason instanceof EngineFailed ? signal.reason : null;
}

const controlSchema = z.object({ fault: z.union([z.string(), z.array(z.string())]) });

/** The switchboard alone, for an engine that does not listen yet. */
export function createControlServer(engine: SimEngine): Server {
  return createServer((request, response) => {
    void answerControl({ engine, request, response, path: pathOf(request) });
  });
}

type ControlCall = Pick<Call, 'engine' | 'request' | 'response' | 'path'>;

async function answerControl(call: ControlCall): Promise<void> {
  const { engine, request, response, path } = call;
  try {
    if (path !== CONTROL_PATH) throw new UnknownFault(`only ${CONTROL_PATH} is here`);
    if (request.method === 'POST') {
      const { fault } = controlSchema.parse(JSON.parse(await readBody(request)));
      engine.faults.set(typeof fault === 'string' ? [fault] : fault);
    }
    sendJson(response, 200, inspect(call));
  } catch (error) {
    sendJson(response, 400, { error: error instanceof Error ? error.message : String(error) });
  }
}

function inspect({ engine, request }: ControlCall): Readonly<Record<string, unknown>> {
  const { sockets, requests } = engine.traffic;
  return {
    faults: engine.faults.list(),
    /** Open ones of the engine's listeners, without the one that asks. */
    connections: sockets.size - (sockets.has(request.socket) ? 1 : 0),
    busySlots: engine.slots.busyCount,
    deferred: engine.slots.deferredCount,
    completions: engine.completions,
    requests,
  };
}

/** Throws PayloadTooLarge; what is too much is read and dropped, so that the client comes to read the answer. */
export async function readBody(request: IncomingMessage, maxBytes = MAX_REQUEST_BYTES): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes <= maxBytes) chunks.push(chunk);
    else chunks.length = 0;
  }
  if (bytes > maxBytes) throw new PayloadTooLarge('Payload too large');
  return Buffer.concat(chunks, bytes).toString('utf8');
}

export type SendJson = (response: ServerResponse, status: number, body: unknown) => void;

export const jsonSender =
  (contentType: string): SendJson =>
  (response, status, body) =>
    send(response, status, contentType, JSON.stringify(body));

export const sendJson = jsonSender('application/json');

/** An empty content type stands for none. */
export function send(response: ServerResponse, status: number, contentType: string, text: string): void {
  if (contentType !== '') response.setHeader('Content-Type', contentType);
  response.setHeader('Content-Length', Buffer.byteLength(text));
  response.writeHead(status);
  response.end(text);
}

/**
 * Resolves when the system has taken the bytes, so a reader that does not read holds the decoding back. Rejects when
 * the signal aborts: the callback of a write that is still pending then may never come.
 */
export function write({ engine, response, signal }: Call, data: string | Buffer): Promise<void> {
  if (response.destroyed && engine.faults.has('ignore-cancel')) return Promise.resolve();
  return new Promise((resolve, reject) => {
    if (response.destroyed) return reject(signal.reason ?? new ClientGone());
    if (signal.aborted) return reject(signal.reason);
    const settle = (error?: Error | null): void => {
      signal.removeEventListener('abort', onAbort);
      response.removeListener('close', onClose);
      if (error) reject(error);
      else resolve();
    };
    const onAbort = (): void => settle(signal.reason);
    const onClose = (): void => settle(engine.faults.has('ignore-cancel') ? null : new ClientGone());
    signal.addEventListener('abort', onAbort, { once: true });
    response.once('close', onClose);
    response.write(data, (error) => settle(error));
  });
}

/** Ends an answer and waits until its bytes are out; also when the signal has aborted. */
export function finish(response: ServerResponse, text = ''): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) return resolve();
    response.once('close', resolve);
    response.end(text, () => resolve());
  });
}
