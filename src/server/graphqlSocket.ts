/** GraphQL over WebSocket (graphql-transport-ws), on top of the same pipeline that HTTP uses. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ExecutionArgs, GraphQLError } from 'graphql';
import { handleProtocols, makeServer, type Server, type SubscribePayload } from 'graphql-ws';
import { type WebSocket, WebSocketServer } from 'ws';
import { parseJson, REQUEST_LIMITS } from '../core/boundedJson.js';

export interface SocketLimits {
  readonly maxPayloadBytes: number;
  readonly initWaitMs: number;
  readonly maxOperations: number;
  /** Open sockets, in all and of one address. */
  readonly maxSockets: number;
  readonly maxSocketsPerPeer: number;
  /** Answers on their way to one peer: more wait only for one that asks and does not read. */
  readonly maxUnread: number;
  readonly keepAliveMs: number;
  readonly closeWaitMs: number;
}

export const SOCKET_LIMITS: SocketLimits = {
  maxPayloadBytes: 1024 * 1024,
  initWaitMs: 3_000,
  maxOperations: 100,
  maxSockets: 9_000,
  maxSocketsPerPeer: 8_000,
  maxUnread: 1_000,
  keepAliveMs: 12_000,
  closeWaitMs: 2_000,
};

/** RFC 6455: the peer may come back, here or elsewhere. */
const GOING_AWAY = 1001;
/** The server is overloaded by this client; clients of this protocol come back later. */
const TRY_AGAIN_LATER = 1013;
const BAD_REQUEST = 4400;
const FORBIDDEN = 4403;
/** A bug of ours met one message; the same message would meet it again. */
const INTERNAL = 4500;

/** Of one message; each costs a buffer, however little is in it. */
const MAX_FRAGMENTS = 1_024;

export interface SocketExtra extends Record<PropertyKey, unknown> {
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
}

/** What `connection_init` is answered with: an acknowledgement, or 4403 with the name of what was wrong. */
export type SocketWelcome =
  | { readonly ok: true; readonly acknowledge: Record<string, unknown> }
  | { readonly ok: false; readonly reason: string };

export interface SocketPipeline {
  /** Parses, validates and builds the context; errors are ready to be sent. */
  prepare(payload: SubscribePayload, extra: SocketExtra): Promise<ExecutionArgs | readonly GraphQLError[]>;
  execute(args: ExecutionArgs): unknown;
  subscribe(args: ExecutionArgs): unknown;
  authorize(connectionParams: Readonly<Record<string, unknown>>, request: IncomingMessage): SocketWelcome;
  /** Of the request that became the socket. */
  correlationOf(request: IncomingMessage): string;
  onInternalError(error: unknown): void;
}

export class GraphQLSockets {
  readonly #limits: SocketLimits;
  readonly #pipeline: SocketPipeline;
  readonly #sockets: WebSocketServer;
  readonly #server: Server<SocketExtra>;
  readonly #perPeer = new Map<string, number>();

