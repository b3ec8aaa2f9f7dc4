/** Lean HTTP clients: they look at bytes and keep nothing, so that what is measured is the other side. */
import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:http';
import { MODEL } from './world.mjs';

const DEADLINE_MS = 60_000;
/** One token frame each, told apart from all other frames by these bytes. */
export const SSE_TOKEN = Buffer.from('event: token\n');
export const ENGINE_TOKEN = Buffer.from('"stop":false');

/** @param {number} maxSockets */
export function keepAliveAgent(maxSockets) {
  return new Agent({ keepAlive: true, maxSockets });
}

/** A task as REST takes it; with as small a prompt as admission needs no tokenizer for. */
export function taskBody(overrides = {}) {
  return {
    task_id: randomUUID(),
    session_id: randomUUID(),
    workload: 'completion',
    model_ref: MODEL,
    engine: 'llamacpp',
    ctx: 1024,
    priority: 'interactive',
    prompt: 'Tell me about the sea.',
    max_tokens: 4,
    deadline_ms: 3_600_000,
    ...overrides,
  };
}

/** What the adapter of the server asks of llama-server. */
export function completionBody(maxTokens) {
  const sampling = { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05 };
  return {
    prompt: 'Tell me about the sea.',
    n_predict: maxTokens,
    stream: true,
    seed: 7,
    ...sampling,
    cache_prompt: true,
  };
}

/** Opens a request and gives its response once the head is there; any status but `expected` fails. */
export function open(url, { agent, method = 'GET', body, expected = 200 }) {
  return new Promise((resolve, reject) => {
    const payload = body === undefined ? null : Buffer.from(JSON.stringify(body));
    const headers = payload === null ? {} : { 'content-type': 'application/json', 'content-length': payload.length };
    const call = request(url, { agent, method, headers, timeout: DEADLINE_MS }, (response) => {
      if (response.statusCode === expected) return resolve(response);
      readText(response).then((text) => reject(new Error(`${method} ${url}: ${response.statusCode} ${text}`)), reject);
    });
    call.once('timeout', () => call.destroy(new Error(`${method} ${url}: silent for ${DEADLINE_MS} ms`)));
    call.once('error', reject);
    call.end(payload ?? undefined);
  });
}

export async function readText(response) {
  const chunks = [];
  for await (const chunk of response) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** Sends JSON and reads the whole answer away. */
export async function post(url, body, { agent, expected = 202 }) {
  return readText(await open(url, { agent, method: 'POST', body, expected }));
}

/**
 * Reads a stream to its end and counts `needle` in its bytes; nothing is decoded.
 * @returns {Promise<{ count: number, firstMs: number, lastMs: number }>} times of performance.now()
 */
export function countFrames(response, needle) {
  return new Promise((resolve, reject) => {
    const seen = { count: 0, firstMs: 0, lastMs: 0 };
    watchFrames(response, needle, (count) => {
      seen.lastMs = performance.now();
      if (seen.count === 0) seen.firstMs = seen.lastMs;
      seen.count += count;
    });
    response.once('end', () => resolve(seen));
    response.once('error', reject);
    response.once('close', () => reject(new Error('the stream was cut')));
  });
}

/** Tells how many more of `needle` there are in the bytes of a stream, whenever some have come. */
export function watchFrames(response, needle, onFrames) {
  let carry = Buffer.alloc(0);
  response.on('error', () => {});
  response.on('data', (chunk) => {
    const bytes = carry.length === 0 ? chunk : Buffer.concat([carry, chunk]);
    const found = countIn(bytes, needle);
    // A needle may lie across two chunks; what is left after the last whole one is looked at again.
    carry = Buffer.from(bytes.subarray(Math.max(found.end, bytes.length - needle.length + 1)));
    if (found.count > 0) onFrames(found.count);
  });
}

function countIn(bytes, needle) {
  let count = 0;
  let end = 0;
  for (let at = bytes.indexOf(needle); at !== -1; at = bytes.indexOf(needle, end)) {
    count += 1;
    end = at + needle.length;
  }
  return { count, end };
}
