/**
 * The transcript of a task: one artifact, whatever the outcome. The prompt stays out of it; its length is in. Its record
 * of the run is the receipt: it is kept by content, so it cannot be changed without another id.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { TaskFailure } from '../core/errors.js';
import type { RunReceipt } from '../core/receipt.js';
import { promptCache } from '../core/session.js';
import { SAMPLER_PROFILE } from '../engines/sampling.js';
import type { TaskRow, Transcript } from '../store/tasks.js';
import type { EngineRun } from './fleet.js';

/** An engine's run that came to its end here. */
export interface EndedRun extends EngineRun, Pick<RunReceipt, 'coResidentMax' | 'tokens' | 'chainHash'> {}

export function transcriptOf(
  task: Pick<
    TaskRow,
    | 'id'
    | 'sessionId'
    | 'poolId'
    | 'workload'
    | 'engine'
    | 'modelRef'
    | 'seed'
    | 'determinism'
    | 'kvHint'
    | 'prompt'
    | 'inputs'
    | 'attempts'
  >,
  outcome: {
    readonly status: string;
    readonly text: string;
    readonly tokensOut: number;
    readonly finishReason: string;
    readonly error: TaskFailure | null;
    /** Of the artifact that holds what a task without tokens gave. */
    readonly resultId?: string | null;
    readonly replicaId: string | null;
    /** null: it never ran, or nobody saw its run end. */
    readonly engine: EndedRun | null;
  },
): Transcript {
  const content = JSON.stringify({
    task_id: task.id,
    session_id: task.sessionId,
    pool_id: task.poolId,
    engine: task.engine,
    model_ref: task.modelRef,
    seed: String(task.seed),
    determinism: task.determinism,
    prompt: { redacted: true, characters: task.prompt.length },
    attempts: task.attempts,
    replica_id: outcome.replicaId,
    run: outcome.engine === null ? null : runRecord(task, outcome.engine),
    status: outcome.status,
    finish_reason: outcome.finishReason,
    tokens_out: outcome.tokensOut,
    text: outcome.text,
    ...(task.workload !== 'completion' && unaryRecord(task, outcome.resultId ?? null)),
    error: outcome.error,
  });
  return { id: `sha256:${createHash('sha256').update(content).digest('hex')}`, content };
}

/** Of a task without tokens, also its kind, how much it was given, and where its result is. */
function unaryRecord({ workload, inputs }: Pick<TaskRow, 'workload' | 'inputs'>, resultId: string | null) {
  const characters = inputs.reduce((sum, text) => sum + text.length, 0);
  return { workload, inputs: { redacted: true, count: inputs.length, characters }, result: resultId };
}

/** What another run must have in common with this one to give the same bytes, and whether the engine answers for it. */
function runRecord(task: Pick<TaskRow, 'determinism' | 'kvHint'>, engine: EndedRun) {
  return {
    engine_version: engine.engineVersion,
    model_id: engine.modelId,
    model_digest: engine.modelDigest,
    sampler_profile: SAMPLER_PROFILE,
    launch_args: engine.launchArgs,
    gpus: engine.gpuUuids,
    determinism: { requested: task.determinism, ...engine.determinism },
    prompt_cache: promptCache(task),
    co_resident_max: engine.coResidentMax,
    tokens: engine.tokens,
    chain_hash: engine.chainHash,
  };
}

const transcriptSchema = z.object({
  seed: z
    .string()
    .regex(/^-?\d+$/)
    .transform(BigInt),
  run: z.object({
    engine_version: z.string(),
    model_id: z.string().nullable(),
    model_digest: z.string().nullable(),
    sampler_profile: z.object({
      version: z.string(),
      temperature: z.number(),
      topK: z.number(),
      topP: z.number(),
      minP: z.number(),
    }),
    launch_args: z.array(z.string()).nullable(),
    gpus: z.array(z.string()),
    determinism: z.object({ claim: z.enum(['byte_exact', 'none']), because: z.string() }),
    co_resident_max: z.number().nullable(),
    tokens: z.number(),
    chain_hash: z.string(),
  }),
});

/** The receipt in the content of a transcript; null when no run ended, or it was written before there were receipts. */
export function receiptIn(content: unknown): RunReceipt | null {
  const parsed = transcriptSchema.safeParse(content);
  if (!parsed.success) return null;
  const { seed, run } = parsed.data;
  return {
    engineVersion: run.engine_version,
    modelId: run.model_id,
    modelDigest: run.model_digest,
    launchArgs: run.launch_args,
    gpuUuids: run.gpus,
    seed,
    sampler: run.sampler_profile,
    claim: { kind: run.determinism.claim, because: run.determinism.because },
    coResidentMax: run.co_resident_max,
    tokens: run.tokens,
    chainHash: run.chain_hash,
  };
}