  constructor(pipeline: SocketPipeline, limits: SocketLimits) {
    this.#limits = limits;
    this.#pipeline = pipeline;
    this.#sockets = new WebSocketServer({
      noServer: true,
      maxPayload: limits.maxPayloadBytes,
      maxFragments: MAX_FRAGMENTS,
      perMessageDeflate: false,
      autoPong: false,
      handleProtocols: (protocols) => handleProtocols(protocols),
    });
    this.#sockets.on('headers', (headers: string[], request: IncomingMessage) => {
      headers.push(`x-correlation-id: ${pipeline.correlationOf(request)}`);
    });
    this.#server = this.#makeServer();
  }

  get connections(): number {
    return this.#sockets.clients.size;
  }

  /** False: there are too many already. */
  hasRoomFor(request: IncomingMessage): boolean {
    const { maxSockets, maxSocketsPerPeer } = this.#limits;
    return this.connections < maxSockets && (this.#perPeer.get(peerOf(request)) ?? 0) < maxSocketsPerPeer;
  }

  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.#open(webSocket, request));
  }

  /** Tells every client to come back, waits a little for their answers, then cuts. */
  async close(): Promise<void> {
    const clients = [...this.#sockets.clients];
    const gone = clients.map((client) => new Promise<void>((resolve) => client.once('close', () => resolve())));
    for (const client of clients) client.close(GOING_AWAY, 'Going away');
    const timer = setTimeout(() => {
      for (const client of clients) client.terminate();
    }, this.#limits.closeWaitMs);
    await Promise.all(gone);
    clearTimeout(timer);
    await new Promise<void>((resolve) => this.#sockets.close(() => resolve()));
  }

  #makeServer(): Server<SocketExtra> {
    const pipeline = this.#pipeline;
    return makeServer<Record<string, unknown>, SocketExtra>({
      connectionInitWaitTimeout: this.#limits.initWaitMs,
      onConnect: (context) => {
        const { socket, request } = context.extra;
        const welcome = pipeline.authorize(context.connectionParams ?? {}, request);
        if (welcome.ok) return welcome.acknowledge;
        socket.close(FORBIDDEN, welcome.reason);
        return false;
      },
      onSubscribe: async (context, _id, payload) => {
        if (Object.keys(context.subscriptions).length > this.#limits.maxOperations) {
          context.extra.socket.close(TRY_AGAIN_LATER, 'Too many operations');
          return [new GraphQLError('Too many operations on one connection.')];
        }
        return pipeline.prepare(payload, context.extra);
      },
      execute: (args) => pipeline.execute(args) as never,
      subscribe: (args) => pipeline.subscribe(args) as never,
    });
  }

  #open(socket: WebSocket, request: IncomingMessage): void {
    const fail = (error: unknown) => {
      this.#pipeline.onInternalError(error);
      socket.close(INTERNAL, 'Internal error');
    };
    const stopKeepAlive = this.#keepAlive(socket);
    this.#count(request, 1);
    const unread = new Unread(socket, this.#limits.maxUnread);
    socket.on('ping', (data) => unread.send((sent) => socket.pong(data, false, sent)));
    // `ws` closes the socket itself after a protocol error; the listener only keeps it from being thrown.
    socket.on('error', () => {});
    const closed = this.#server.opened(
      {
        protocol: socket.protocol,
        send: (data) =>
          new Promise((resolve) => {
            if (socket.readyState !== socket.OPEN) resolve();
            // A failed write is followed by `close`, which ends the operations.
            else unread.send((sent) => socket.send(data, sent), resolve);
          }),
        close: (code, reason) => socket.close(code, reason),
        onMessage: (callback) =>
          socket.on('message', (data) => {
            // What was sent before its sender knew that we close is not worth looking at.
            if (socket.readyState !== socket.OPEN) return;
            const message = String(data);
            if (isBounded(message)) void callback(message).catch(fail);
            else socket.close(BAD_REQUEST, 'Invalid message received');
          }),
      },
      { socket, request },
    );
    socket.once('close', (code, reason) => {
      stopKeepAlive();
      this.#count(request, -1);
      closed(code, String(reason)).catch((error: unknown) => this.#pipeline.onInternalError(error));
    });
  }

  #count(request: IncomingMessage, change: 1 | -1): void {
    const peer = peerOf(request);
    const count = (this.#perPeer.get(peer) ?? 0) + change;
    if (count === 0) this.#perPeer.delete(peer);
    else this.#perPeer.set(peer, count);
  }

  /** A peer that does not answer a ping until the next one is gone, whatever TCP says. */
  #keepAlive(socket: WebSocket): () => void {
    let answered = true;
    socket.on('pong', () => {
      answered = true;
    });
    const timer = setInterval(() => {
      if (!answered) return socket.terminate();
      answered = false;
      socket.ping();
    }, this.#limits.keepAliveMs);
    return () => clearInterval(timer);
  }
}

/** graphql-ws takes any JSON. This asks the same as the other doors do, before it builds what it was sent. */
function isBounded(message: string): boolean {
  try {
    parseJson(message, REQUEST_LIMITS);
    return true;
  } catch {
    return false;
  }
}

/** Kept for the whole life of a socket: when it closes, its address cannot be asked any more. */
const peers = new WeakMap<IncomingMessage, string>();

function peerOf(request: IncomingMessage): string {
  const peer = peers.get(request) ?? request.socket.remoteAddress ?? '';
  peers.set(request, peer);
  return peer;
}

/** Counts what one peer was sent and has not taken. Operations wait for their peer; answers to pings would not. */
class Unread {
  readonly #socket: WebSocket;
  readonly #max: number;
  #count = 0;

  constructor(socket: WebSocket, max: number) {
    this.#socket = socket;
    this.#max = max;
  }

  send(write: (sent: () => void) => void, done: () => void = () => {}): void {
    this.#count += 1;
    if (this.#count > this.#max) this.#socket.terminate();
    write(() => {
      this.#count -= 1;
      done();
    });
  }
}
