/**
 * What a generate request asks for. Keys are the names of the model's inputs, at the top or inside `parameters`; any
 * other key is a parameter of the request, which this model takes no notice of. Pure.
 */
import type { Completion } from '../engine.js';
import { tokenize } from '../model.js';

/** The model that decodes, behind the ensemble, by the same request ids. */
export const INNER_MODEL = 'tensorrt_llm';

/** A refusal. */
export class TritonError extends Error {
  readonly status: number;
  /** Whether a model said it: in a stream that is then a frame, even if it is the first. */
  readonly isAnswer: boolean;
  constructor(status: number, message: string, isAnswer = false) {
    super(message);
    this.status = status;
    this.isAnswer = isAnswer;
  }
}

interface Input {
  readonly name: string;
  readonly datatype: 'BYTES' | 'INT32' | 'UINT64' | 'FP32' | 'BOOL';
  /** -1: any number of elements. */
  readonly size: number;
  readonly required: boolean;
}

const input = (name: string, datatype: Input['datatype'], required = false, size = 1): Input => ({
  ...{ name, datatype, required, size },
});

/** Of the ensemble in tensorrtllm_backend, as far as it concerns plain completions; it counts no tokens. */
export const INPUTS: readonly Input[] = [
  input('text_input', 'BYTES', true),
  input('max_tokens', 'INT32', true),
  input('bad_words', 'BYTES', false, -1),
  input('stop_words', 'BYTES', false, -1),
  input('end_id', 'INT32'),
  input('pad_id', 'INT32'),
  input('top_k', 'INT32'),
  input('top_p', 'FP32'),
  input('temperature', 'FP32'),
  input('repetition_penalty', 'FP32'),
  input('seed', 'UINT64'),
  input('return_log_probs', 'BOOL'),
  input('beam_width', 'INT32'),
  input('stream', 'BOOL'),
];

export interface Request {
  /** '' when it has none. */
  readonly id: string;
  readonly keys: Readonly<Record<string, unknown>>;
}

export function parseRequest(text: string): Request {
  let value: unknown = {};
  try {
    if (text !== '') value = JSON.parse(text);
  } catch {
    throw new TritonError(500, 'failed to parse the request JSON buffer: Invalid value. at 0');
  }
  if (!isObject(value)) throw new TritonError(500, 'attempt to get members for non-object');
  const { parameters = {}, id = '', ...keys } = value;
  if (!isObject(parameters)) throw new TritonError(500, "Expected JSON object for keyword: 'parameters'");
  if (typeof id !== 'string')
    throw new TritonError(500, "Unable to parse 'id': attempt to access JSON non-string as string");
  const tensors = Object.entries({ ...parameters, ...keys }).map(([name, tensor]) => [name, elementOf(tensor)]);
  return { id, keys: Object.fromEntries(tensors) };
}

