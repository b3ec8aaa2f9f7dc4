/**
 * llama-server's HTTP protocol over a simulated engine. Routes in one table; bodies in llamacppBodies.ts. The order of
 * checks is the server's: loading (503 on every route), then the API key, then the route.
 */
import { randomInt } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { z } from 'zod';
import { type Completion, emptyReport, type SimEngine } from './engine.js';
import { UnknownFault } from './faults.js';
import * as bodies from './llamacppBodies.js';
import { detokenize } from './model.js';

const MAX_REQUEST_BYTES = 64 * 1024 * 1024;
const KEEP_ALIVE_MS = 5_000;
const REQUESTS_PER_CONNECTION = 100;
/** A stream that is silent for this long gets a comment line. */
const PING_INTERVAL_MS = 30_000;
const KEYLESS_PATHS: ReadonlySet<string> = new Set(['/health', '/v1/health']);

interface Call {
  readonly engine: SimEngine;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal;
}

type Route = (call: Call) => void | Promise<void>;

const health: Route = ({ response }) => sendJson(response, 200, { status: 'ok' });
const noEmbeddings: Route = () => {
  const message = 'This server does not support embeddings. Start it with `--embeddings`';
  throw new bodies.LlamaError(501, 'not_supported_error', message);
};
const noReranking: Route = () => {
  const message = 'This server does not support reranking. Start it with `--reranking`';
  throw new bodies.LlamaError(501, 'not_supported_error', message);
};
const noSlotActions: Route = () => {
  const message = 'This server does not support slots action. Start it with `--slot-save-path`';
  throw new bodies.LlamaError(501, 'not_supported_error', message);
};
const startedAtSeconds = Math.floor(Date.now() / 1000);

const ROUTES: Readonly<Record<string, Route>> = {
  'GET /health': health,
  'GET /v1/health': health,
  'GET /props': ({ engine, response }) => sendJson(response, 200, bodies.propsBody(engine)),
  'GET /slots': ({ engine, response }) => sendJson(response, 200, bodies.slotsBody(engine)),
  'GET /models': ({ engine, response }) => sendJson(response, 200, bodies.modelsBody(engine, startedAtSeconds)),
  'GET /v1/models': ({ engine, response }) => sendJson(response, 200, bodies.modelsBody(engine, startedAtSeconds)),
  'GET /metrics': ({ engine, response }) => {
    response.setHeader('Process-Start-Time-Unix', String(startedAtSeconds));
    send(response, 200, 'text/plain; version=0.0.4', bodies.metricsText(engine));
  },
  'POST /completion': complete,
  'POST /completions': complete,
  'POST /tokenize': async ({ request, response }) => {
    sendJson(response, 200, bodies.tokenizeBody(bodies.parseBody(await readBody(request), bodies.tokenizeSchema)));
  },
  'POST /detokenize': async ({ request, response }) => {
    const { tokens } = bodies.parseBody(await readBody(request), bodies.detokenizeSchema);
    sendJson(response, 200, { content: detokenize(tokens) });
  },
  'POST /embedding': noEmbeddings,
  'POST /embeddings': noEmbeddings,
  'POST /v1/embeddings': noEmbeddings,
  'POST /rerank': noReranking,
  'POST /v1/rerank': noReranking,
};

/** Not part of the protocol: the simulator's own switchboard, open at any time and without a key. */
const CONTROL_ROUTES: Readonly<Record<string, Route>> = {
  'GET /sim/control': ({ engine, response }) => sendJson(response, 200, { faults: engine.faults.list() }),
  'POST /sim/control': async ({ engine, request, response }) => {
    const { fault } = bodies.parseBody(await readBody(request), controlSchema);
    engine.faults.set(typeof fault === 'string' ? [fault] : fault);
    sendJson(response, 200, { faults: engine.faults.list() });
  },
};
const controlSchema = z.object({ fault: z.union([z.string(), z.array(z.string())]) });

export function createLlamaCppServer(engine: SimEngine): Server {
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true }, (request, response) => {
    response.sendDate = false;
    response.setHeader('Server', 'llama.cpp');
    response.setHeader('Access-Control-Allow-Origin', request.headers.origin ?? '');
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    void answer({ engine, request, response, signal: gone.signal });
  });
  server.maxRequestsPerSocket = REQUESTS_PER_CONNECTION;
  return server;
}

