/**
 * The HTTP protocol of TGI's router over a simulated engine. Nothing listens until the model is loaded. A stream's head
 * is out before the request is even checked, so what is wrong with it comes as the only event of a 200; only what the
 * web framework refuses (key, body) has a status of its own. Bodies in bodies.ts, checks in request.ts.
 */
import { randomInt } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { performance } from 'node:perf_hooks';
import { EngineFailed } from '../deaths.js';
import { type DecodeReport, emptyReport, type SimEngine } from '../engine.js';
import { type Call, createSimServer, type Dialect, PayloadTooLarge, type Route, readBody, send } from '../http.js';
import { detokenize, type SimToken, TokenReader } from '../model.js';
import type { SimProtocol } from '../protocol.js';
import { type StreamFrames, streamCompletion, streamError } from '../stream.js';
import * as bodies from './bodies.js';
import { generationFailed, invalid, overloaded, Rejection, TgiError } from './errors.js';
import { deaths, logs } from './logs.js';
import { metricsText, RouterStats } from './metrics.js';
import { checked, type GenerateRequest, type Generation, type Parameters, parseRequest } from './request.js';

/** `--payload-limit`. */
const MAX_BODY_BYTES = 2_000_000;
const MAX_RANDOM_SEED = 2 ** 48 - 1;

const health: Route = ({ response }) => send(response, 200, '', '');

/** Open to everybody. */
const INFO_ROUTES: Readonly<Record<string, Route>> = {
  'GET /': health,
  'GET /health': health,
  'GET /ping': health,
  'GET /info': (call) => sendJson(call, 200, bodies.infoBody(call.engine)),
  'GET /v1/models': (call) => sendJson(call, 200, bodies.modelsBody(call.engine)),
  'GET /metrics': ({ engine, response }) =>
    send(response, 200, 'text/plain; charset=utf-8', metricsText(engine, statsOf(engine))),
};

/** Behind the key, where there is one. */
const KEYED_ROUTES: Readonly<Record<string, Route>> = {
  /** In the manner of the hub's inference API: an array of one, and the prompt before the text unless told otherwise. */
  'POST /': async (call) => {
    const { parameters, ...request } = await requestOf(call);
    const full = { ...request, parameters: { ...parameters, return_full_text: parameters.return_full_text ?? true } };
    if (request.stream) return generateStream(call, full);
    sendJson(call, 200, [await generate(call, full)]);
  },
  'POST /generate': async (call) => sendJson(call, 200, await generate(call, await requestOf(call))),
  'POST /generate_stream': async (call) => generateStream(call, await requestOf(call)),
  'POST /tokenize': async (call) => sendJson(call, 200, bodies.tokenizeBody((await requestOf(call)).inputs)),
};

const PATHS = new Set(Object.keys({ ...INFO_ROUTES, ...KEYED_ROUTES }).map((key) => key.slice(key.indexOf(' ') + 1)));

const dialect: Dialect = {
  prepare(_request, response) {
    response.setHeader('Access-Control-Allow-Origin', '*');
    response.setHeader('Vary', 'origin, access-control-request-method, access-control-request-headers');
  },
  routeOf,
  refuse,
  // The batch loses a request when its next token has nobody to go to.
  noticesGoneClient: 'when it writes',
  keepAliveMs: 0,
  requestsPerConnection: 0,
};

export const tgi: SimProtocol = {
  name: 'tgi',
  defaultPort: 3000,
  apiKeyVariable: 'API_KEY',
  listensWhileLoading: false,
  servesWithoutGpu: true,
  createServer: (engine) => createSimServer(engine, dialect),
  metrics: null,
  logs,
  deaths,
  // `--graceful-termination-timeout`; what has not ended by then is killed, and the launcher still ends well.
  stop: { drainMs: 90_000, overrunExitCode: 0 },
};

const stats = new WeakMap<SimEngine, RouterStats>();
function statsOf(engine: SimEngine): RouterStats {
  const known = stats.get(engine) ?? new RouterStats(engine.config.contextTokens);
  stats.set(engine, known);
  return known;
}