/** A tensor of one element is that element. */
function elementOf(tensor: unknown): unknown {
  let element = tensor;
  while (Array.isArray(element) && element.length === 1) [element] = element;
  return element;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What the ensemble is asked to complete. Throws what is wrong with its inputs. */
export function completionOf({ id, keys }: Request, model: string, contextTokens: number): Completion {
  for (const declared of INPUTS) checkInput(declared, keys[declared.name]);
  checkRequired(id, keys, model);
  for (const declared of INPUTS) checkShape(declared, keys[declared.name], id, model);
  const number = (name: string, otherwise: number): number => {
    const value = keys[name];
    return typeof value === 'number' ? value : otherwise;
  };
  if (number('max_tokens', 0) < 1) {
    throw new TritonError(
      500,
      `in ensemble '${model}', [TensorRT-LLM][ERROR] Assertion failed: mMaxNewTokens > 0`,
      true,
    );
  }
  const prompt = String(keys.text_input);
  const promptTokens = tokenize(prompt).length + 1; // its tokenizer puts begin-of-sequence before every prompt
  if (promptTokens >= contextTokens) throw promptTooLong(model, promptTokens, contextTokens - 1);
  const topK = number('top_k', 1);
  return {
    ...{ prompt, promptTokens, maxTokens: number('max_tokens', 0), seed: number('seed', 0) },
    // Of one candidate there is nothing to draw.
    sampling: { temperature: topK === 1 ? 0 : number('temperature', 1), topK, topP: number('top_p', 0), minP: 0 },
    idSlot: -1,
    stop: { words: wordsOf(keys.stop_words), text: 'kept' },
    settings: keys,
  };
}

function wordsOf(tensor: unknown): readonly string[] {
  return (Array.isArray(tensor) ? tensor : [tensor]).filter((word) => typeof word === 'string' && word !== '');
}

function checkInput({ datatype }: Input, value: unknown): void {
  if (value === undefined) return;
  for (const element of Array.isArray(value) ? value : [value]) {
    const complaint = complaintOf(datatype, element);
    if (complaint !== null) throw new TritonError(500, `${complaint[0]}: attempt to access JSON ${complaint[1]}`);
  }
}

/** Before its dimension comes the batch, of one. */
function checkShape({ name, size }: Input, value: unknown, id: string, model: string): void {
  if (!Array.isArray(value) || size === -1) return;
  const shapes = `Expected [-1,${size}], got [1,${value.length}]`;
  const where = `unexpected shape for input '${name}' for model '${model}'`;
  throw new TritonError(400, `${nameOf(id)} ${where}. ${shapes}.`);
}

function nameOf(id: string): string {
  return `[request id: ${id || '<id_unknown>'}]`;
}

function complaintOf(datatype: Input['datatype'], value: unknown): readonly [where: string, what: string] | null {
  const data = "Unable to parse 'data'";
  switch (datatype) {
    case 'BYTES':
      return typeof value === 'string' ? null : ['Unable to parse JSON bytes array', 'non-string as string'];
    case 'INT32':
      return Number.isInteger(value) ? null : [data, 'non-signed-integer as signed-integer'];
    case 'UINT64':
      return isUint64(value) ? null : [data, 'non-unsigned-integer as unsigned-integer'];
    case 'FP32':
      return typeof value === 'number' ? null : [data, 'non-number as double'];
    case 'BOOL':
      return typeof value === 'boolean' ? null : [data, 'non-boolean as boolean'];
  }
}

function isUint64(value: unknown): boolean {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 2 ** 64;
}

function checkRequired(id: string, keys: Request['keys'], model: string): void {
  const required = INPUTS.filter((declared) => declared.required).map(({ name }) => name);
  const given = INPUTS.map(({ name }) => name).filter((name) => keys[name] !== undefined);
  const missing = required.filter((name) => keys[name] === undefined);
  if (missing.length === 0) return;
  const quoted = (names: readonly string[]): string => `[${names.map((name) => `'${name}'`).join(',')}]`;
  throw new TritonError(
    400,
    `${nameOf(id)} expected number of inputs between ${required.length} and ${INPUTS.length} but got ${given.length} inputs for model '${model}'. Got input(s) ${quoted(given)}, but missing required input(s) ${quoted(missing)}. Please provide all required input(s).`,
  );
}

/** What a composing model says is the ensemble's own error, with its name before it. */
export function inEnsemble(model: string, message: string): string {
  return `in ensemble '${model}', Executor failed process requestId 1 due to the following error: ${message}`;
}

function promptTooLong(model: string, promptTokens: number, maxInputTokens: number): TritonError {
  const message = `Encountered an error when fetching new request: Prompt length (${promptTokens}) exceeds maximum input length (${maxInputTokens}). Set log level to info and check TRTGptModel logs for how maximum input length is set`;
  return new TritonError(500, inEnsemble(model, message), true);
}

export function unknownModel(name: string): TritonError {
  return new TritonError(404, `Request for unknown model: '${name}' is not found`);
}
