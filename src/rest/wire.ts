/** What requests mean and refusals look like on the wire. The one table from kind of failure to status is here. */
import type { TaskSubmission } from '../core/admission.js';
import type { Refusal, TaskFailure } from '../core/errors.js';
import { textsOf } from '../core/workload.js';
import type { components } from './generated/data.js';

export type TaskRequest = components['schemas']['TaskRequest'];
type Envelope = components['schemas']['ErrorEnvelope'];
type StreamError = components['schemas']['SSEError'];

/** Members that are left out, or null, have the defaults of the contract. */
export function submissionOf(request: TaskRequest): TaskSubmission {
  const { placement } = request;
  return {
    taskId: request.task_id,
    sessionId: request.session_id,
    workload: request.workload,
    modelRef: request.model_ref,
    engine: request.engine,
    ctx: request.ctx,
    priority: request.priority,
    seed: request.seed === undefined || request.seed === null ? null : BigInt(request.seed),
    determinism: request.determinism ?? 'strict',
    samplerProfileVersion: request.sampler_profile_version ?? null,
    ...textsOf(request.workload, { prompt: request.prompt ?? null, inputs: request.inputs ?? null }),
    maxTokens: request.max_tokens,
    deadlineMs: Number(request.deadline_ms),
    kvHint: request.kv_hint ?? null,
    followsPool: false,
    disconnectGraceMs: null,
    placement: {
      mode: placement?.mode ?? 'auto',
      pinPoolId: placement?.pin_pool_id ?? null,
      preferPools: placement?.prefer_pools ?? [],
      avoidPools: placement?.avoid_pools ?? [],
      requireDeviceMask: placement?.require_device_mask ?? null,
      allowFallback: placement?.allow_fallback ?? true,
    },
  };
}

export function statusOf(refusal: Refusal): number {
  switch (refusal.family) {
    case 'invalid':
      return refusal.code === 'MODEL_DEPRECATED' ? 410 : 400;
    case 'not_found':
      return 404;
    case 'conflict':
      return 409;
    case 'backpressure':
      return 429;
    case 'unavailable':
      return 503;
    case 'failed':
      return 500;
  }
}

/** ErrorEnvelope. `field` is ours, for people: the member that was wrong. */
export function envelopeOf(refusal: Refusal): Envelope {
  const { field, family } = refusal;
  return {
    code: refusal.code,
    // What is not found is named by its message already.
    message: field === undefined || family === 'not_found' ? refusal.message : `${field}: ${refusal.message}`,
    ...(field !== undefined && { field }),
    ...(refusal.engine !== undefined && { engine: refusal.engine }),
    retriable: refusal.retriable,
    ...(refusal.retryAfterMs !== undefined && { retry_after_ms: refusal.retryAfterMs }),
    ...(refusal.policyLabel !== undefined && { policy_label: refusal.policyLabel }),
  };
}

/** When to come back, for whoever was refused for now. */
export function retryHeaders({ family, retryAfterMs = 1000 }: Refusal): Record<string, string> {
  if (family !== 'backpressure' && family !== 'unavailable') return {};
  const retryAfter = { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) };
  return family === 'backpressure' ? { ...retryAfter, 'x-backoff-ms': String(retryAfterMs) } : retryAfter;
}

/** SSEError */
export function failureOf(error: TaskFailure): StreamError {
  return {
    code: error.code,
    message: error.message,
    ...(error.engine !== undefined && { engine: error.engine }),
    retriable: error.retriable,
    ...(error.retryAfterMs !== undefined && { retry_after_ms: error.retryAfterMs }),
  };
}
