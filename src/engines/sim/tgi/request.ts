/**
 * A `/generate` request as the router reads it: the body into parameters (failing as axum fails), parameters checked in
 * the router's order (failing as `Input validation error: …`), and what then is decoded.
 */
import { z } from 'zod';
import type { Completion } from '../engine.js';
import { BOS, detokenize, type Sampling, tokenize } from '../model.js';
import { wholeNumber } from '../numbers.js';
import { invalid, Rejection } from './errors.js';

/** The router asks the shards for no more than this at once; see `plannedTokens`. */
const TOKENS_PER_RUN = 1024;
const MAX_STOP_SEQUENCES = 4;
const MAX_TOP_N_TOKENS = 5;

const int = z.number().int();
const count = int.nonnegative();
const parametersSchema = z.object({
  best_of: count.nullish(),
  temperature: z.number().nullish(),
  repetition_penalty: z.number().nullish(),
  frequency_penalty: z.number().nullish(),
  top_k: int.nullish(),
  top_p: z.number().nullish(),
  typical_p: z.number().nullish(),
  /** Not what it is when `parameters` are missing altogether. */
  do_sample: z.boolean().default(false),
  max_new_tokens: count.nullish(),
  return_full_text: z.boolean().nullish(),
  stop: z.array(z.string()).default([]),
  truncate: count.nullish(),
  details: z.boolean().default(false),
  decoder_input_details: z.boolean().default(false),
  seed: wholeNumber(0, 2 ** 64).nullish(),
  top_n_tokens: count.nullish(),
});
export type Parameters = z.infer<typeof parametersSchema>;

const requestSchema = z.object({
  inputs: z.string(),
  parameters: parametersSchema.default({ ...parametersSchema.parse({}), do_sample: true }),
  /** Read by `POST /` alone. */
  stream: z.boolean().default(false),
});
export type GenerateRequest = z.infer<typeof requestSchema>;

/** Throws a Rejection. */
export function parseRequest(contentType: string | undefined, text: string): GenerateRequest {
  if (!/^application\/(?:[\w.-]+\+)?json\b/i.test(contentType ?? '')) {
    throw new Rejection(415, 'Expected request with `Content-Type: application/json`');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : 'expected value';
    throw new Rejection(400, `Failed to parse the request body as JSON: ${detail}`);
  }
  const parsed = requestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = issue?.path.join('.') ?? '';
  const detail = path === 'inputs' && !hasInputs(value) ? 'missing field `inputs`' : `${path}: ${issue?.message}`;
  throw new Rejection(422, `Failed to deserialize the JSON body into the target type: ${detail}`);
}

function hasInputs(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'inputs' in value;
}

/** What a checked request comes to. */
export interface Generation {
  readonly completion: Completion;
  /** As `details` tell it: null when the text did not depend on it. */
  readonly seed: number | null;
}

/**
 * Throws a TgiError.
 * @param maxTotalTokens of prompt and generated tokens together.
 */
export function checked(request: GenerateRequest, maxTotalTokens: number, randomSeed: () => number): Generation {
  const { inputs, parameters } = request;
  checkParameters(parameters);
  const maxInputTokens = maxTotalTokens - 1;
  if (inputs === '') throw invalid('`inputs` cannot be empty');
  const { truncate } = parameters;
  if (typeof truncate === 'number' && (truncate === 0 || truncate > maxInputTokens)) {
    throw invalid(`\`truncate\` must be strictly positive and less than ${maxInputTokens}. Given: ${truncate}`);
  }
  const allIds = [BOS, ...tokenize(inputs)];
  const ids = allIds.slice(-(truncate ?? allIds.length)); // the end of a long prompt is kept
  const maxTokens = plannedTokens(ids.length, parameters.max_new_tokens ?? null, maxTotalTokens);
  const sampling = samplingOf(parameters);
  const seed = parameters.seed ?? randomSeed();
  const completion: Completion = {
    prompt: detokenize(ids),
    promptTokens: ids.length,
    ...{ maxTokens, seed, sampling, idSlot: -1, settings: {} },
    stop: { words: parameters.stop, text: 'kept' },
  };
  return { completion, seed: sampling.temperature > 0 ? seed : null };
}

function checkParameters(parameters: Parameters): void {
  const { temperature, repetition_penalty, frequency_penalty, top_p, typical_p, top_k, top_n_tokens } = parameters;
  if ((parameters.best_of ?? 1) !== 1) throw invalid('`best_of` != 1 is not allowed for this endpoint');
  if ((temperature ?? 1) <= 0) throw invalid('`temperature` must be strictly positive');
  if ((repetition_penalty ?? 1) <= 0) throw invalid('`repetition_penalty` must be strictly positive');
  if (Math.abs(frequency_penalty ?? 0) > 2) throw invalid('`frequency_penalty` must be >= -2.0 and <= 2.0');
  if (isOutsideUnit(top_p)) throw invalid('`top_p` must be > 0.0 and < 1.0');
  if (isOutsideUnit(typical_p)) throw invalid('`typical_p` must be > 0.0 and < 1.0');
  if ((top_k ?? 1) <= 0) throw invalid('`top_k` must be strictly positive');
  if (parameters.max_new_tokens === 0) throw invalid('`max_new_tokens` must be strictly positive');
  if (parameters.stop.length > MAX_STOP_SEQUENCES) {
    throw invalid(`\`stop\` supports up to ${MAX_STOP_SEQUENCES} stop sequences. Given: ${parameters.stop.length}`);
  }
  if ((top_n_tokens ?? 0) > MAX_TOP_N_TOKENS) {
    throw invalid(`\`top_n_tokens\` must be >= 0 and <= ${MAX_TOP_N_TOKENS}. Given: ${top_n_tokens}`);
  }
}

function isOutsideUnit(value: number | null | undefined): boolean {
  return typeof value === 'number' && (value <= 0 || value >= 1);
}

/**
 * A request is decoded in runs of up to 1024 tokens, each with the text so far as its prompt. Only the first run has to
 * fit for the request to be taken; the next one is begun while the length is not reached and the run still fits. So a
 * length of 1500 may give 2048 tokens, or 1024.
 */
function plannedTokens(inputTokens: number, maxNewTokens: number | null, maxTotalTokens: number): number {
  const room = Math.max(maxTotalTokens - inputTokens, 0);
  const run = Math.min(maxNewTokens ?? room, TOKENS_PER_RUN);
  if (inputTokens + run > maxTotalTokens) {
    const given = `Given: ${inputTokens} \`inputs\` tokens and ${run} \`max_new_tokens\``;
    throw invalid(`\`inputs\` tokens + \`max_new_tokens\` must be <= ${maxTotalTokens}. ${given}`);
  }
  if (inputTokens > maxTotalTokens - 1) {
    throw invalid(`\`inputs\` must have less than ${maxTotalTokens - 1} tokens. Given: ${inputTokens}`);
  }
  if (maxNewTokens === null) return room;
  const runsWanted = Math.ceil(maxNewTokens / run);
  return Math.min(runsWanted, Math.floor(room / run)) * run;
}

/** Anything that is not its neutral value makes the shard sample, whatever `do_sample` says. */
function samplingOf({ do_sample, temperature, top_k, top_p, typical_p }: Parameters): Sampling {
  const warped = (temperature ?? 1) !== 1 || Boolean(top_k) || (top_p ?? 1) < 1 || (typical_p ?? 1) < 1;
  const samples = do_sample || warped;
  return { temperature: samples ? (temperature ?? 1) : 0, topK: top_k ?? 0, topP: top_p ?? 1, minP: 0 };
}
