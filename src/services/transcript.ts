/** The transcript of a task: one artifact, whatever the outcome. The prompt stays out of it; its length is in. */
import { createHash } from 'node:crypto';
import type { TaskFailure } from '../core/errors.js';
import { SAMPLER_PROFILE } from '../engines/sampling.js';
import type { TaskRow, Transcript } from '../store/tasks.js';
import type { EngineRun } from './fleet.js';

export function transcriptOf(
  task: Pick<
    TaskRow,
    'id' | 'sessionId' | 'poolId' | 'engine' | 'modelRef' | 'seed' | 'determinism' | 'prompt' | 'attempts'
  >,
  outcome: {
    readonly status: string;
    readonly text: string;
    readonly tokensOut: number;
    readonly finishReason: string;
    readonly error: TaskFailure | null;
    readonly replicaId: string | null;
    /** null: it never ran. */
    readonly engine: EngineRun | null;
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
    error: outcome.error,
  });
  return { id: `sha256:${createHash('sha256').update(content).digest('hex')}`, content };
}

/** What another run must have in common with this one to give the same bytes, and whether the engine answers for it. */
function runRecord(task: Pick<TaskRow, 'determinism'>, engine: EngineRun) {
  return {
    engine_version: engine.engineVersion,
    model_id: engine.modelId,
    model_digest: engine.modelDigest,
    sampler_profile: SAMPLER_PROFILE,
    launch_args: engine.launchArgs,
    gpus: engine.gpuUuids,
    determinism: { requested: task.determinism, ...engine.determinism },
  };
}
