/**
 * The GraphQL door: one pipeline for HTTP, SSE and WebSocket, with the same limits, context and masking on each.
 *
 *   HTTP, SSE ─► Yoga ──────────────┐
 *                                   ├─► parse (tokens, size) ─► validate ─► context ─► execute | subscribe ─► shaped errors
 *   WebSocket ─► graphql-ws ────────┘
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ExecutionArgs, GraphQLError, type GraphQLSchema, getOperationAST } from 'graphql';
import type { SubscribePayload } from 'graphql-ws';
import { createYoga } from 'graphql-yoga';
import type { GraphQLContext } from '../schema/context.js';
import { answerBare } from './bareAnswer.js';
import { ErrorShaper, type OnInternalError } from './graphqlErrors.js';
import { DOCUMENT_LIMITS, type DocumentLimits } from './graphqlLimits.js';
import { useDocumentLimits, useErrorShaping, useJsonOnly, useOperationTimeout } from './graphqlPlugins.js';
import {
  GraphQLSockets,
  SOCKET_LIMITS,
  type SocketExtra,
  type SocketLimits,
  type SocketPipeline,
} from './graphqlSocket.js';

export interface GraphQLLimits extends DocumentLimits, SocketLimits {
  readonly maxBodyBytes: number;
  readonly operationTimeoutMs: number;
}

export const GRAPHQL_LIMITS: GraphQLLimits = {
  ...DOCUMENT_LIMITS,
  ...SOCKET_LIMITS,
  maxBodyBytes: 1024 * 1024,
  operationTimeoutMs: 30_000,
};

export interface GraphQLDoorOptions {
  readonly schema: GraphQLSchema;
  /** One plain object per operation. `request` is the HTTP request, or the upgrade of the socket. */
  readonly makeContext: (request: IncomingMessage) => GraphQLContext | Promise<GraphQLContext>;
  /** Told of every error that is masked. */
  readonly onInternalError: OnInternalError;
  /** Looks at the payload of `connection_init`, where browsers put their token. */
  readonly authorize?: SocketPipeline['authorize'];
  readonly correlationOf?: SocketPipeline['correlationOf'];
  readonly endpoint?: string;
  readonly limits?: Partial<GraphQLLimits>;
}

export interface GraphQLDoor {
  /** Answers one request; settles when the response is complete or its client is gone. Never rejects. */
  handle(request: IncomingMessage, response: ServerResponse): Promise<void>;
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Open sockets, for the metrics. */
  readonly connections: number;
  /** Sockets are told to come back (1001), event streams are cut, then the pipeline ends. */
  dispose(): Promise<void>;
}

interface ServerContext extends Record<string, unknown> {
  readonly req: IncomingMessage;
}

function makeYoga(options: GraphQLDoorOptions, limits: GraphQLLimits, shaper: ErrorShaper) {
  return createYoga<ServerContext, GraphQLContext & Record<string, unknown>>({
    schema: options.schema,
    context: async ({ req }) => ({ ...(await options.makeContext(req)) }),
    graphqlEndpoint: options.endpoint ?? '/graphql',
    plugins: [
      useJsonOnly(),
      useDocumentLimits(limits),
      useOperationTimeout(limits.operationTimeoutMs),
      useErrorShaping(shaper),
    ],
    maxRequestBodySize: limits.maxBodyBytes,
    maskedErrors: { maskError: (error) => shaper.shape(error, null) },
    cors: false,
    graphiql: false,
    landingPage: false,
    multipart: false,
    batching: false,
    logging: false,
  });
}

const NO_OPERATION = new GraphQLError('Name the operation: the document has several, or none of that name.');

type Yoga = ReturnType<typeof makeYoga>;

/** The steps of the pipeline for one operation of a socket; `getEnveloped` binds every plugin to it. */
async function prepare(
  yoga: Yoga,
  shaper: ErrorShaper,
  payload: SubscribePayload,
  extra: SocketExtra,
): Promise<ExecutionArgs | readonly GraphQLError[]> {
  const enveloped = yoga.getEnveloped({ req: extra.request, socket: extra.socket, params: payload });
  try {
    const document = enveloped.parse(payload.query);
    const errors: readonly GraphQLError[] = enveloped.validate(enveloped.schema, document);
    if (errors.length > 0) return shaper.shapeForSocket(errors);
    // graphql-ws would say so itself, without a code.
    if (getOperationAST(document, payload.operationName) == null) return shaper.shapeForSocket([NO_OPERATION]);
    const contextValue: unknown = await enveloped.contextFactory();
    return {
      schema: enveloped.schema,
      document,
      contextValue,
      operationName: payload.operationName ?? null,
      variableValues: payload.variables ?? null,
      rootValue: { execute: enveloped.execute, subscribe: enveloped.subscribe },
    };
  } catch (error) {
    return shaper.shapeForSocket([error]);
  }
}

/** The bound functions travel in `rootValue`, the one place graphql-ws leaves alone; resolvers never see them. */
function run(args: ExecutionArgs, step: 'execute' | 'subscribe'): unknown {
  const { rootValue, ...rest } = args;
  return (rootValue as Record<typeof step, (args: unknown) => unknown>)[step](rest);
}

export function createGraphQLDoor(options: GraphQLDoorOptions): GraphQLDoor {
  const limits = { ...GRAPHQL_LIMITS, ...options.limits };
  const shaper = new ErrorShaper(options.onInternalError);
  const yoga = makeYoga(options, limits, shaper);
  const streams = new Set<ServerResponse>();
  const sockets = new GraphQLSockets(
    {
      prepare: (payload, extra) => prepare(yoga, shaper, payload, extra),
      execute: (args) => run(args, 'execute'),
      subscribe: (args) => run(args, 'subscribe'),
      authorize: (params, request) => options.authorize?.(params, request) ?? { ok: true, acknowledge: {} },
      correlationOf: (request) => options.correlationOf?.(request) ?? '',
      onInternalError: (error) => options.onInternalError(error, null),
    },
    limits,
  );
  let disposed = false;

  return {
    async handle(request, response) {
      if (request.headers.accept?.includes('text/event-stream') === true) {
        streams.add(response);
        response.once('close', () => streams.delete(response));
      }
      try {
        await yoga(request, response);
      } catch (error) {
        options.onInternalError(error, null);
        response.destroy();
      }
    },
    handleUpgrade(request, socket, head) {
      socket.on('error', () => {});
      if (!disposed && sockets.hasRoomFor(request)) return sockets.handleUpgrade(request, socket, head);
      const message = disposed ? 'the control plane is stopping' : 'there are too many sockets';
      answerBare(
        socket,
        503,
        { code: 'POOL_UNAVAILABLE', message, retriable: true },
        options.correlationOf?.(request) ?? '',
      );
    },
    get connections() {
      return sockets.connections;
    },
    async dispose() {
      disposed = true;
      for (const response of streams) response.destroy();
      await sockets.close();
      await yoga.dispose();
    },
  };
}
