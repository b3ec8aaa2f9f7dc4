/**
 * The error taxonomy of the system: what can go wrong, named once (contract.md of the wire: ErrorKind).
 * Nothing here knows HTTP or GraphQL; the doors hold the table from family to status.
 */

export const ERROR_CODES = [
  'ADMISSION_REJECT',
  'QUEUE_FULL_DROP_LRU',
  'INVALID_PARAMS',
  'POOL_UNREADY',
  'POOL_UNAVAILABLE',
  'REPLICA_EXHAUSTED',
  'DECODE_TIMEOUT',
  'WORKER_RESET',
  'INTERNAL',
  'DEADLINE_UNMET',
  'MODEL_DEPRECATED',
  'UNTRUSTED_ARTIFACT',
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

export const ENGINES = ['llamacpp', 'vllm', 'tgi', 'triton'] as const;
export type Engine = (typeof ENGINES)[number];

/** What kind of answer a refusal is; each door maps a family to one concrete type or status. */
export type RefusalFamily = 'invalid' | 'backpressure' | 'unavailable' | 'conflict' | 'not_found' | 'failed';

/** An expected failure, as data. `message` is outside text: it never carries a secret, a path of ours or a stack. */
export interface Refusal {
  readonly family: RefusalFamily;
  readonly code: ErrorCode;
  readonly message: string;
  readonly retriable: boolean;
  readonly field?: string;
  readonly engine?: Engine;
  readonly retryAfterMs?: number;
  readonly policyLabel?: string;
}

/** Carries a refusal through code that can only throw. The doors unwrap it; nobody else needs to catch it. */
export class RefusalError extends Error {
  readonly refusal: Refusal;
  constructor(refusal: Refusal, options?: { cause?: unknown }) {
    super(refusal.message, options);
    this.name = 'RefusalError';
    this.refusal = refusal;
  }
}

/** A request that can never succeed as sent. `field` is the path of the offending input, e.g. `max_tokens`. */
export function invalid(field: string, message: string): Refusal {
  return { family: 'invalid', code: 'INVALID_PARAMS', message, field, retriable: false };
}

export function notFound(field: string, message: string): Refusal {
  return { family: 'not_found', code: 'INVALID_PARAMS', message, field, retriable: false };
}

/** The input contradicts something that already stands, e.g. the same task_id with another body. */
export function conflict(field: string, message: string): Refusal {
  return { family: 'conflict', code: 'INVALID_PARAMS', message, field, retriable: false };
}

export function unavailable(code: ErrorCode, message: string, retryAfterMs: number): Refusal {
  return { family: 'unavailable', code, message, retriable: true, retryAfterMs };
}

/** The terminal error of a task, as its subscribers see it. */
export interface TaskFailure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retriable: boolean;
  readonly engine?: Engine;
  readonly retryAfterMs?: number;
}
