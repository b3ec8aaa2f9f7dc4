/** The JSON bodies of vLLM's OpenAI server, as pydantic writes them. Pure. */
import { z } from 'zod';
import type { Completion, SimEngine } from '../engine.js';
import { BOS, detokenize, isTokenId, pieceOf, tokenize } from '../model.js';
import { wholeNumber } from '../numbers.js';
import type { Whole } from '../stream.js';
import type { DecodeEnd, SimToken } from '../tokens.js';
import { brokenRule, parseBody, refusal, semanticError } from './errors.js';

export const VERSION = '0.23.0+sim';
const SYSTEM_FINGERPRINT = 'vllm-0.23.0+sim';

const completionSchema = z.object({
  model: z.string().nullish(),
  prompt: z.union([z.string(), z.array(z.unknown())]).nullish(),
  max_tokens: z.number().int().nullish(),
  seed: wholeNumber(-(2 ** 63), 2 ** 63).nullish(),
  stop: z.union([z.string(), z.array(z.string())]).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .object({ include_usage: z.boolean().nullish(), continuous_usage_stats: z.boolean().nullish() })
    .nullish(),
  stream_interval: z.number().int().min(1).nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  top_k: z.number().int().nullish(),
  min_p: z.number().nullish(),
  request_id: z.string().optional(),
  return_token_ids: z.boolean().nullish(),
});

export interface CompletionBody {
  readonly model: string | null;
  readonly promptIds: readonly number[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  /** Tokens per chunk, but for the first and the last chunk. */
  readonly streamInterval: number;
  readonly returnTokenIds: boolean;
  readonly requestId: string | null;
  readonly completion: Completion;
}

/** A completion without `max_tokens` has this many. */
const DEFAULT_MAX_TOKENS = 16;

export function parseCompletion(text: string, randomSeed: () => number): CompletionBody {
  const body = parseBody(text, completionSchema);
  const options = body.stream_options;
  if (options && body.stream !== true) {
    throw brokenRule('Stream options can only be defined when `stream=True`.', 'stream_options');
  }
  const { prompt } = body;
  if (prompt === undefined || prompt === null || prompt.length === 0) {
    throw brokenRule('Either prompt or prompt_embeds must be provided and non-empty.', 'prompt');
  }
  const maxTokens = body.max_tokens ?? DEFAULT_MAX_TOKENS;
  if (maxTokens < 1) throw semanticError(`max_tokens must be at least 1, got ${maxTokens}.`, 'max_tokens', maxTokens);
  const words = typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []);
  if (words.includes('')) throw refusal(400, 'BadRequestError', 'stop cannot contain an empty string.', 'stop');
  const promptIds = typeof prompt === 'string' ? [BOS, ...tokenize(prompt)] : tokenIdsOf(prompt);
  return {
    model: body.model ?? null,
    promptIds,
    stream: body.stream === true,
    includeUsage: options?.include_usage === true,
    continuousUsage: options?.include_usage === true && options.continuous_usage_stats === true,
    streamInterval: body.stream_interval ?? 1,
    returnTokenIds: body.return_token_ids === true,
    requestId: body.request_id ?? null,
    completion: {
      prompt: typeof prompt === 'string' ? prompt : detokenize(promptIds),
      promptTokens: promptIds.length,
      maxTokens,
      seed: body.seed ?? randomSeed(),
      sampling: {
        temperature: body.temperature ?? 1,
        topK: body.top_k ?? 0,
        topP: body.top_p ?? 1,
        minP: body.min_p ?? 0,
      },
      idSlot: -1, // which sequence of the batch a request becomes is the scheduler's affair
      stop: { words, text: 'removed by length' },
      settings: {},
    },
  };
}

/** Throws the refusal of what is no token of this model. */
export function tokenIdsOf(values: readonly unknown[]): readonly number[] {
  const ids = values.filter(isTokenId);
  if (ids.length === values.length) return ids;
  const unknown = values.find((value) => typeof value === 'number' && !isTokenId(value));
  if (unknown !== undefined) throw refusal(400, 'BadRequestError', `Token id ${unknown} is out of vocabulary`);
  const message = 'A prompt is simulated as one text or one list of token ids, lists of prompts are not simulated.';
  throw refusal(501, 'NotImplementedError', message, 'prompt');
}

/** What all chunks of one answer have in common. */
export interface Answer {
  readonly id: string;
  readonly createdSeconds: number;
  readonly model: string;
}

/** Field order as pydantic has it: `total_tokens` before `completion_tokens`. */
export function usageOf(promptTokens: number, completionTokens: number): Readonly<Record<string, number>> {
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
  };
}

/** As JSON: why a completion ends, and the stop word by which it does. */
function endTexts(end: DecodeEnd | null): readonly [finishReason: string, stopReason: string] {
  if (end === null) return ['null', 'null'];
  return [end.reason === 'length' ? '"length"' : '"stop"', end.word === '' ? 'null' : JSON.stringify(end.word)];
}

/**
 * Chunks of one completion. `token` gives the chunk that a token completes, or '' while tokens are gathered for one
 * (`stream_interval`); the first and the last token never wait. A token that completes no character has a chunk of its
 * own, without text.
 */