async function answer(call: Call): Promise<void> {
  const { response, signal } = call;
  try {
    await routeOf(call)(call);
  } catch (error) {
    if (signal.aborted) return; // the client is gone, and that is what ended the work
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const refusal = asLlamaError(error);
    sendJson(response, refusal.status, refusal.body);
  }
}

function asLlamaError(error: unknown): bodies.LlamaError {
  if (error instanceof bodies.LlamaError) return error;
  if (error instanceof UnknownFault) return new bodies.LlamaError(400, 'invalid_request_error', error.message);
  return new bodies.LlamaError(500, 'server_error', error instanceof Error ? error.message : String(error));
}

function routeOf({ engine, request }: Call): Route {
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
  const key = `${request.method} ${path}`;
  const control = CONTROL_ROUTES[key];
  if (control !== undefined) return control;
  if (!engine.loaded) throw new bodies.LlamaError(503, 'unavailable_error', 'Loading model');
  if (!KEYLESS_PATHS.has(path) && !hasKey(request, engine.config.apiKey)) {
    throw new bodies.LlamaError(401, 'authentication_error', 'Invalid API Key');
  }
  const route = /^POST \/slots\/\d+$/.test(key) ? noSlotActions : ROUTES[key];
  if (route === undefined) throw new bodies.LlamaError(404, 'not_found_error', 'File Not Found');
  return route;
}

function hasKey(request: IncomingMessage, apiKey: string | null): boolean {
  if (apiKey === null) return true;
  return request.headers.authorization === `Bearer ${apiKey}` || request.headers['x-api-key'] === apiKey;
}

async function complete({ engine, request, response, signal }: Call): Promise<void> {
  const body = bodies.parseCompletion(await readBody(request));
  const completion = bodies.completionOf(body, () => randomInt(0xffff_ffff));
  if (completion.promptTokens >= engine.config.contextTokens) {
    throw bodies.contextOverflow(completion.promptTokens, engine.config.contextTokens);
  }
  if (body.stream) await streamCompletion(engine, completion, response, signal);
  else await answerCompletion(engine, completion, response, signal);
}

async function answerCompletion(
  engine: SimEngine,
  completion: Completion,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const report = emptyReport();
  const ids: number[] = [];
  for await (const batch of engine.decode(completion, report, signal)) ids.push(...batch);
  sendJson(response, 200, bodies.lastFrame(engine, completion, report, detokenize(ids)));
}

/** The head goes out once the request has its slot; then a frame per token; then the frame with `stop: true`; EOF. */
async function streamCompletion(
  engine: SimEngine,
  completion: Completion,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const sendHead = (): void => {
    response.writeHead(200, { 'X-Accel-Buffering': 'no', 'Content-Type': 'text/event-stream' });
    response.flushHeaders();
  };
  const ping = setInterval(() => response.headersSent && response.write(':\n\n'), PING_INTERVAL_MS);
  try {
    const report = emptyReport();
    const frame = bodies.frameWriter(completion.promptTokens);
    let tokensPredicted = 0;
    for await (const batch of engine.decode(completion, report, signal, sendHead)) {
      let text = '';
      for (const id of batch) {
        tokensPredicted += 1;
        text += frame(id, tokensPredicted);
      }
      await write(response, text, signal);
      ping.refresh();
    }
    const last = JSON.stringify(bodies.lastFrame(engine, completion, report, ''));
    await write(response, `data: ${last}\n\n`, signal);
    response.end();
  } finally {
    clearInterval(ping);
  }
}

/**
 * Resolves when the system has taken the bytes, so a reader that does not read holds the decoding back. Rejects when
 * the client goes: the callback of a write that is still pending then may never come.
 */
function write(response: ServerResponse, text: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    response.write(text, (error) => {
      signal.removeEventListener('abort', onAbort);
      if (error) reject(error);
      else resolve();
    });
  });
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_REQUEST_BYTES) throw new bodies.LlamaError(413, 'invalid_request_error', 'Payload too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, bytes).toString('utf8');
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  send(response, status, 'application/json; charset=utf-8', JSON.stringify(body));
}

function send(response: ServerResponse, status: number, contentType: string, text: string): void {
  response.setHeader('Content-Type', contentType);
  response.setHeader('Content-Length', Buffer.byteLength(text));
  if (status >= 400) response.setHeader('Connection', 'close'); // as the server does after every error
  response.writeHead(status);
  response.end(text);
}
