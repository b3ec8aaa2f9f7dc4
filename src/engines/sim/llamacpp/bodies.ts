/** The JSON bodies and texts of llama-server's protocol, as build 11669 sends them. Pure. */
import { z } from 'zod';
import type { Completion, DecodeReport, SimEngine } from '../engine.js';
import { jsonSender } from '../http.js';
import { BOS, detokenize, isTokenId, LAST_VOCABULARY_ID, pieceOf, tokenize, VOCABULARY_SIZE } from '../model.js';
import { wholeNumber } from '../numbers.js';
import type { SimToken } from '../tokens.js';

export const sendJson = jsonSender('application/json; charset=utf-8');

const BUILD_INFO = 'b11669-sim';
/** What a seed of -1 reads back as: a random one. Seeds have 32 bits; of a longer one the lower are read. */
const RANDOM_SEED = 0xffff_ffff;

/** A refusal in the protocol's terms; carries the exact body. */
export class LlamaError extends Error {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  constructor(status: number, type: string, message: string, extra: Readonly<Record<string, unknown>> = {}) {
    super(message);
    this.status = status;
    this.body = { error: { code: status, message, type, ...extra } };
  }
}

export function contextOverflow(promptTokens: number, contextTokens: number): LlamaError {
  const message = `request (${promptTokens} tokens) exceeds the available context size (${contextTokens} tokens), try increasing it`;
  return new LlamaError(400, 'exceed_context_size_error', message, {
    n_prompt_tokens: promptTokens,
    n_ctx: contextTokens,
  });
}

const completionSchema = z.object({
  prompt: z.union([z.string(), z.array(z.unknown())]),
  n_predict: z.number().int().min(-1).optional(),
  max_tokens: z.number().int().min(-1).optional(),
  stream: z.boolean().default(false),
  seed: wholeNumber(-(2 ** 63), 2 ** 64).default(-1),
  temperature: z.number().default(0.8),
  top_k: z.number().int().default(40),
  top_p: z.number().default(0.95),
  min_p: z.number().default(0.05),
  id_slot: z.number().int().default(-1),
  cache_prompt: z.boolean().default(true),
  /** Anything but an array is taken for none. */
  stop: z.preprocess((value) => (Array.isArray(value) ? value : []), z.array(z.string())).default([]),
});
type CompletionBody = z.infer<typeof completionSchema>;

export const tokenizeSchema = z.object({
  content: z.string().default(''),
  add_special: z.boolean().default(false),
  with_pieces: z.boolean().default(false),
});
export const detokenizeSchema = z.object({ tokens: z.array(z.unknown()).default([]) });

