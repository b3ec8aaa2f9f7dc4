/** What the ways a run can fail mean for its task. */
import { ENGINE_RETRY, retryDelayMs } from '../core/backoff.js';
import type { TaskFailure } from '../core/errors.js';
import { MAX_ATTEMPTS } from '../core/task.js';
import { MAX_RESULT_BYTES } from '../core/workload.js';
import type { EngineError } from '../engines/failure.js';

/** The repeated run gave another text than the one readers already have. */
export class DivergedError extends Error {
  constructor(index: number) {
    super(`the repeated run differs from the stream at token ${index}`);
    this.name = 'DivergedError';
  }
}

export function diverged({ message }: DivergedError): TaskFailure {
  return { code: 'WORKER_RESET', message: `${message}; it cannot be continued`, retriable: true };
}

/** What a task without tokens gave cannot be kept. */
export class OversizedResultError extends Error {}

export const OVERSIZED: TaskFailure = {
  code: 'INVALID_PARAMS',
  message: `the result is larger than ${MAX_RESULT_BYTES} bytes; give the task fewer inputs`,
  retriable: false,
};

export const OUT_OF_TIME: TaskFailure = {
  code: 'DECODE_TIMEOUT',
  message: 'the task ran into its wall time or deadline',
  retriable: true,
};

export const OUR_FAULT: TaskFailure = {
  code: 'INTERNAL',
  message: 'the run failed inside the control plane',
  retriable: true,
};

/**
 * Whether the task goes back to its queue. Silently repeated is only what failed before this run's first token; when the
 * engine is gone, what its readers have decides (core/task afterLoss). A hang is not repeated: it costs the idle timeout
 * each time, and readers are told.
 */
export function mayRunAgain({ code, phase, retriable, engineLost }: EngineError, attempts: number): boolean {
  if (code === 'DECODE_TIMEOUT') return false;
  return engineLost || (retriable && phase === 'before_first_token' && attempts < MAX_ATTEMPTS);
}

/** An engine that refuses for now is left alone for a while; the number of attempts is bounded elsewhere. */
export function requeueDelayMs({ retryAfterMs }: EngineError, attempts: number): number {
  return retryDelayMs(ENGINE_RETRY, attempts, Math.random(), retryAfterMs ?? 0) ?? ENGINE_RETRY.capMs;
}
