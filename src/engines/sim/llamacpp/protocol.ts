/**
 * llama-server's HTTP protocol over a simulated engine. Routes in one table; bodies in bodies.ts. The order of checks
 * is the server's: loading (503 on every route), then the API key, then the route.
 */
import { randomInt } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Completion, SimEngine } from '../engine.js';
import { type Call, createSimServer, type Dialect, PayloadTooLarge, type Route, readBody, send } from '../http.js';
import { detokenize } from '../model.js';
import type { SimProtocol } from '../protocol.js';
import { decodeWhole, type StreamFrames, streamCompletion } from '../stream.js';
import * as bodies from './bodies.js';
import { nativeEmbeddings, openAiEmbeddings, rerank } from './embeddings.js';
import { deaths, logs } from './logs.js';
import { metricsText } from './metrics.js';

const { sendJson } = bodies;

const MAX_ERASE_MS = 60_000;
const KEYLESS_PATHS: ReadonlySet<string> = new Set(['/health', '/v1/health']);

const health: Route = ({ response }) => sendJson(response, 200, { status: 'ok' });
const models: Route = ({ engine, response }) => sendJson(response, 200, bodies.modelsBody(engine));
/** Of the actions on slots, erasing: what a slot holds is forgotten once it is idle. */
const slotAction: Route = async ({ engine, request, response, path }) => {
  if (!engine.config.slotActions) {
    const message = 'This server does not support slots action. Start it with `--slot-save-path`';
    throw new bodies.LlamaError(501, 'not_supported_error', message);
  }
  if (new URLSearchParams(request.url?.split('?')[1]).get('action') !== 'erase') {
    throw new bodies.LlamaError(400, 'invalid_request_error', 'Invalid action');
  }
  const slot = await engine.slots.acquire(Number(path.split('/')[2]), AbortSignal.timeout(MAX_ERASE_MS));
  const erased = slot.cache.length;
  slot.cache = [];
  engine.slots.release(slot);
  sendJson(response, 200, { id_slot: slot.id, n_erased: erased });
};

const ROUTES: Readonly<Record<string, Route>> = {
  'GET /health': health,
  'GET /v1/health': health,
  'GET /props': ({ engine, response }) => sendJson(response, 200, bodies.propsBody(engine)),
  'GET /slots': slots,
  'GET /models': models,
  'GET /v1/models': models,
  'GET /metrics': ({ engine, response }) => {
    response.setHeader('Process-Start-Time-Unix', String(bodies.startedAtSeconds(engine)));
    send(response, 200, 'text/plain; version=0.0.4', metricsText(engine));
  },
  'POST /completion': complete,
  'POST /completions': complete,
  'POST /tokenize': async ({ request, response }) => {
    sendJson(response, 200, bodies.tokenizeBody(bodies.parseBody(await readBody(request), bodies.tokenizeSchema)));
  },
  'POST /detokenize': async ({ request, response }) => {
    const { tokens } = bodies.parseBody(await readBody(request), bodies.detokenizeSchema);
    sendJson(response, 200, { content: detokenize(bodies.tokenIdsOf(tokens)) });
  },
  'POST /embedding': nativeEmbeddings,
  'POST /embeddings': nativeEmbeddings,
  'POST /v1/embeddings': openAiEmbeddings,
  'POST /rerank': rerank,
  'POST /v1/rerank': rerank,
};

const dialect: Dialect = {
  prepare(request, response) {
    response.sendDate = false;
    response.setHeader('Server', 'llama.cpp');
    response.setHeader('Access-Control-Allow-Origin', request.headers.origin ?? '');
  },
  routeOf,
  refuse({ response }, error) {
    const refusal = asLlamaError(error);
    response.setHeader('Connection', 'close'); // after every error
    sendJson(response, refusal.status, refusal.body);
  },
  noticesGoneClient: 'at once',
  keepAliveMs: 5_000,
  requestsPerConnection: 100,
};

export const llamaCpp: SimProtocol = {
  name: 'llamacpp',
  defaultPort: 8080,
  apiKeyVariable: 'LLAMA_API_KEY',
  listensWhileLoading: true,
  servesWithoutGpu: true,
  createServer: (engine) => createSimServer(engine, dialect),
  metrics: null,
  logs,
  deaths,
  // Work under way is not drained: streams end without their last frame.
  stop: { drainMs: 0, overrun: { exitCode: 0, lines: [] } },
};

function asLlamaError(error: unknown): bodies.LlamaError {
  if (error instanceof bodies.LlamaError) return error;
  if (error instanceof PayloadTooLarge) return new bodies.LlamaError(413, 'invalid_request_error', error.message);
  return new bodies.LlamaError(500, 'server_error', error instanceof Error ? error.message : String(error));
}

function routeOf({ engine, request, path }: Call): Route {
  const key = `${request.method} ${path}`;
  if (!engine.loaded) throw new bodies.LlamaError(503, 'unavailable_error', 'Loading model');
  if (!KEYLESS_PATHS.has(path) && !hasKey(request, engine.config.apiKey)) {
    throw new bodies.LlamaError(401, 'authentication_error', 'Invalid API Key');
  }
  const route = /^POST \/slots\/\d+$/.test(key) ? slotAction : ROUTES[key];
  if (route === undefined) throw new bodies.LlamaError(404, 'not_found_error', 'File Not Found');
  return route;
}

function hasKey(request: IncomingMessage, apiKey: string | null): boolean {
  if (apiKey === null) return true;
  return request.headers.authorization === `Bearer ${apiKey}` || request.headers['x-api-key'] === apiKey;
}

/** With `fail_on_no_slot` it is a question, too. */
function slots({ engine, request, response }: Call): void {
  const query = new URLSearchParams(request.url?.split('?')[1]);
  if (query.get('fail_on_no_slot') && engine.slots.busyCount === engine.config.slots) {
    throw new bodies.LlamaError(503, 'unavailable_error', 'no slot available');
  }
  sendJson(response, 200, bodies.slotsBody(engine));
}

async function complete(call: Call): Promise<void> {
  const { engine, request, response } = call;
  const body = bodies.parseCompletion(await readBody(request));
  const completion = bodies.completionOf(body, () => randomInt(0xffff_ffff));
  if (completion.promptTokens >= engine.config.contextTokens) {
    throw bodies.contextOverflow(completion.promptTokens, engine.config.contextTokens);
  }
  if (body.stream) return streamCompletion(call, completion, framesOf(engine, completion));
  const { text, report } = await decodeWhole(call, completion);
  sendJson(response, 200, bodies.lastFrame(engine, completion, report, text));
}

/** A frame per token, then the one with `stop: true`, then EOF. */
function framesOf(engine: SimEngine, completion: Completion): StreamFrames {
  return {
    headers: { 'X-Accel-Buffering': 'no', 'Content-Type': 'text/event-stream' },
    headWaitsFor: 'slot',
    keepAlive: { comment: ':\n\n', afterMs: 30_000 },
    token: bodies.frameWriter(completion.promptTokens),
    last: (report) => `data: ${JSON.stringify(bodies.lastFrame(engine, completion, report, ''))}\n\n`,
    error(message) {
      const { body } = new bodies.LlamaError(500, 'server_error', message);
      return `data: ${JSON.stringify(body)}\n\n`;
    },
  };
}
