/**
 * Triton's HTTP protocol over a simulated engine: one ensemble, named by `--model`, and the model behind it, of which
 * only the stopping of requests is simulated. Nothing listens until the models are loaded; metrics have a port of their
 * own. Bodies in bodies.ts, checks in request.ts.
 */
import { once } from 'node:events';
import type { Server } from 'node:http';
import { within } from '../../../runtime/wait.js';
import { EngineFailed } from '../deaths.js';
import { type Completion, emptyReport, type SimEngine } from '../engine.js';
import {
  type Call,
  createSimServer,
  type Dialect,
  finish,
  PayloadTooLarge,
  type Route,
  readBody,
  send,
  sendJson,
} from '../http.js';
import { EOS } from '../model.js';
import type { SimProtocol } from '../protocol.js';
import { type StreamFrames, streamCompletion } from '../stream.js';
import * as bodies from './bodies.js';
import { deaths, logs } from './logs.js';
import { metricsText } from './metrics.js';
import {
  completionOf,
  INNER_MODEL,
  inEnsemble,
  parseRequest,
  type Request,
  TritonError,
  unknownModel,
} from './request.js';

const STREAM_HEADERS = { 'Content-Type': 'text/event-stream; charset=utf-8' } as const;
const ONLY_ONE_ANSWER =
  'generate expects model to produce exactly 1 response, use generate stream for model that generates various number of responses';

/** Thrown where a completion is, when another request stops it. */
class Stopped extends Error {}

/** Requests under way, by the id that they came with. */
type Running = Map<string, AbortController>;

interface Handler {
  readonly method: 'GET' | 'POST';
  readonly run: (call: Call, running: Running) => void | Promise<void>;
}

const MODEL_PATH = /^\/v2\/models\/([^/]+)(?:\/versions\/(\d+))?(?:\/(generate|generate_stream|ready|config|stats))?$/;

const SERVER_ROUTES: Readonly<Record<string, Handler>> = {
  '/v2': { method: 'GET', run: ({ engine, response }) => sendJson(response, 200, bodies.serverBody(engine)) },
  '/v2/health/live': { method: 'GET', run: sendOk },
  '/v2/health/ready': { method: 'GET', run: sendOk },
  '/v2/repository/index': {
    method: 'POST',
    run: ({ engine, response }) => sendJson(response, 200, bodies.indexBody(engine)),
  },
};

const MODEL_ROUTES: Readonly<Record<string, Handler>> = {
  '': { method: 'GET', run: ({ engine, response }) => sendJson(response, 200, bodies.modelBody(engine)) },
  ready: { method: 'GET', run: sendOk },
  config: { method: 'GET', run: ({ engine, response }) => sendJson(response, 200, bodies.configBody(engine)) },
  stats: { method: 'GET', run: ({ engine, response }) => sendJson(response, 200, bodies.statsBody(engine)) },
  generate: { method: 'POST', run: generate },
  generate_stream: { method: 'POST', run: generateStream },
};

/** Of the model behind the ensemble. */
const INNER_ROUTES: Readonly<Record<string, Handler>> = {
  ready: { method: 'GET', run: sendOk },
  generate: { method: 'POST', run: stop },
};

export const triton: SimProtocol = {
  name: 'triton',
  defaultPort: 8000,
  apiKeyVariable: null,
  listensWhileLoading: false,
  servesWithoutGpu: false,
  createServer: (engine) => keptOpen(engine, createSimServer(engine, dialectOf(new Map()))),
  metrics: { defaultPort: 8002, createServer: (engine) => createSimServer(engine, metricsDialect) },
  logs,
  deaths,
  // `--exit-timeout-secs`.
  stop: { drainMs: 30_000, overrun: { exitCode: 1, lines: ['Exit timeout expired. Exiting immediately.'] } },
};

/** A stopping Triton waits for its connections, not for its requests: an idle one keeps it until its time is up. */
function keptOpen(engine: SimEngine, server: Server): Server {
  server.closeIdleConnections = () => {};
  server.on('connection', (socket) => {
    engine.calls.add(new AbortController(), once(socket, 'close').then(noop, noop));
  });
  return server;
}

function noop(): void {}

function dialectOf(running: Running): Dialect {
  return {
    prepare: (_request, response) => {
      response.sendDate = false;
    },
    routeOf: (call) => routeOf(call, running),
    refuse,
    // While a request is answered, its socket is not read.
    noticesGoneClient: 'when it writes',
    keepAliveMs: 0,
    requestsPerConnection: 0,
  };
}

/** Every path is the page, or an empty answer. */
const metricsDialect: Dialect = {
  ...dialectOf(new Map()),
  routeOf: ({ request, path }) => {
    if (request.method !== 'GET') throw new TritonError(405, 'Method Not Allowed');
    return ({ engine, response }) =>
      send(response, 200, 'text/plain; charset=utf-8', path === '/metrics' ? metricsText(engine) : '');
  },
};

function routeOf(call: Call, running: Running): Route {
  if (call.engine.stopping) throw new TritonError(503, 'Server exiting');
  const route = SERVER_ROUTES[call.path] ?? modelHandlerOf(call);
  if (route === undefined) return ({ response }) => send(response, 404, 'text/plain', bodies.errorBody('Not Found'));
  if (call.request.method !== route.method) throw new TritonError(405, 'Method Not Allowed');
  return () => route.run(call, running);
}

