/** Requests of the wire as zod schemas, and refusals as envelopes. The one table from kind of failure to status is here. */
import { z } from 'zod';
import type { TaskSubmission } from '../core/admission.js';
import { ENGINES, invalid, type Refusal, RefusalError, type TaskFailure } from '../core/errors.js';
import { isUuid } from '../core/ids.js';
import { PRIORITIES } from '../core/task.js';
import { textsOf, WORKLOADS } from '../core/workload.js';

const UUID = z.string().refine(isUuid, 'must be a uuid (8-4-4-4-12 hex digits)');
const INT = z.number().int();
const INT64 = z.union([z.bigint(), z.number().int()]).transform((value) => BigInt(value));

const Placement = z.object({
  mode: z.enum(['pin', 'prefer', 'auto']).default('auto'),
  pin_pool_id: z.string().nullish(),
  prefer_pools: z.array(z.string()).max(256).default([]),
  avoid_pools: z.array(z.string()).max(256).default([]),
  require_device_mask: z.string().nullish(),
  allow_fallback: z.boolean().default(true),
});

/** TaskRequest. Unknown members are ignored, as old clients send hints that mean nothing to us. */
const TaskRequest = z.object({
  task_id: UUID,
  session_id: UUID,
  workload: z.enum(WORKLOADS),
  model_ref: z.string(),
  engine: z.enum(ENGINES),
  ctx: INT,
  priority: z.enum(PRIORITIES),
  seed: INT64.nullish(),
  determinism: z.enum(['strict', 'best_effort']).nullish(),
  sampler_profile_version: z.string().nullish(),
  prompt: z.string().nullish(),
  inputs: z.array(z.string()).nullish(),
  max_tokens: INT,
  deadline_ms: INT,
  expected_tokens: INT.nullish(),
  kv_hint: z.enum(['reuse', 'cold']).nullish(),
  placement: Placement.nullish(),
});

const DrainRequest = z.object({ deadline_ms: INT });
const ReloadRequest = z.object({ new_model_ref: z.string() });

/** @throws RefusalError naming the first member that is wrong. */
export function parse<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue === undefined || issue.path.length === 0 ? 'body' : issue.path.join('.');
  throw new RefusalError(invalid(field, issue?.message ?? 'is not valid'));
}

export function parseTaskRequest(body: unknown): TaskSubmission {
  const request = parse(TaskRequest, body);
  const placement = request.placement ?? Placement.parse({});
  return {
    taskId: request.task_id,
    sessionId: request.session_id,
    workload: request.workload,
    modelRef: request.model_ref,
    engine: request.engine,
    ctx: request.ctx,
    priority: request.priority,
    seed: request.seed ?? null,
    determinism: request.determinism ?? 'strict',
    samplerProfileVersion: request.sampler_profile_version ?? null,
    ...textsOf(request.workload, { prompt: request.prompt ?? null, inputs: request.inputs ?? null }),
    maxTokens: request.max_tokens,
    deadlineMs: request.deadline_ms,
    kvHint: request.kv_hint ?? null,
    followsPool: false,
    disconnectGraceMs: null,
    placement: {
      mode: placement.mode,
      pinPoolId: placement.pin_pool_id ?? null,
      preferPools: placement.prefer_pools,
      avoidPools: placement.avoid_pools,
      requireDeviceMask: placement.require_device_mask ?? null,
      allowFallback: placement.allow_fallback,
    },
  };
}

export function parseDrainRequest(body: unknown): { deadlineMs: number } {
  return { deadlineMs: parse(DrainRequest, body).deadline_ms };
}

export function parseReloadRequest(body: unknown): { newModelRef: string } {
  return { newModelRef: parse(ReloadRequest, body).new_model_ref };
}

export function parseUuidParam(field: string, value: string | undefined): string {
  const result = UUID.safeParse(value);
  if (!result.success) throw new RefusalError(invalid(field, 'must be a uuid (8-4-4-4-12 hex digits)'));
  return result.data;
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
export function envelopeOf(refusal: Refusal): Record<string, unknown> {
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
export function failureOf(error: TaskFailure): Record<string, unknown> {
  return {
    code: error.code,
    message: error.message,
    ...(error.engine !== undefined && { engine: error.engine }),
    retriable: error.retriable,
    ...(error.retryAfterMs !== undefined && { retry_after_ms: error.retryAfterMs }),
  };
}
