/**
 * vLLM's OpenAI server over a simulated engine. Routes in one table; bodies in bodies.ts, refusals in errors.ts. The
 * order of checks is the server's: the API key (of some paths only), then the route, the body, the model, the length.
 */
import { randomInt } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { EngineFailed } from '../deaths.js';
import type { SimEngine } from '../engine.js';
import {
  type Call,
  createSimServer,
  type Dialect,
  failureOf,
  PayloadTooLarge,
  type Route,
  readBody,
  send,
  sendJson,
} from '../http.js';
import { detokenize } from '../model.js';
import type { SimProtocol } from '../protocol.js';
import { decodeWhole, type StreamFrames, streamCompletion } from '../stream.js';
import * as bodies from './bodies.js';
import { embeddings, rerank } from './embeddings.js';
import { checkLength, checkModel, ENGINE_DEAD, frameworkRefusal, refusal, unauthorized, VllmError } from './errors.js';
import { answerId, nowSeconds } from './http.js';
import { deaths, logs } from './logs.js';
import { Latencies, metricsText } from './metrics.js';

/** The key guards what begins with these; health, metrics and the tokenizer are open to everybody. */
const GUARDED_PREFIXES = ['/v1', '/v2', '/inference', '/cohere'] as const;
/** How long the API server outlives its engine; the real watchdog looks every five seconds. */
const WATCHDOG_MS = 500;

/** Of one API server. */
interface State {
  readonly latencies: Latencies;
  /** The engine behind it has died, and it has not ended yet. */
  isDead: boolean;
}

type Handler = (call: Call, state: State) => void | Promise<void>;

const health: Handler = ({ response }, { isDead }) => send(response, isDead ? 503 : 200, '', '');

const ROUTES: Readonly<Record<string, Handler>> = {
  'GET /health': health,
  'GET /ping': health,
  'POST /ping': health,
  'GET /version': ({ engine, response }) =>
    sendJson(response, 200, { version: engine.config.version ?? bodies.VERSION }),
  'GET /load': ({ engine: { slots }, response }) =>
    sendJson(response, 200, { server_load: slots.busyCount + slots.deferredCount }),
  'GET /metrics': ({ engine, response }, { latencies }) =>
    send(response, 200, 'text/plain; version=0.0.4; charset=utf-8', metricsText(engine, latencies)),
  'GET /v1/models': ({ engine, response }) => sendJson(response, 200, bodies.modelsBody(engine, nowSeconds(engine))),
  'POST /v1/completions': complete,
  'POST /tokenize': async ({ engine, request, response }) => {
    const body = bodies.parseTokenize(await readBody(request));
    checkModel(body.model, engine);
    sendJson(response, 200, bodies.tokenizeBody(body, engine.config.contextTokens));
  },
  'POST /detokenize': async ({ engine, request, response }) => {
    const body = bodies.parseDetokenize(await readBody(request));
    checkModel(body.model, engine);
    sendJson(response, 200, { prompt: detokenize(bodies.tokenIdsOf(body.tokens)) });
  },
  'POST /v1/embeddings': embeddings,
  'POST /rerank': rerank,
  'POST /v1/rerank': rerank,
  'POST /v2/rerank': rerank,
};
const KNOWN_PATHS: ReadonlySet<string> = new Set(Object.keys(ROUTES).map((key) => key.split(' ', 2)[1] ?? ''));

const dialectOf = (state: State): Dialect => ({
  prepare(_request, response) {
    response.sendDate = false;
    response.setHeader('date', new Date().toUTCString());
    response.setHeader('server', 'uvicorn');
  },
  routeOf: (call) => routeOf(call, state),
  refuse,
  noticesGoneClient: 'at once',
  keepAliveMs: 5_000,
  requestsPerConnection: 0,
});

