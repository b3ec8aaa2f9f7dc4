/**
 * The HTTP protocol of TGI's router over a simulated engine. Nothing listens until the model is loaded. A stream's head
 * is out before the request is even checked, so what is wrong with it comes as the only event of a 200; only what the
 * web framework refuses (key, body) has a status of its own. Bodies in bodies.ts, checks in request.ts.
 */
import { randomInt } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { performance } from 'node:perf_hooks';
import { EngineFailed } from '../deaths.js';
import type { DecodeReport, SimEngine } from '../engine.js';
import {
  type Call,
  createSimServer,
  type Dialect,
  PayloadTooLarge,
  type Route,
  readBody,
  send,
  sendJson,
} from '../http.js';
import { detokenize } from '../model.js';
import type { SimProtocol } from '../protocol.js';
import { decodeWhole, type StreamFrames, streamCompletion, streamError } from '../stream.js';
import type { SimToken } from '../tokens.js';
import * as bodies from './bodies.js';
import { generationFailed, invalid, overloaded, Rejection, TgiError } from './errors.js';
import { deaths, logs } from './logs.js';
import { metricsText, RouterStats } from './metrics.js';
import { checked, type GenerateRequest, type Generation, type Parameters, parseRequest } from './request.js';

/** `--payload-limit`. */
const MAX_BODY_BYTES = 2_000_000;
const MAX_RANDOM_SEED = 2 ** 48 - 1;

type Handler = (call: Call, router: RouterStats) => void | Promise<void>;

const health: Handler = ({ response }) => send(response, 200, '', '');

/** Open to everybody. */
const INFO_ROUTES: Readonly<Record<string, Handler>> = {
  'GET /': health,
  'GET /health': health,
  'GET /ping': health,
  'GET /info': ({ engine, response }) => sendJson(response, 200, bodies.infoBody(engine)),
  'GET /v1/models': ({ engine, response }) => sendJson(response, 200, bodies.modelsBody(engine)),
  'GET /metrics': ({ engine, response }, router) =>
    send(response, 200, 'text/plain; charset=utf-8', metricsText(engine, router)),
};

/** Behind the key, where there is one. */
const KEYED_ROUTES: Readonly<Record<string, Handler>> = {
  /** In the manner of the hub's inference API: an array of one, and the prompt before the text unless told otherwise. */
  'POST /': async (call, router) => {
    const { parameters, ...request } = await requestOf(call);
    const full = { ...request, parameters: { ...parameters, return_full_text: parameters.return_full_text ?? true } };
    if (request.stream) return generateStream(call, router, full);
    sendJson(call.response, 200, [await generate(call, router, full)]);
  },
  'POST /generate': async (call, router) =>
    sendJson(call.response, 200, await generate(call, router, await requestOf(call))),
  'POST /generate_stream': async (call, router) => generateStream(call, router, await requestOf(call)),
  'POST /tokenize': async (call) => sendJson(call.response, 200, bodies.tokenizeBody((await requestOf(call)).inputs)),
};

const PATHS = new Set(Object.keys({ ...INFO_ROUTES, ...KEYED_ROUTES }).map((key) => key.slice(key.indexOf(' ') + 1)));

const dialectOf = (router: RouterStats): Dialect => ({
  prepare(_request, response) {
    response.setHeader('Access-Control-Allow-Origin', '*');
    response.setHeader('Vary', 'origin, access-control-request-method, access-control-request-headers');
  },
  routeOf: (call) => routeOf(call, router),
  refuse,
  // The batch loses a request when its next token has nobody to go to, and takes none from the queue that has nobody.
  noticesGoneClient: 'at its next step',
  keepAliveMs: 0,
  requestsPerConnection: 0,
});

export const tgi: SimProtocol = {
  name: 'tgi',
  defaultPort: 3000,
  apiKeyVariable: 'API_KEY',
  listensWhileLoading: false,
  servesWithoutGpu: true,
  createServer: (engine) => createSimServer(engine, dialectOf(new RouterStats(engine.config.contextTokens))),
  metrics: null,
  logs,
  deaths,
  // `--graceful-termination-timeout`; what has not ended by then is killed, and the launcher still ends well.
  stop: { drainMs: 90_000, overrun: { exitCode: 0, lines: [] } },
};

function routeOf({ engine, request, path }: Call, router: RouterStats): Route {
  const key = `${request.method} ${path}`;
  const open = INFO_ROUTES[key];
  if (open !== undefined) return (call) => open(call, router);
  const route = KEYED_ROUTES[key];
  if (route === undefined) return ({ response }) => send(response, PATHS.has(path) ? 405 : 404, '', '');
  if (hasKey(request, engine.config.apiKey)) return (call) => route(call, router);
  return ({ response }) => send(response, 401, '', '');
}

/** Compared without regard to case, the key too. */
function hasKey({ headers }: IncomingMessage, apiKey: string | null): boolean {
  return apiKey === null || headers.authorization?.toLowerCase() === `bearer ${apiKey}`.toLowerCase();
}

function refuse(call: Call, error: unknown): void {
  if (error instanceof Rejection) {
    return send(call.response, error.status, 'text/plain; charset=utf-8', error.message);
  }
  const refusal = asTgiError(error);
  sendJson(call.response, refusal.status, refusal.envelope);
}

function asTgiError(error: unknown): TgiError {
  if (error instanceof TgiError) return error;
  return generationFailed(error instanceof Error ? error.message : String(error));
}

/** Throws a Rejection. */
async function requestOf({ request }: Call): Promise<GenerateRequest> {
  try {
    return parseRequest(request.headers['content-type'], await readBody(request, MAX_BODY_BYTES));
  } catch (error) {
    if (!(error instanceof PayloadTooLarge)) throw error;
    throw new Rejection(413, 'Failed to buffer the request body: length limit exceeded');
  }
}