/** Parses a request body; a failure is the 400 that the server answers. */
export function parseBody<T>(text: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : 'parse error';
    throw new LlamaError(400, 'invalid_request_error', `[json.exception.parse_error.101] parse error: ${detail}`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new LlamaError(
    400,
    'invalid_request_error',
    `[json.exception.type_error.302] ${issue?.path.join('.')}: ${issue?.message}`,
  );
}

export function parseCompletion(text: string): CompletionBody {
  const { prompt, ...rest } = parseBody(text, completionSchema.partial({ prompt: true }));
  if (prompt === undefined) {
    throw new LlamaError(400, 'invalid_request_error', "[json.exception.out_of_range.403] key 'prompt' not found");
  }
  return { prompt, ...rest };
}

/** Throws the refusal of what is no token of this model. */
export function tokenIdsOf(values: readonly unknown[]): readonly number[] {
  const ids = values.filter(isTokenId);
  if (ids.length === values.length) return ids;
  if (values.every((value) => typeof value === 'number')) {
    throw new LlamaError(400, 'invalid_request_error', 'Prompt contains invalid tokens');
  }
  const message = 'a prompt is simulated as one text or one array of token ids, several prompts are not simulated';
  throw new LlamaError(501, 'not_supported_error', message);
}

/** The completion a body asks for. Counts the begin-of-sequence token that the server puts before a text prompt. */
export function completionOf(body: CompletionBody, randomSeed: () => number): Completion {
  const isText = typeof body.prompt === 'string';
  const ids = typeof body.prompt === 'string' ? tokenize(body.prompt) : tokenIdsOf(body.prompt);
  const seed = seedOf(body);
  return {
    prompt: typeof body.prompt === 'string' ? body.prompt : detokenize(ids),
    promptTokens: ids.length + (isText ? 1 : 0),
    maxTokens: body.n_predict ?? body.max_tokens ?? -1,
    seed: seed === RANDOM_SEED ? randomSeed() : seed,
    sampling: { temperature: body.temperature, topK: body.top_k, topP: body.top_p, minP: body.min_p },
    idSlot: body.id_slot,
    cache: { ids: isText ? [BOS, ...ids] : ids, used: body.cache_prompt },
    stop: { words: body.stop.filter((word) => word !== ''), text: 'removed' },
    settings: generationSettings(body),
  };
}

function seedOf({ seed }: CompletionBody): number {
  const range = RANDOM_SEED + 1;
  return ((seed % range) + range) % range;
}

/** As the status pages show them; the last frame of a completion also tells its stop words. */
function generationSettings(body: CompletionBody): Readonly<Record<string, unknown>> {
  const maxTokens = body.n_predict ?? body.max_tokens ?? -1;
  return {
    seed: seedOf(body),
    temperature: Math.fround(body.temperature), // the server holds these as 32-bit floats, and shows it
    top_k: body.top_k,
    top_p: Math.fround(body.top_p),
    min_p: Math.fround(body.min_p),
    repeat_penalty: 1,
    max_tokens: maxTokens,
    n_predict: maxTokens,
    n_keep: 0,
    ignore_eos: false,
    stream: body.stream,
    n_probs: 0,
    samplers: ['penalties', 'dry', 'top_n_sigma', 'top_k', 'typ_p', 'top_p', 'min_p', 'xtc', 'temperature'],
    timings_per_token: false,
    lora: [],
  };
}

/**
 * Middle frames of one completion. Each differs from the next only in three places, so the text around them is made
 * once: `data: {"index":0,"content":" She","tokens":[300],"stop":false,…,"tokens_predicted":1,"tokens_evaluated":18}`.
 * A token that completes no character has no frame; the frame of the one that does has all the text, one id, and a
 * `tokens_predicted` that has jumped. Text that is held back for a stop word, and end-of-sequence, have an empty frame.
 */
export function frameWriter(promptTokens: number): (token: SimToken) => string {
  const tail = `,"tokens_evaluated":${promptTokens}}\n\n`;
  return (token) => (token.whole ? `${headOf(token)}${token.count}${tail}` : '');
}

const heads: string[] = [];
function headOf({ id, text }: SimToken): string {
  if (id > LAST_VOCABULARY_ID || text !== pieceOf(id)) return makeHead(id, text);
  const known = heads[id];
  if (known !== undefined) return known;
  const made = makeHead(id, text);
  heads[id] = made; // ids come from the vocabulary, a few hundred
  return made;
}

function makeHead(id: number, text: string): string {
  const content = JSON.stringify(text);
  return `data: {"index":0,"content":${content},"tokens":[${id}],"stop":false,"id_slot":-1,"tokens_predicted":`;
}

/** The last frame of a stream (`content` empty), or the whole answer without streaming. */
export function lastFrame(
  engine: SimEngine,
  completion: Completion,
  report: DecodeReport,
  content: string,
): Readonly<Record<string, unknown>> {
  const { tokens, end } = report;
  const { promptTokens, stop } = completion;
  const toldTokens = engine.toldTokens(tokens);
  const toldPromptTokens = engine.toldTokens(promptTokens);
  const promptMs = engine.toldMs(report.promptMs);
  const decodeMs = engine.toldMs(report.decodeMs);
  const perToken = tokens > 0 ? decodeMs / tokens : 0;
  return {
    index: 0,
    content,
    tokens: [],
    id_slot: report.slotId,
    stop: true,
    model: engine.toldModel,
    tokens_predicted: toldTokens,
    tokens_evaluated: toldPromptTokens,
    generation_settings: { ...completion.settings, stop: stop.words },
    prompt: `<s> ${completion.prompt}`,
    has_new_line: report.hasNewLine,
    truncated: end.reason === 'length' && engine.plan(completion).truncated,
    stop_type: end.reason === 'length' ? 'limit' : end.reason,
    stopping_word: end.word,
    tokens_cached: Math.max(promptTokens + tokens - 1, 0),
    timings: {
      cache_n: report.cachedTokens,
      prompt_n: toldPromptTokens - report.cachedTokens,
      prompt_ms: promptMs,
      prompt_per_token_ms: promptMs / (promptTokens - report.cachedTokens),
      prompt_per_second: promptMs > 0 ? ((promptTokens - report.cachedTokens) * 1000) / promptMs : 0,
      predicted_n: toldTokens,
      predicted_ms: decodeMs,
      predicted_per_token_ms: perToken,
      predicted_per_second: perToken > 0 ? 1000 / perToken : 0,
    },
  };
}

const DEFAULT_BODY: CompletionBody = completionSchema.parse({ prompt: '' });

export function propsBody({ config, toldModel }: SimEngine): Readonly<Record<string, unknown>> {
  return {
    default_generation_settings: { params: generationSettings(DEFAULT_BODY), n_ctx: config.contextTokens },
    total_slots: config.slots,
    model_alias: toldModel,
    model_ftype: 'all F32',
    model_path: toldModel,
    modalities: { vision: false, video: false, audio: false },
    endpoint_slots: true,
    endpoint_props: false,
    endpoint_metrics: true,
    chat_template: '',
    bos_token: '<s>',
    eos_token: '</s>',
    build_info: config.version ?? BUILD_INFO,
    is_sleeping: false,
  };
}

/** One entry per slot; a slot that never ran anything lacks the keys about its task. `next_token` is an array of one. */
export function slotsBody({ slots, config }: SimEngine): readonly unknown[] {
  return slots.slots.map(({ id, busy, task }) => ({
    id,
    n_ctx: config.contextTokens,
    speculative: false,
    is_processing: busy,
    ...(task !== null && {
      id_task: task.id,
      n_prompt_tokens: task.promptTokens,
      n_prompt_tokens_processed: busy ? task.promptTokens - task.cachedTokens : 0,
      n_prompt_tokens_cache: busy ? task.cachedTokens : 0,
      params: task.settings,
      next_token: [
        {
          has_next_token: busy,
          has_new_line: task.hasNewLine,
          n_remain: busy ? task.maxTokens - task.decoded : -1,
          n_decoded: busy ? task.decoded : 0,
        },
      ],
    }),
  }));
}

/** When the process started, Unix seconds. */
export function startedAtSeconds(engine: SimEngine): number {
  return Math.floor(engine.toldMs(engine.startedAtMs) / 1000);
}

export function modelsBody(engine: SimEngine): Readonly<Record<string, unknown>> {
  const { config, toldModel: model } = engine;
  const created = startedAtSeconds(engine);
  const meta = {
    vocab_type: 1,
    n_vocab: VOCABULARY_SIZE,
    n_ctx: config.contextTokens,
    n_ctx_train: config.contextTokens,
  };
  return {
    models: [{ name: model, model, type: 'model', capabilities: ['completion'], details: { format: 'gguf' } }],
    object: 'list',
    data: [{ id: model, aliases: [model], object: 'model', created, owned_by: 'llamacpp', meta }],
  };
}

export function tokenizeBody(request: z.infer<typeof tokenizeSchema>): Readonly<Record<string, unknown>> {
  const ids = [...(request.add_special ? [BOS] : []), ...tokenize(request.content)];
  if (!request.with_pieces) return { tokens: ids };
  return { tokens: ids.map((id) => ({ id, piece: id <= LAST_VOCABULARY_ID ? pieceOf(id) : detokenize([id]) })) };
}
