/** The one HTTP server: who may come in, which door they go to, and what every answer carries. */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { invalid, notFound, type Refusal, RefusalError } from '../core/errors.js';
import {
  BodyTooLargeError,
  type Call,
  MediaTypeError,
  matchRoute,
  type Route,
  readJson,
  sendJson,
} from '../rest/router.js';
import { envelopeOf, retryHeaders, statusOf } from '../rest/wire.js';
import type { Telemetry } from '../telemetry/events.js';
import { answerBare } from './bareAnswer.js';
import { answerCors } from './cors.js';
import {
  bearerOf,
  type Caller,
  checkBrowser,
  checkToken,
  type Denial,
  type IdentityRules,
  identityOf,
} from './identity.js';
import { offersSocket, withoutOffer } from './otherProtocols.js';
import { checkShape } from './requestShape.js';
import { VERSION } from './version.js';

const MAX_HEADER_BYTES = 16 * 1024;
const MAX_CONNECTIONS = 10_000;
/** Connections the kernel may hold before we accept them: a whole herd of readers may come back at once. Its own limit is lower or equal (net.core.somaxconn). */
const BACKLOG = 4096;
const CORRELATION_ID = /^[\x21-\x7e]{1,128}$/;

/** What the server hands requests to, once everything behind it is up. */
export interface Doors {
  readonly routes: readonly Route[];
  readonly graphql: (req: IncomingMessage, res: ServerResponse, correlationId: string) => void;
  readonly graphiql: (req: IncomingMessage, res: ServerResponse) => void;
  readonly upgrade: (req: IncomingMessage, socket: Duplex, head: Buffer, correlationId: string) => void;
}

export interface HttpServerOptions {
  readonly rules: IdentityRules;
  readonly telemetry: Telemetry;
}

const HEALTH_PATH = '/health';
/** Paths that need no token: they say nothing but whether we live. */
const OPEN_PATHS = new Set([HEALTH_PATH, '/ready']);
const GRAPHQL_PATH = '/graphql';

const STARTING: Refusal = {
  family: 'unavailable',
  code: 'POOL_UNAVAILABLE',
  message: 'the control plane is starting or stopping',
  retriable: true,
  retryAfterMs: 1000,
};

/** Of Node's parser, by its code; anything else is no HTTP. */
const UNREADABLE: Readonly<Record<string, readonly [status: number, message: string]>> = {
  HPE_HEADER_OVERFLOW: [431, `the headers must be at most ${MAX_HEADER_BYTES} bytes`],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'the extensions of a chunk are too long'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'the request did not come in time'],
};

export class HttpServer {
  readonly #options: HttpServerOptions;
  readonly #server: Server;
  /** All that stand, those that were upgraded too, which Node's server lets go of. */
  readonly #sockets = new Set<Socket>();
  /** The last answer on each. */
  readonly #answers = new WeakMap<Duplex, ServerResponse>();
  #doors: Doors | null = null;

  constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#server = createServer({
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: 10_000,
      requestTimeout: 30_000,
      connectionsCheckingInterval: 5_000,
      keepAliveTimeout: 65_000,
    });
    this.#server.maxConnections = MAX_CONNECTIONS;
    this.#server.on('request', (req, res) => void this.#onRequest(req, res));
    this.#server.on('upgrade', (req, socket, head) => this.#onUpgrade(req, socket, head));
    this.#server.on('checkExpectation', (req, res) => this.#onExpectation(req, res));
    this.#server.on('clientError', (error, socket) => this.#onUnreadable(error, socket));
    this.#server.on('connection', (socket: Socket) => {
      socket.setNoDelay(true);
      if (this.#sockets.has(socket)) return;
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  /** Resolves with the port once we listen; rejects with the error of the socket (EADDRINUSE, EACCES, …). */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port, backlog: BACKLOG }, () => {
        this.#server.off('error', reject);
        const address = this.#server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : port);
      });
    });
  }

  open(doors: Doors): void {
    this.#doors = doors;
  }

  /** From now on everything is refused as "stopping"; connections that stand go on. */
  shut(): void {
    this.#doors = null;
  }

  async close(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, graceMs);
    await closed;
    clearTimeout(timer);
  }

  async #onRequest(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const correlationId = this.#begin(req, res);
    try {
      await this.#route(req, res, correlationId);
    } catch (error) {
      this.#answerError(res, error, correlationId);
    }
  }

  #begin(req: IncomingMessage, res: ServerResponse): string {
    this.#answers.set(req.socket, res);
    const correlationId = correlationOf(req);
    res.setHeader('x-correlation-id', correlationId);
    res.setHeader('x-content-type-options', 'nosniff');
    return correlationId;
  }

  /** Of `Expect` we know "100-continue", which does not come here. */
  #onExpectation(req: IncomingMessage, res: ServerResponse): void {
    this.#begin(req, res);
    sendJson(res, 417, envelopeOf(invalid('expect', 'must be 100-continue')), { connection: 'close' });
  }

  #onUnreadable(error: NodeJS.ErrnoException, socket: Duplex): void {
    const answer = this.#answers.get(socket);
    const isAnswering = answer?.headersSent === true && !answer.writableFinished;
    if (isAnswering || !socket.writable || error.code === 'ECONNRESET') return void socket.destroy();
    const [status, message] = UNREADABLE[error.code ?? ''] ?? [400, 'it is not valid HTTP/1.1'];
    const correlationId = randomUUID();
    this.#options.telemetry.denied('BAD_REQUEST', 40000, correlationId);
    answerBare(socket, status, envelopeOf(invalid('request', message)), correlationId);
  }

  async #route(req: IncomingMessage, res: ServerResponse, correlationId: string): Promise<void> {
    const { path, query } = targetOf(req);
    const method = req.method ?? 'GET';
    const wantsPage = isPage(req, path, query);
    const denial = this.#check(req, OPEN_PATHS.has(path) || wantsPage, () => answerCors(req, res, this.#options.rules));
    if (denial === 'answered') return;
    if (denial !== null) {
      this.#options.telemetry.denied(denial.name, denial.code, correlationId);
      return sendDenial(res, denial, path, correlationId);
    }
    if (path === HEALTH_PATH) {
      return method === 'GET' || method === 'HEAD' ? sendHealth(res) : answerMethod(res, method, 'GET');
    }
    const doors = this.#doors;
    if (doors === null) throw new RefusalError(STARTING);
    if (path === GRAPHQL_PATH) {
      return wantsPage ? doors.graphiql(req, res) : doors.graphql(req, res, correlationId);
    }
    const match = matchRoute(doors.routes, method, path);
    if (match.kind === 'none') throw new RefusalError(notFound('path', `${path} is not served`));
    if (match.kind === 'other_method') return answerMethod(res, method, match.allow.join(', '));
    const call: Call = {
      req,
      res,
      params: match.params,
      query,
      correlationId,
      identity: identityOf(bearerOf(req.headers), this.#options.rules),
      body: () => readJson(req),
    };
    await match.handler(call);
  }

  /** @param answered asked once the browser check passed: it may answer by itself, before any token is asked for. */
  #check(req: IncomingMessage, open: boolean, answered: () => boolean): Denial | 'answered' | null {
    const { rules } = this.#options;
    const caller = callerOf(req);
    const denial = checkShape(req, false) ?? checkBrowser(caller, rules);
    if (denial !== null) return denial;
    if (answered()) return 'answered';
    return open ? null : checkToken(bearerOf(req.headers), caller, rules);
  }

  #onUpgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (!offersSocket(req)) {
      socket.unshift(withoutOffer(req, head));
      this.#server.emit('connection', socket);
      return;
    }
    socket.on('error', () => socket.destroy());
    const correlationId = correlationOf(req);
    const { path } = targetOf(req);
    const denial = this.#checkUpgrade(req);
    if (denial !== null) {
      this.#options.telemetry.denied(denial.name, denial.code, correlationId);
      return answerBare(socket, denial.status, denialBody(denial), correlationId);
    }
    const refuse = (refusal: Refusal) => answerBare(socket, statusOf(refusal), envelopeOf(refusal), correlationId);
    if (path !== GRAPHQL_PATH) return refuse(notFound('path', `${path} is not served`));
    if (this.#doors === null) return refuse(STARTING);
    this.#doors.upgrade(req, socket, head, correlationId);
  }

  /** A browser cannot send headers with an upgrade: without a token here, connection_init has to bring it. */
  #checkUpgrade(req: IncomingMessage): Denial | null {
    const { rules } = this.#options;
    const caller = callerOf(req);
    const foreign = checkShape(req, true) ?? checkBrowser(caller, rules);
    if (foreign !== null) return foreign;
    const token = bearerOf(req.headers);
    return token === null ? null : checkToken(token, caller, rules);
  }

  #answerError(res: ServerResponse, error: unknown, correlationId: string): void {
    if (!(error instanceof RefusalError)) {
      this.#options.telemetry.log.error({ correlation_id: correlationId, err: error }, 'request failed');
    }
    if (res.headersSent) return void res.end();
    if (!(error instanceof RefusalError)) {
      const message = `internal error; quote correlation id ${correlationId}`;
      return sendJson(res, 500, { code: 'INTERNAL', message, retriable: true });
    }
    const status =
      error instanceof BodyTooLargeError ? 413 : error instanceof MediaTypeError ? 415 : statusOf(error.refusal);
    const headers = { ...retryHeaders(error.refusal), ...(status === 413 ? { connection: 'close' } : {}) };
    sendJson(res, status, envelopeOf(error.refusal), headers);
  }
}