/** Runs one request between the router's counters. A failure is the TgiError or EngineFailed that it throws. */
async function admitted<T>(
  { engine, response }: Call,
  router: RouterStats,
  request: GenerateRequest,
  run: (generation: Generation) => Promise<T>,
): Promise<T> {
  if (router.permits >= bodies.MAX_CONCURRENT_REQUESTS) {
    router.fail('overloaded');
    throw overloaded();
  }
  router.permits += 1;
  try {
    const generation = checked(request, engine.config.contextTokens, () => randomInt(MAX_RANDOM_SEED));
    router.histograms.request_input_length.add(generation.completion.promptTokens);
    router.histograms.request_max_new_tokens.add(generation.completion.maxTokens);
    return await run(generation);
  } catch (error) {
    if (error instanceof TgiError) router.fail('validation');
    else if (error instanceof EngineFailed) router.fail('generation');
    throw error;
  } finally {
    router.permits -= 1;
    if (response.destroyed && !response.writableEnded) router.fail('dropped');
  }
}

/** `/generate`: the whole answer at once, with how long it took in its headers. */
async function generate(
  call: Call,
  router: RouterStats,
  request: GenerateRequest,
): Promise<Readonly<Record<string, unknown>>> {
  const { engine, response } = call;
  const startedMs = performance.now();
  router.requests += 1;
  return admitted(call, router, request, async (generation) => {
    const whole = await decodeWhole(call, generation.completion);
    const times = timesOf(startedMs, whole.report);
    router.succeed(whole.report.tokens, times);
    const counts = [generation.completion.promptTokens, whole.report.tokens] as const;
    const headers = computeHeaders(engine, request, times, counts);
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    const { details, decoder_input_details, return_full_text } = request.parameters;
    const promptText = return_full_text ? request.inputs : '';
    return bodies.generateBody(engine, generation, whole, { promptText, details: details || decoder_input_details });
  });
}

async function generateStream(call: Call, router: RouterStats, request: GenerateRequest): Promise<void> {
  const startedMs = performance.now();
  router.requests += 1;
  const headers = {
    'Content-Type': 'text/event-stream',
    'Cache-Control': 'no-cache',
    'x-compute-type': 'gpu+optimized',
    'x-compute-characters': String([...request.inputs].length),
    'X-Accel-Buffering': 'no',
  };
  try {
    checkStreamed(request.parameters);
    await admitted(call, router, request, (generation) => {
      const frames = framesOf(call.engine, request, generation, {
        ended: (tokens, report) => router.succeed(tokens, timesOf(startedMs, report)),
        failed: () => router.fail('generation'),
      });
      return streamCompletion(call, generation.completion, { ...frames, headers });
    });
  } catch (error) {
    if (!(error instanceof TgiError)) throw error;
    await streamError(call, { headers, error: () => bodies.errorEvent(error.envelope) }, '');
  }
}

/** What only a stream may not want; looked at before everything else. */
function checkStreamed({ best_of, decoder_input_details }: Parameters): void {
  if ((best_of ?? 1) !== 1) throw invalid('`best_of` != 1 is not supported when streaming tokens');
  if (decoder_input_details) throw invalid('`decoder_input_details` == true is not supported when streaming tokens');
}

/** An event per token. The last token's is held back for the end, because it is what ends the stream. */
function framesOf(
  engine: SimEngine,
  { inputs, parameters }: GenerateRequest,
  generation: Generation,
  count: { ended(tokens: number, report: DecodeReport): void; failed(): void },
): Omit<StreamFrames, 'headers'> {
  const ids: number[] = [];
  let last: SimToken | null = null;
  return {
    headWaitsFor: 'nothing',
    keepAlive: { comment: ':\n\n', afterMs: 15_000 },
    token(token) {
      ids.push(token.id);
      if (token.end === null) return bodies.tokenEvent(token);
      last = token;
      return '';
    },
    last(report) {
      if (last === null) return '';
      count.ended(ids.length, report);
      const generatedText = (parameters.return_full_text ? inputs : '') + detokenize(ids);
      return bodies.lastEvent(engine, generation, last, { generatedText, details: parameters.details });
    },
    error(message) {
      count.failed();
      return bodies.errorEvent(generationFailed(message).envelope);
    },
  };
}

interface Times {
  readonly total: number;
  readonly queue: number;
  readonly inference: number;
}

/** In ms. */
function timesOf(startedMs: number, { promptMs, decodeMs }: DecodeReport): Times {
  const total = performance.now() - startedMs;
  const inference = promptMs + decodeMs;
  return { total, inference, queue: Math.max(total - inference, 0) };
}

function computeHeaders(
  engine: SimEngine,
  { inputs }: GenerateRequest,
  times: Times,
  [promptTokens, tokens]: readonly [number, number],
): Readonly<Record<string, string>> {
  const wholeMs = (ms: number): string => String(Math.max(Math.trunc(engine.toldMs(ms)), 0));
  return {
    'x-compute-type': 'gpu+optimized',
    'x-compute-time': String(engine.toldMs(times.total) / 1000),
    'x-compute-characters': String([...inputs].length),
    'x-total-time': wholeMs(times.total),
    'x-validation-time': wholeMs(0),
    'x-queue-time': wholeMs(times.queue),
    'x-inference-time': wholeMs(times.inference),
    'x-time-per-token': wholeMs(times.inference / tokens),
    'x-prompt-tokens': String(engine.toldTokens(promptTokens)),
    'x-generated-tokens': String(engine.toldTokens(tokens)),
  };
}