export class ChunkWriter {
  readonly #head: string;
  readonly #body: CompletionBody;
  #text = '';
  #ids: number[] = [];
  #isFirst = true;

  constructor(answer: Answer, body: CompletionBody) {
    this.#head = headOf(answer);
    this.#body = body;
  }

  token({ id, text, count, end }: SimToken): string {
    this.#text += text;
    this.#ids.push(id);
    if (!this.#isFirst && end === null && this.#ids.length < this.#body.streamInterval) return '';
    const chunk = this.#chunk(count, end);
    this.#text = '';
    this.#ids = [];
    this.#isFirst = false;
    return chunk;
  }

  /** Ids that were not asked for are null; the prompt's come once. The running count stands beside the choices. */
  #chunk(count: number, end: DecodeEnd | null): string {
    const [finishReason, stopReason] = endTexts(end);
    const { returnTokenIds, continuousUsage, promptIds } = this.#body;
    const promptIdsTold = returnTokenIds && this.#isFirst ? JSON.stringify(promptIds) : 'null';
    const ids = returnTokenIds ? JSON.stringify(this.#ids) : 'null';
    const usage = continuousUsage ? `,"usage":${JSON.stringify(usageOf(promptIds.length, count))}` : '';
    return `data: ${this.#head}[{"index":0,"text":${JSON.stringify(this.#text)},"logprobs":null,"finish_reason":${finishReason},"stop_reason":${stopReason},"prompt_token_ids":${promptIdsTold},"token_ids":${ids}}]${usage}}\n\n`;
  }
}

function headOf({ id, createdSeconds, model }: Answer): string {
  const [idText, modelText] = [JSON.stringify(id), JSON.stringify(model)];
  return `{"id":${idText},"object":"text_completion","created":${createdSeconds},"model":${modelText},"choices":`;
}

/** The usage of the whole, when it was asked for, and the mark that also stands after an error. */
export function closing(answer: Answer, body: CompletionBody, engine: SimEngine, tokens: number): string {
  const usage = usageOf(engine.toldTokens(body.completion.promptTokens), engine.toldTokens(tokens));
  const fingerprint = JSON.stringify(SYSTEM_FINGERPRINT);
  const tail = `[],"usage":${JSON.stringify(usage)},"system_fingerprint":${fingerprint}}`;
  return `${body.includeUsage ? `data: ${headOf(answer)}${tail}\n\n` : ''}data: [DONE]\n\n`;
}

/** An error in mid-stream; written by json.dumps and not by pydantic, so it has spaces. */
export function errorEvent(message: string): string {
  return `data: {"error": {"message": ${JSON.stringify(message)}, "type": "InternalServerError", "param": null, "code": 500}}\n\ndata: [DONE]\n\n`;
}

/** The answer without streaming. */
export function completionAnswer(
  answer: Answer,
  body: CompletionBody,
  engine: SimEngine,
  { tokens, text, report: { end } }: Whole,
): Readonly<Record<string, unknown>> {
  const choice = {
    index: 0,
    text,
    logprobs: null,
    finish_reason: end.reason === 'length' ? 'length' : 'stop',
    stop_reason: end.word === '' ? null : end.word,
    token_ids: body.returnTokenIds ? tokens.map(({ id }) => id) : null,
    prompt_logprobs: null,
    prompt_token_ids: body.returnTokenIds ? body.promptIds : null,
  };
  return {
    id: answer.id,
    object: 'text_completion',
    created: answer.createdSeconds,
    model: answer.model,
    choices: [choice],
    service_tier: null,
    system_fingerprint: SYSTEM_FINGERPRINT,
    usage: usageOf(engine.toldTokens(body.completion.promptTokens), engine.toldTokens(tokens.length)),
    kv_transfer_params: null,
  };
}

export function modelsBody(
  { config, toldModel }: SimEngine,
  createdSeconds: number,
): Readonly<Record<string, unknown>> {
  const model = {
    id: toldModel,
    object: 'model',
    created: createdSeconds,
    owned_by: 'vllm',
    root: toldModel,
    parent: null,
    max_model_len: config.contextTokens,
    permission: [],
  };
  return { object: 'list', data: [model] };
}

const tokenizeSchema = z.object({
  model: z.string().nullish(),
  prompt: z.string(),
  add_special_tokens: z.boolean().default(true),
  return_token_strs: z.boolean().nullish(),
});
const detokenizeSchema = z.object({ model: z.string().nullish(), tokens: z.array(z.unknown()) });

export const parseTokenize = (text: string) => parseBody(text, tokenizeSchema);
export const parseDetokenize = (text: string) => parseBody(text, detokenizeSchema);

/** The count and the limit come together. */
export function tokenizeBody(
  request: z.infer<typeof tokenizeSchema>,
  contextTokens: number,
): Readonly<Record<string, unknown>> {
  const tokens = [...(request.add_special_tokens ? [BOS] : []), ...tokenize(request.prompt)];
  const strings = tokens.map((id) => pieceOf(id) || detokenize([id]));
  return {
    count: tokens.length,
    max_model_len: contextTokens,
    tokens,
    token_strs: request.return_token_strs ? strings : null,
  };
}