function modelHandlerOf({ engine, path }: Call): Handler | undefined {
  const [, encoded, version = '1', end = ''] = MODEL_PATH.exec(path) ?? [];
  if (encoded === undefined) return undefined;
  const name = decodeURIComponent(encoded);
  const routes = name === engine.config.model ? MODEL_ROUTES : name === INNER_MODEL ? INNER_ROUTES : null;
  const route = routes?.[end];
  if (routes === null || version !== '1') throw unknownModel(name);
  if (route === undefined) throw new TritonError(501, `'${end}' of model '${name}' is not simulated`);
  return route;
}

function refuse(call: Call, error: unknown): void {
  const refusal = asTritonError(error, call.engine.config.model);
  if (!refusal.isAnswer || !call.path.endsWith('/generate_stream')) {
    return send(call.response, refusal.status, 'application/json', bodies.errorBody(refusal.message));
  }
  // The first frame decides the status, whatever it is.
  call.response.writeHead(refusal.status, STREAM_HEADERS).end(bodies.errorEvent(refusal.message));
}

function asTritonError(error: unknown, model: string): TritonError {
  if (error instanceof TritonError) return error;
  if (error instanceof PayloadTooLarge) return new TritonError(413, error.message);
  if (error instanceof EngineFailed) return new TritonError(500, inEnsemble(model, error.message), true);
  return new TritonError(500, error instanceof Error ? error.message : String(error));
}

function sendOk({ response }: Call): void {
  send(response, 200, 'text/plain', '');
}

/** `{"id":"42","stop":true}` and what else the tensors of a request must be; an id that nobody has is no mistake. */
async function stop({ engine, request, response }: Call, running: Running): Promise<void> {
  const asked = parseRequest(await readBody(request));
  if (asked.keys.stop !== true) throw new TritonError(501, `completions by '${INNER_MODEL}' are not simulated`);
  if (asked.id === '') throw new TritonError(500, 'Trying to stop a request but request ID is not provided', true);
  if (!engine.faults.has('ignore-cancel')) running.get(asked.id)?.abort(new Stopped());
  send(response, 200, 'application/json', bodies.stoppedBody(asked));
}

/** Runs one request so that it can be stopped by its id; `onStop` ends an answer that was stopped. */
async function stoppable(
  call: Call,
  running: Running,
  run: (call: Call, request: Request, completion: Completion) => Promise<void>,
  onStop: (request: Request) => Promise<void>,
): Promise<void> {
  const { model, contextTokens } = call.engine.config;
  const request = parseRequest(await readBody(call.request));
  const completion = completionOf(request, model, contextTokens);
  const stopper = new AbortController();
  if (request.id !== '') running.set(request.id, stopper);
  try {
    using either = within(null, call.signal, stopper.signal);
    await run({ ...call, signal: either.signal }, request, completion);
  } catch (error) {
    if (!stopper.signal.aborted || call.signal.aborted) throw error;
    await onStop(request);
  } finally {
    if (running.get(request.id) === stopper) running.delete(request.id);
  }
}

/** `/generate`: one answer or none; without `stream` the backend puts the prompt before the text. */
async function generate(call: Call, running: Running): Promise<void> {
  const { engine, response } = call;
  const answer = (request: Request, text: string): void =>
    send(response, 200, 'application/json', bodies.answerBody(engine.toldModel, request, text));
  await stoppable(
    call,
    running,
    async (stoppableCall, request, completion) => {
      let text = completion.prompt;
      for await (const batch of engine.decode(completion, emptyReport(), stoppableCall)) {
        for (const token of batch) text += token.text;
      }
      if (request.keys.stream !== true) return answer(request, text);
      send(response, 200, 'application/json', bodies.errorBody(ONLY_ONE_ANSWER));
    },
    async (request) => answer(request, ''),
  );
}

/**
 * `/generate_stream`: a frame per token but end-of-sequence, an empty one, EOF; without `stream` one frame with
 * everything.
 */
async function generateStream(call: Call, running: Running): Promise<void> {
  const { engine, response } = call;
  await stoppable(
    call,
    running,
    (stoppableCall, request, completion) => {
      const frames = request.keys.stream === true ? framesOf : wholeFrameOf;
      return streamCompletion(stoppableCall, completion, frames(engine, request, completion));
    },
    async (request) => {
      if (!response.headersSent && !response.destroyed) response.writeHead(200, STREAM_HEADERS);
      await finish(response, bodies.frameWriter(engine.toldModel, request)(''));
    },
  );
}

function framesOf(engine: SimEngine, request: Request): StreamFrames {
  const frame = bodies.frameWriter(engine.toldModel, request);
  return {
    headers: STREAM_HEADERS,
    headWaitsFor: 'event',
    keepAlive: null,
    token: (token) => (token.id === EOS ? '' : frame(bodies.textAlone(token))),
    last: () => frame(''),
    error: (message) => bodies.errorEvent(inEnsemble(engine.config.model, message)),
  };
}

function wholeFrameOf(engine: SimEngine, request: Request, { prompt }: Completion): StreamFrames {
  let text = prompt;
  return {
    ...framesOf(engine, request),
    token: (token) => {
      text += token.text;
      return '';
    },
    last: () => bodies.frameWriter(engine.toldModel, request)(text),
  };
}
