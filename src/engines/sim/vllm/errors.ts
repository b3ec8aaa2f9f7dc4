/** vLLM's refusals: their bodies, and which of two layers refuses. Pure. */
import type { z } from 'zod';
import type { SimEngine } from '../engine.js';

/** What a client is told about anything once the engine behind the API server has died. */
export const ENGINE_DEAD = 'EngineCore encountered an issue. See stack trace (above) for the root cause.';

/** A refusal in the protocol's terms; carries the exact body. */
export class VllmError extends Error {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  constructor(status: number, body: Readonly<Record<string, unknown>>) {
    super(JSON.stringify(body));
    this.status = status;
    this.body = body;
  }
}

/** vLLM's own refusals: `BadRequestError`, `NotFoundError`, `InternalServerError`. */
export function refusal(status: number, type: string, message: string, param: string | null = null): VllmError {
  return new VllmError(status, { error: { message, type, param, code: status } });
}

/** FastAPI's refusals, which vLLM leaves as they are: an unknown route and a wrong method. */
export function frameworkRefusal(status: number, detail: string): VllmError {
  return new VllmError(status, { detail });
}

export function unauthorized(): VllmError {
  return new VllmError(401, { error: 'Unauthorized' });
}

/** A body that its schema refuses is a 400 here, where FastAPI alone would answer 422; the type is the status' phrase. */
function invalid(kind: string, path: string, message: string, param: string): VllmError {
  const entry = `{'type': '${kind}', 'loc': '${path}', 'msg': '${message}'}`;
  return refusal(400, 'Bad Request', `1 validation error:\n  ${entry}`, param);
}

/** A rule that the schema itself checks before its fields; `param` names the field that the rule is about. */
export function brokenRule(message: string, param: string): VllmError {
  return invalid('value_error', 'body', `Value error, ${message} (parameter=${param})`, param);
}

/** A rule that is checked once the body has been read. */
export function semanticError(message: string, param: string, value: number): VllmError {
  return refusal(400, 'BadRequestError', `${message} (parameter=${param}, value=${value})`, param);
}

/**
 * Prompt and output together have to fit; nothing is cut short. A prompt is only counted up to the first token too
 * many, which is why the message says `at least`.
 */
export function checkLength(promptTokens: number, maxTokens: number, contextTokens: number): void {
  if (maxTokens > contextTokens) {
    const message = `max_tokens=${maxTokens} cannot be greater than max_model_len=max_total_tokens=${contextTokens}. Please request fewer output tokens.`;
    throw semanticError(message, 'max_tokens', maxTokens);
  }
  if (promptTokens + maxTokens <= contextTokens) return;
  const counted = contextTokens - maxTokens + 1;
  const message = `This model's maximum context length is ${contextTokens} tokens. However, you requested ${maxTokens} output tokens and your prompt contains at least ${counted} input tokens, for a total of at least ${contextTokens + 1} tokens. Please reduce the length of the input prompt or the number of requested output tokens.`;
  throw semanticError(message, 'input_tokens', counted);
}

/** A request without a name means the one model there is. The name it was started under is known under any fault. */
export function checkModel(asked: string | null | undefined, { config, toldModel }: SimEngine): void {
  if (asked === undefined || asked === null || asked === config.model || asked === toldModel) return;
  throw refusal(404, 'NotFoundError', `The model \`${asked}\` does not exist.`, 'model');
}

/** Parses a request body; a failure is the 400 that the server answers. */
export function parseBody<T>(text: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalid('json_invalid', 'body.0', 'JSON decode error', 'body.0');
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = ['body', ...(issue?.path ?? [])].map(String).join('.');
  throw invalid(issue?.code ?? 'value_error', path, issue?.message ?? '', path);
}