function routeOf({ engine, request, path }: Call): Route {
  const key = `${request.method} ${path}`;
  const open = INFO_ROUTES[key];
  if (open !== undefined) return open;
  const route = KEYED_ROUTES[key];
  if (route === undefined) return ({ response }) => send(response, PATHS.has(path) ? 405 : 404, '', '');
  return hasKey(request, engine.config.apiKey) ? route : ({ response }) => send(response, 401, '', '');
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
  sendJson(call, refusal.status, refusal.envelope);
}

function asTgiError(error: unknown): TgiError {
  if (error instanceof TgiError) return error;
  return generationFailed(error instanceof Error ? error.message : String(error));
}

function sendJson({ response }: Call, status: number, body: unknown): void {
  send(response, status, 'application/json', JSON.stringify(body));
}

/** Throws a Rejection. */
async function requestOf({ request }: Call): Promise<GenerateRequest> {
  const text = await readBody(request).catch((error: unknown) => {
    if (error instanceof PayloadTooLarge) return null;
    throw error;
  });
  if (text === null || Buffer.byteLength(text) > MAX_BODY_BYTES) {
    throw new Rejection(413, 'Failed to buffer the request body: length limit exceeded');
  }
  return parseRequest(request.headers['content-type'], text);
}

/** Runs one request between the router's counters. A failure is the TgiError or EngineFailed that it throws. */
async function admitted<T>(
  { engine, response }: Call,
  request: GenerateRequest,
  run: (generation: Generation, router: RouterStats) => Promise<T>,
): Promise<T> {
  const router = statsOf(engine);
  if (router.permits >= bodies.MAX_CONCURRENT_REQUESTS) {
    router.fail('overloaded');
    throw overloaded();
  }
  router.permits += 1;
  try {
    const { model, contextTokens: maxTotalTokens, splitCharacters } = engine.config;
    const limits = { model, maxTotalTokens, splitCharacters };
    const generation = checked(request, limits, () => randomInt(MAX_RANDOM_SEED));
    router.histograms.request_input_length.add(generation.completion.promptTokens);
    router.histograms.request_max_new_tokens.add(generation.completion.maxTokens);
    return await run(generation, router);
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
async function generate(call: Call, request: GenerateRequest): Promise<Readonly<Record<string, unknown>>> {
  const { engine, response, signal } = call;
  const startedMs = performance.now();
  statsOf(engine).requests += 1;
  return admitted(call, request, async (generation, router) => {
    const report = emptyReport();
    const reader = new TokenReader(engine.config.splitCharacters);
    const sent: SimToken[] = [];
    for await (const batch of engine.decode(generation.completion, report, signal)) {
      if (response.destroyed && !engine.faults.has('ignore-cancel')) throw new Error('dropped');
      for (const id of batch) sent.push(reader.read(id));
    }
    const times = timesOf(startedMs, report);
    router.succeed(sent.length, times);
    const headers = computeHeaders(engine, request, times, [generation.completion.promptTokens, sent.length]);
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    const { details, decoder_input_details, return_full_text } = request.parameters;
    const promptText = return_full_text ? request.inputs : '';
    return bodies.generateBody(engine, generation, sent, { promptText, details: details || decoder_input_details });
  });
}

async function generateStream(call: Call, request: GenerateRequest): Promise<void> {
  const startedMs = performance.now();
  statsOf(call.engine).requests += 1;
  const headers = {
    'Content-Type': 'text/event-stream',
    'Cache-Control': 'no-cache',
    'x-compute-type': 'gpu+optimized',
    'x-compute-characters': String([...request.inputs].length),
    'X-Accel-Buffering': 'no',
  };
  try {
    checkStreamed(request.parameters);
    await admitted(call, request, (generation, router) => {
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
      if (token.count < generation.completion.maxTokens) return bodies.tokenEvent(token);
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
