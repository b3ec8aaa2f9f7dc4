/** The rules a task must meet before it may be queued. Pure: the doors give it typed input, services give it the pools. */
import { checkDisconnectGrace } from './disconnect.js';
import { type Engine, invalid, type Refusal } from './errors.js';
import { isUuid } from './ids.js';
import type { PlacementOverrides } from './placement.js';
import type { Determinism, Priority } from './task.js';
import { checkCharacters, checkTexts, type Workload } from './workload.js';

/** A task as a caller asked for it, after the door has checked its shape and filled what has a default. */
export interface TaskSubmission {
  readonly taskId: string;
  readonly sessionId: string;
  readonly workload: Workload;
  readonly modelRef: string;
  readonly engine: Engine;
  readonly ctx: number;
  readonly priority: Priority;
  readonly seed: bigint | null;
  readonly determinism: Determinism;
  readonly samplerProfileVersion: string | null;
  /** The query of a rerank task. */
  readonly prompt: string;
  /** Texts to embed, or documents to rank; empty for completions. */
  readonly inputs: readonly string[];
  readonly maxTokens: number;
  readonly deadlineMs: number;
  readonly kvHint: 'reuse' | 'cold' | null;
  /** The caller named a pool and no model: it wants what the pool serves when the task is run. */
  readonly followsPool: boolean;
  /** Ends the task when its last reader has been gone for so long, ms; null: it outlives its readers. */
  readonly disconnectGraceMs: number | null;
  readonly placement: PlacementOverrides;
}

export const MAX_MAX_TOKENS = 1_000_000;
/** A week: longer promises are mistakes (seconds for milliseconds, an absolute time). */
export const MAX_DEADLINE_MS = 7 * 24 * 3600 * 1000;
const MAX_MODEL_REF_LENGTH = 1024;
const INT64_MAX = (1n << 63n) - 1n;
const INT64_MIN = -(1n << 63n);

function positiveInt(field: string, value: number, max: number): Refusal | null {
  if (!Number.isInteger(value) || value <= 0) return invalid(field, `must be a positive integer, got ${value}`);
  return value > max ? invalid(field, `must be at most ${max}, got ${value}`) : null;
}

/** What a model may be called by a task, whether it is to be run or only asked about. */
export function checkModelRef(modelRef: string): Refusal | null {
  if (modelRef.length === 0) return invalid('model_ref', 'must not be empty');
  if (modelRef.length <= MAX_MODEL_REF_LENGTH) return checkCharacters('model_ref', modelRef);
  return invalid('model_ref', `is ${modelRef.length} characters long; at most ${MAX_MODEL_REF_LENGTH} are taken`);
}

/** First broken rule, or null. Field names are those of the wire, so that both doors name the same thing. */
export function checkSubmission(task: TaskSubmission): Refusal | null {
  if (!isUuid(task.taskId)) return invalid('task_id', 'must be a uuid (8-4-4-4-12 hex digits)');
  if (!isUuid(task.sessionId)) return invalid('session_id', 'must be a uuid (8-4-4-4-12 hex digits)');
  const badModel = checkModelRef(task.modelRef);
  if (badModel !== null) return badModel;
  const { samplerProfileVersion: version } = task;
  const badText =
    checkTexts(task.workload, task) ?? (version === null ? null : checkCharacters('sampler_profile_version', version));
  if (badText !== null) return badText;
  if (task.seed !== null && (task.seed > INT64_MAX || task.seed < INT64_MIN)) {
    return invalid('seed', 'must fit into 64 bits');
  }
  return (
    positiveInt('ctx', task.ctx, 2 ** 31 - 1) ??
    checkMaxTokens(task) ??
    positiveInt('deadline_ms', task.deadlineMs, MAX_DEADLINE_MS) ??
    checkDisconnectGrace(task.disconnectGraceMs)
  );
}

/** Embeddings and rankings give no tokens. */
function checkMaxTokens({ workload, maxTokens }: TaskSubmission): Refusal | null {
  if (workload !== 'completion' && maxTokens === 0) return null;
  return positiveInt('max_tokens', maxTokens, MAX_MAX_TOKENS);
}

/** The prompt and what may follow it must fit the context, counted by the engine's own tokenizer. No silent truncation. */
export function checkPromptTokens(
  promptTokens: number,
  task: { readonly ctx: number; readonly maxTokens: number },
): Refusal | null {
  if (promptTokens >= task.ctx) {
    return invalid('prompt', `is ${promptTokens} tokens long and leaves no room in a context of ${task.ctx}`);
  }
  if (promptTokens + task.maxTokens > task.ctx) {
    const room = task.ctx - promptTokens;
    return invalid(
      'max_tokens',
      `prompt (${promptTokens}) + max_tokens (${task.maxTokens}) exceed the context of ${task.ctx}; at most ${room} fit`,
    );
  }
  return null;
}