export const vllm: SimProtocol = {
  name: 'vllm',
  defaultPort: 8000,
  apiKeyVariable: 'VLLM_API_KEY',
  listensWhileLoading: false,
  servesWithoutGpu: false,
  createServer: (engine) => createSimServer(engine, dialectOf({ latencies: new Latencies(), isDead: false })),
  metrics: null,
  logs,
  deaths,
  // --shutdown-timeout is 0 unless it is given: work under way is aborted.
  stop: { drainMs: 0, overrun: { exitCode: 0, lines: [] } },
};

function refuse({ response }: Call, error: unknown): void {
  const { status, body } = asVllmError(error);
  sendJson(response, status, body);
}

function asVllmError(error: unknown): VllmError {
  if (error instanceof VllmError) return error;
  if (error instanceof PayloadTooLarge) return frameworkRefusal(413, error.message);
  if (error instanceof EngineFailed) return refusal(500, 'InternalServerError', error.message);
  return refusal(500, 'InternalServerError', error instanceof Error ? error.message : String(error));
}

function routeOf({ engine, request, path }: Call, state: State): Route {
  const isGuarded = GUARDED_PREFIXES.some((prefix) => path.startsWith(prefix));
  if (isGuarded && !hasKey(request, engine.config.apiKey)) throw unauthorized();
  const route = ROUTES[`${request.method} ${path}`];
  if (route !== undefined) return (call) => route(call, state);
  throw KNOWN_PATHS.has(path) ? frameworkRefusal(405, 'Method Not Allowed') : frameworkRefusal(404, 'Not Found');
}

function hasKey({ headers: { authorization = '' } }: IncomingMessage, apiKey: string | null): boolean {
  if (apiKey === null) return true;
  const [, key] = /^bearer (.*)$/i.exec(authorization) ?? [];
  return key === apiKey;
}

async function complete(call: Call, state: State): Promise<void> {
  const { engine, request, signal } = call;
  if (!engine.config.generates) throw frameworkRefusal(404, 'Not Found');
  const body = bodies.parseCompletion(await readBody(request), () => randomInt(2 ** 47));
  checkModel(body.model, engine);
  checkLength(body.completion.promptTokens, body.completion.maxTokens, engine.config.contextTokens);
  if (state.isDead) throw refusal(500, 'InternalServerError', ENGINE_DEAD);
  const onAbort = (): void => {
    state.isDead ||= failureOf(signal) !== null;
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await answerCompletion(call, state, body);
  } catch (error) {
    const failure = failureOf(signal);
    if (failure === null) throw error;
    refuse(call, failure);
  }
  // The process ends once no request is open: held open here, this one gives the watchdog's time.
  if (state.isDead) await setTimeout(WATCHDOG_MS);
}

async function answerCompletion(call: Call, { latencies }: State, body: bodies.CompletionBody): Promise<void> {
  const { engine, response } = call;
  const answer: bodies.Answer = {
    id: answerId('cmpl', call, body.requestId),
    createdSeconds: nowSeconds(engine),
    model: engine.toldModel,
  };
  if (body.stream) return streamCompletion(call, body.completion, framesOf(engine, answer, body, latencies));
  const whole = await decodeWhole(call, body.completion);
  latencies.add(whole.report);
  sendJson(response, 200, bodies.completionAnswer(answer, body, engine, whole));
}

/** Chunks, then the usage, then `[DONE]`. The head goes out before the engine has seen the request. */
function framesOf(
  engine: SimEngine,
  answer: bodies.Answer,
  body: bodies.CompletionBody,
  latencies: Latencies,
): StreamFrames {
  const chunks = new bodies.ChunkWriter(answer, body);
  return {
    headers: { 'content-type': 'text/event-stream; charset=utf-8' },
    headWaitsFor: 'nothing',
    keepAlive: null,
    token: (token) => chunks.token(token),
    last(report) {
      latencies.add(report);
      return bodies.closing(answer, body, engine, report.tokens);
    },
    error: bodies.errorEvent,
  };
}
