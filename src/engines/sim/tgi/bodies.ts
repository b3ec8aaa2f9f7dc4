/** The JSON bodies and events of the TGI router, as version 3.3 sends them. Pure. */
import { createHash } from 'node:crypto';
import type { SimEngine } from '../engine.js';
import { BOS, byteLengthOf, EOS, LAST_VOCABULARY_ID, pieceOf, tokenize } from '../model.js';
import type { Whole } from '../stream.js';
import type { DecodeEnd, SimToken } from '../tokens.js';
import type { Envelope } from './errors.js';
import type { Generation } from './request.js';

const VERSION = '3.3.6-sim';
const GIT_SHA = 'db931fcf42da018a3657580c64bf2720f167f9ab';
/** `--max-concurrent-requests`: what the router takes at once, decoding or queued. */
export const MAX_CONCURRENT_REQUESTS = 128;

export function infoBody({ config, toldModel }: SimEngine): Readonly<Record<string, unknown>> {
  return {
    model_id: toldModel,
    // The revision in the hub; a folder has none.
    model_sha: toldModel.startsWith('/') ? null : createHash('sha1').update(toldModel).digest('hex'),
    model_pipeline_tag: 'text-generation',
    max_concurrent_requests: MAX_CONCURRENT_REQUESTS,
    max_best_of: 1,
    max_stop_sequences: 4,
    max_input_tokens: config.contextTokens - 1,
    max_total_tokens: config.contextTokens,
    validation_workers: 2,
    max_client_batch_size: 4,
    router: 'text-generation-router',
    version: config.version ?? VERSION,
    sha: GIT_SHA,
    docker_label: null,
  };
}

export function modelsBody({ toldModel }: SimEngine): Readonly<Record<string, unknown>> {
  return { object: 'list', data: [{ id: toldModel, object: 'model', created: 0, owned_by: toldModel }] };
}

/** Begin-of-sequence included, which stands for no byte of the input. */
export function tokenizeBody(inputs: string): readonly unknown[] {
  const bytes = Buffer.from(inputs, 'utf8');
  let start = 0;
  return [BOS, ...tokenize(inputs)].map((id) => {
    const stop = start + byteLengthOf(id);
    const token = { id, text: bytes.subarray(start, stop).toString('utf8'), start, stop };
    start = stop;
    return token;
  });
}

/** No space after the colon. */
export function event(data: string): string {
  return `data:${data}\n\n`;
}

export function errorEvent(envelope: Envelope): string {
  return event(JSON.stringify(envelope));
}

function tokenOf(id: number, text: string): Readonly<Record<string, unknown>> {
  const isEnd = id === EOS;
  return { id, text: isEnd ? '</s>' : text, logprob: -((id % 97) + 1) / 100, special: isEnd };
}

/** `data:{"index":1,"token":{"id":300,"text":" She","logprob":-0.1,"special":false},"generated_text":null,"details":null}`. */
export function tokenEvent({ id, text, count }: SimToken): string {
  return event(`{"index":${count},"token":${tokenJson(id, text)},"generated_text":null,"details":null}`);
}

const tokens: string[] = [];
function tokenJson(id: number, text: string): string {
  if (id > LAST_VOCABULARY_ID || text !== pieceOf(id)) return JSON.stringify(tokenOf(id, text));
  const known = tokens[id];
  if (known !== undefined) return known;
  const made = JSON.stringify(tokenOf(id, text));
  tokens[id] = made; // a few hundred: ids that spell out bytes are not kept
  return made;
}

const FINISH_REASONS = { length: 'length', eos: 'eos_token', word: 'stop_sequence' } as const;

function detailsOf(engine: SimEngine, end: DecodeEnd | null, count: number, seed: number | null) {
  const finishReason = FINISH_REASONS[end?.reason ?? 'length'];
  return { finish_reason: finishReason, generated_tokens: engine.toldTokens(count), seed };
}

/** The last token's event, by which a stream ends. Bytes that no longer make a character are U+FFFD only in here. */
export function lastEvent(
  engine: SimEngine,
  { completion, seed }: Generation,
  { id, text, count, end }: SimToken,
  told: { readonly generatedText: string; readonly details: boolean },
): string {
  const details = {
    ...detailsOf(engine, end, count, seed),
    input_length: engine.toldTokens(completion.promptTokens),
  };
  return event(
    JSON.stringify({
      index: count,
      token: tokenOf(id, text),
      generated_text: told.generatedText,
      details: told.details ? details : null,
    }),
  );
}

/** The whole answer without streaming; `details` are left out unless asked for. */
export function generateBody(
  engine: SimEngine,
  { seed }: Generation,
  { tokens: sent, text: generated, report }: Whole,
  told: { readonly promptText: string; readonly details: boolean },
): Readonly<Record<string, unknown>> {
  const details = {
    ...detailsOf(engine, report.end, sent.length, seed),
    prefill: [],
    tokens: sent.map(({ id, text }) => tokenOf(id, text)),
  };
  return { generated_text: told.promptText + generated, ...(told.details && { details }) };
}