/** As long as the process lives, also while nothing else is served. */
function sendHealth(res: ServerResponse): void {
  sendJson(res, 200, { status: 'ok', version: VERSION });
}

function answerMethod(res: ServerResponse, method: string, allow: string): void {
  if (method === 'OPTIONS') return void res.writeHead(204, { allow }).end();
  sendJson(res, 405, envelopeOf(invalid('method', `${method} is not served here; use ${allow}`)), { allow });
}

function correlationOf(req: IncomingMessage): string {
  const given = req.headers['x-correlation-id'];
  return typeof given === 'string' && CORRELATION_ID.test(given) ? given : randomUUID();
}

/** The target as it was sent; a URL parser would refuse some that deserve no more than a 404. */
function targetOf(req: IncomingMessage): { readonly path: string; readonly query: URLSearchParams } {
  const [path = '/', ...rest] = (req.url ?? '/').split('?');
  return { path, query: new URLSearchParams(rest.join('?')) };
}

function callerOf(req: IncomingMessage): Caller {
  return { headers: req.headers, remoteAddress: req.socket.remoteAddress ?? '' };
}

/** GraphiQL, which holds nothing worth a token: what it asks for needs one. */
function isPage(req: IncomingMessage, path: string, query: URLSearchParams): boolean {
  const { method, headers } = req;
  return (
    path === GRAPHQL_PATH && method === 'GET' && (headers.accept ?? '').includes('text/html') && !query.has('query')
  );
}

function denialBody({ code, name, message }: Denial) {
  return { code, error: name, message, retriable: false };
}

function sendDenial(res: ServerResponse, denial: Denial, path: string, correlationId: string): void {
  const { status, name, code, message } = denial;
  const headers = status === 401 ? { 'www-authenticate': 'Bearer' } : {};
  const extensions = { code: name, number: code, retriable: false, correlationId };
  // Clients of GraphQL look for errors in one place.
  const body = path === GRAPHQL_PATH ? { errors: [{ message, extensions }] } : denialBody(denial);
  sendJson(res, status, body, { connection: 'close', ...headers });
}
