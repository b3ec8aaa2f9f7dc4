/** GraphQL over WebSocket (graphql-transport-ws), on top of the same pipeline that HTTP uses. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ExecutionArgs, GraphQLError } from 'graphql';
import { handleProtocols, makeServer, type Server, type SubscribePayload } from 'graphql-ws';
import { type WebSocket, WebSocketServer } from 'ws';

export interface SocketLimits {
  readonly maxPayloadBytes: number;
  readonly initWaitMs: number;
  readonly maxOperations: number;
  readonly keepAliveMs: number;
  readonly closeWaitMs: number;
}

export const SOCKET_LIMITS: SocketLimits = {
  maxPayloadBytes: 1024 * 1024,
  initWaitMs: 3_000,
  maxOperations: 100,
  keepAliveMs: 12_000,
  closeWaitMs: 2_000,
};

/** RFC 6455: the peer may come back, here or elsewhere. */
const GOING_AWAY = 1001;
/** The server is overloaded by this client; clients of this protocol come back later. */
const TRY_AGAIN_LATER = 1013;
/** A bug of ours met one message; the same message would meet it again. */
const INTERNAL = 4500;

export interface SocketExtra extends Record<PropertyKey, unknown> {
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
}

export interface SocketPipeline {
  /** Parses, validates and builds the context; errors are ready to be sent. */
  prepare(payload: SubscribePayload, extra: SocketExtra): Promise<ExecutionArgs | readonly GraphQLError[]>;
  execute(args: ExecutionArgs): unknown;
  subscribe(args: ExecutionArgs): unknown;
  /** False refuses the connection with 4403. */
  authorize(connectionParams: Readonly<Record<string, unknown>>, request: IncomingMessage): boolean | Promise<boolean>;
  onInternalError(error: unknown): void;
}

export class GraphQLSockets {
  readonly #limits: SocketLimits;
  readonly #pipeline: SocketPipeline;
  readonly #sockets: WebSocketServer;
  readonly #server: Server<SocketExtra>;

  constructor(pipeline: SocketPipeline, limits: SocketLimits) {
    this.#limits = limits;
    this.#pipeline = pipeline;
    this.#sockets = new WebSocketServer({
      noServer: true,
      maxPayload: limits.maxPayloadBytes,
      perMessageDeflate: false,
      handleProtocols: (protocols) => handleProtocols(protocols),
    });
    this.#server = this.#makeServer();
  }

  get connections(): number {
    return this.#sockets.clients.size;
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
      onConnect: (context) => pipeline.authorize(context.connectionParams ?? {}, context.extra.request),
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
    // `ws` closes the socket itself after a protocol error; the listener only keeps it from being thrown.
    socket.on('error', () => {});
    const closed = this.#server.opened(
      {
        protocol: socket.protocol,
        send: (data) =>
          new Promise((resolve) => {
            if (socket.readyState !== socket.OPEN) resolve();
            // A failed write is followed by `close`, which ends the operations.
            else socket.send(data, () => resolve());
          }),
        close: (code, reason) => socket.close(code, reason),
        onMessage: (callback) => socket.on('message', (data) => void callback(String(data)).catch(fail)),
      },
      { socket, request },
    );
    socket.once('close', (code, reason) => {
      stopKeepAlive();
      closed(code, String(reason)).catch((error: unknown) => this.#pipeline.onInternalError(error));
    });
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
