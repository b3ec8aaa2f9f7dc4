/** One function per business event: each feeds the log line (with `human`, one plain sentence) and the counters. */
import type { Engine, Refusal, TaskFailure } from '../core/errors.js';
import type { PlacementExplanation, PlacementOverrides } from '../core/placement.js';
import { gradeQuote, type StartQuote } from '../core/prediction.js';
import { type FullPolicy, isFullPolicy } from '../core/queue.js';
import { RATE_LIMIT_LABEL } from '../core/rateLimit.js';
import { cancelOfFinish, type Priority } from '../core/task.js';
import { CatalogTelemetry } from './catalog.js';

export interface TaskFacts {
  readonly taskId: string;
  readonly sessionId: string;
  readonly correlationId: string;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly poolId: string;
  readonly priority: Priority;
  readonly seed: bigint;
  readonly samplerProfileVersion?: string | null;
}

/** Of a task that may not become one of ours. */
export type SubmittedFacts = Pick<
  TaskFacts,
  'taskId' | 'sessionId' | 'correlationId' | 'engine' | 'modelRef' | 'priority'
>;

export interface RunFacts extends TaskFacts {
  readonly replicaId: string;
  readonly engineVersion: string;
}

/** Of a run, when it begins. */
export interface StartFacts {
  readonly attempt: number;
  readonly queueTimeMs: number;
  /** As its receipt told it. */
  readonly queuePosition: number;
  readonly predictedStartMs: number;
  readonly kvWarmth: boolean;
}

export interface PoolFacts {
  readonly engine: Engine;
  readonly poolId: string;
}

interface NodeFacts {
  readonly leases: number;
  readonly streamReaders: number;
  /** Of each pool of them. */
  readonly connections: readonly { readonly kind: string; readonly taken: number; readonly idle: number }[];
}

/** What somebody had done to a pool; nobody asked for it where the id is missing. */
export interface PoolWorkFacts extends PoolFacts {
  readonly correlationId?: string | undefined;
}

export interface LaneFacts extends PoolFacts {
  readonly priority: Priority;
}

/** A task that ends elsewhere is never struck off; the oldest of too many is forgotten. */
const MAX_STOPPED_BY_RELOAD = 10_000;

const MAX_MODEL_CHARS = 256;

function poolLabels({ engine, poolId }: PoolFacts) {
  return { engine, pool_id: poolId };
}

function submittedFields(task: Omit<SubmittedFacts, 'priority'>) {
  return {
    job_id: task.taskId,
    session_id: task.sessionId,
    correlation_id: task.correlationId,
    engine: task.engine,
    // A caller may send any text for it.
    model_id: task.modelRef.slice(0, MAX_MODEL_CHARS),
  };
}

function fields(task: TaskFacts) {
  return {
    ...submittedFields(task),
    pool_id: task.poolId,
    seed: String(task.seed),
    sampler_profile_version: task.samplerProfileVersion ?? null,
  };
}

function runFields(run: RunFacts) {
  return { ...fields(run), engine_version: run.engineVersion, replica_id: run.replicaId };
}

function startFields(start: StartFacts) {
  return {
    queue_position: start.queuePosition,
    predicted_start_ms: start.predictedStartMs,
    queue_time_ms: Math.round(start.queueTimeMs),
    kv_warmth: start.kvWarmth,
    attempt: start.attempt,
  };
}

export class Telemetry extends CatalogTelemetry {
  /** Tasks whose stream a reload stopped, until they end: only then is it known whether their readers got an error. */
  readonly #stoppedByReload = new Map<string, PoolFacts>();

  /** @param identity who submitted it: `localhost` or `token:<fingerprint>`. */
  admitted(
    task: TaskFacts,
    identity: string,
    receipt: { readonly queuePosition: number; readonly predictedStartMs: number },
  ): void {
    const { engine, poolId, priority } = task;
    this.metrics.tasksEnqueued.inc({ engine, engine_version: '', pool_id: poolId, replica_id: '', priority });
    this.log.info(
      {
        ...fields(task),
        identity,
        queue_position: receipt.queuePosition,
        predicted_start_ms: receipt.predictedStartMs,
        human: `A ${priority} task was admitted with ${receipt.queuePosition} ahead of it.`,
      },
      'task admitted',
    );
  }

  rejected(task: SubmittedFacts, identity: string, refusal: Refusal): void {
    this.metrics.tasksRejected.inc({ engine: task.engine, reason: refusal.code });
    this.#pushedBack(task, refusal);
    this.log.info(
      {
        ...submittedFields(task),
        identity,
        code: refusal.code,
        field: refusal.field,
        human: `A task was refused: ${refusal.code}.`,
      },
      'task rejected',
    );
  }

  /** The policies of full queues are a closed set of labels; a rate limit is counted by itself, a budget as a refusal alone. */
  #pushedBack({ engine, priority }: { engine: Engine; priority: Priority }, refusal: Refusal): void {
    if (refusal.family !== 'backpressure' || refusal.policyLabel === undefined) return;
    if (refusal.policyLabel === RATE_LIMIT_LABEL) this.metrics.rateLimited.inc({ engine, priority });
    else if (isFullPolicy(refusal.policyLabel)) this.metrics.backpressure.inc({ engine, policy: refusal.policyLabel });
  }

  /** A waiting task ended to make room for a newer one. */
  displaced(task: TaskFacts, policy: FullPolicy): void {
    const { engine, poolId, priority } = task;
    this.metrics.backpressure.inc({ engine, policy });
    this.metrics.tasksDropped.inc({ engine, pool_id: poolId, priority, policy });
    this.endedInQueue(task, 'DROPPED', 'displaced');
  }

  laneRead({ engine, poolId, priority }: LaneFacts, depth: number): void {
    this.metrics.queueDepth.set({ engine, engine_version: '', pool_id: poolId, priority }, depth);
  }

  /** What this node holds now. */
  nodeRead({ leases, streamReaders, connections }: NodeFacts): void {
    this.metrics.activeLeases.set(leases);
    this.metrics.streamReaders.set(streamReaders);
    for (const { kind, taken, idle } of connections) {
      this.metrics.databaseConnections.set({ kind, state: 'taken' }, taken);
      this.metrics.databaseConnections.set({ kind, state: 'idle' }, idle);
    }
  }

  placed(task: SubmittedFacts, placement: PlacementOverrides, explanation: PlacementExplanation): void {
    const preferred = explanation.candidates.find((candidate) => candidate.poolId === explanation.chosen)?.preferred;
    this.metrics.placementDecisions.inc({
      outcome: explanation.chosen === null ? 'no_capacity' : 'assigned',
      pinned: String(placement.mode === 'pin'),
      fallback: String(placement.mode === 'prefer' && preferred === false),
    });
    this.metrics.placementCandidates.set(explanation.candidates.length);
    const { chosen, candidates } = explanation;
    const among = candidates.length === 1 ? 'the one pool there is' : `${candidates.length} pools`;
    this.log.info(
      {
        ...submittedFields(task),
        pool_id: chosen,
        candidates: candidates.length,
        human: chosen === null ? `No place for a task among ${among}.` : `A task found its place among ${among}.`,
      },
      'task placed',
    );
  }

  started(run: RunFacts, start: StartFacts): void {
    const { engine, engineVersion, poolId, replicaId, priority } = run;
    this.metrics.tasksStarted.inc({
      engine,
      engine_version: engineVersion,
      pool_id: poolId,
      replica_id: replicaId,
      priority,
    });
    this.log.info(
      {
        ...runFields(run),
        ...startFields(start),
        human: `A task started on an engine after waiting ${Math.round(start.queueTimeMs)} ms.`,
      },
      'stream started',
    );
  }

  /** A task that had been quoted a start got its slot after so long. */
  quoteGraded({ engine, poolId, priority }: LaneFacts, quote: StartQuote, actualMs: number): void {
    const lane = { engine, pool_id: poolId, priority };
    this.metrics.startQuoteError.observe(lane, Math.abs(actualMs - quote.p50Ms));
    this.metrics.startQuotes.inc({ ...lane, verdict: gradeQuote(quote, actualMs) });
  }

  /** A task started that had been given no quote. */
  quoteWithheld({ engine, poolId, priority }: LaneFacts): void {
    this.metrics.startQuotes.inc({ engine, pool_id: poolId, priority, verdict: 'withheld' });
  }

  firstToken(run: RunFacts, sinceLeaseMs: number): void {
    const { engine, engineVersion, poolId, priority } = run;
    this.metrics.firstToken.observe({ engine, engine_version: engineVersion, pool_id: poolId, priority }, sinceLeaseMs);
  }

  ended(
    run: RunFacts,
    start: StartFacts | null,
    end: {
      outcome: string;
      finishReason: string;
      tokensIn: number | null;
      tokensOut: number;
      decodeMs: number;
      error?: TaskFailure;
    },
  ): void {
    const { engine, engineVersion, poolId, replicaId, priority } = run;
    const replica = { engine, engine_version: engineVersion, pool_id: poolId, replica_id: replicaId };
    this.metrics.tokensOut.inc(replica, end.tokensOut);
    if (end.tokensIn !== null) this.metrics.tokensIn.inc(replica, end.tokensIn);
    this.metrics.decode.observe({ engine, engine_version: engineVersion, pool_id: poolId, priority }, end.decodeMs);
    const reason = cancelOfFinish(end.finishReason);
    if (end.outcome === 'CANCELED') this.metrics.tasksCanceled.inc({ ...replica, reason });
    this.#endedAfterReload(run.taskId, end.error?.code === 'WORKER_RESET');
    const canceled = end.outcome === 'CANCELED';
    const after = `after ${end.tokensOut} tokens`;
    this.log.info(
      {
        ...runFields(run),
        ...(start !== null && startFields(start)),
        tokens_in: end.tokensIn,
        tokens_out: end.tokensOut,
        decode_time_ms: Math.round(end.decodeMs),
        outcome: end.outcome,
        code: end.error?.code,
        human: canceled ? `A running task was canceled ${after}.` : `A stream ended as ${end.outcome} ${after}.`,
      },
      canceled ? 'stream canceled' : 'stream ended',
    );
  }

  endedInQueue(task: TaskFacts, outcome: string, finishReason: string): void {
    const { engine, poolId } = task;
    const reason = cancelOfFinish(finishReason);
    if (outcome === 'CANCELED') {
      this.metrics.tasksCanceled.inc({ engine, engine_version: '', pool_id: poolId, replica_id: '', reason });
    }
    this.#endedAfterReload(task.taskId, outcome === 'EXPIRED' || outcome === 'DROPPED');
    const human = outcome === 'CANCELED' ? 'A waiting task was canceled.' : `A waiting task ended as ${outcome}.`;
    this.log.info(
      { ...fields(task), outcome, human },
      outcome === 'CANCELED' ? 'task canceled in queue' : 'task ended in queue',
    );
  }

  /** A task was run again, and both runs were compared. */
  verified(
    run: PoolFacts & { readonly taskId: string; readonly rerunId: string; readonly correlationId: string },
    found: { readonly verdict: string; readonly firstDivergentIndex: number | null },
  ): void {
    const { engine, poolId, taskId, rerunId } = run;
    const { verdict, firstDivergentIndex } = found;
    this.metrics.taskVerifications.inc({ ...poolLabels(run), result: verdict });
    const line = {
      job_id: taskId,
      rerun_id: rerunId,
      correlation_id: run.correlationId,
      engine,
      pool_id: poolId,
      verdict,
      first_divergent_index: firstDivergentIndex,
      human: `A task was run again and compared: ${verdict}.`,
    };
    if (verdict === 'DIVERGED') this.log.warn(line, 'task verified');
    else this.log.info(line, 'task verified');
  }

  /** An engine's closing numbers could not be true; ours stand in their place. */
  disbelieved(run: RunFacts, claim: string): void {
    this.log.warn(
      {
        ...runFields(run),
        claim,
        human: 'An engine reported numbers about its stream that cannot be true; they were not used.',
      },
      'engine disbelieved',
    );
  }

  requeued(task: Omit<TaskFacts, 'taskId'> & { readonly id: string }, cause: string): void {
    const human = 'A task goes back to its queue to be run again.';
    this.log.warn({ ...fields({ ...task, taskId: task.id }), cause, human }, 'task requeued');
  }

  /** Its pool does not serve its model any more. */
  movedToPool(task: Omit<TaskFacts, 'taskId'> & { readonly id: string }, poolId: string): void {
    const human = 'A waiting task goes to another pool, which serves the model it names.';
    this.log.info({ ...fields({ ...task, taskId: task.id, poolId }), from: task.poolId, human }, 'task moved');
  }

  drained(
    pool: PoolWorkFacts,
    durationMs: number,
    report: { readonly finished: number; readonly forceStopped: number },
  ): void {
    this.metrics.drainDuration.observe(poolLabels(pool), durationMs);
    const { finished, forceStopped } = report;
    this.log.info(
      {
        pool_id: pool.poolId,
        engine: pool.engine,
        correlation_id: pool.correlationId,
        duration_ms: Math.round(durationMs),
        finished,
        force_stopped: forceStopped,
        human: `A pool was drained: ${finished} tasks finished, ${forceStopped} were stopped.`,
      },
      'pool drained',
    );
  }

  /** @param reason code of what stood in the way; null: the new model serves. */
  reloaded(pool: PoolWorkFacts, durationMs: number, reason: string | null): void {
    this.metrics.reloadDuration.observe(poolLabels(pool), durationMs);
    if (reason === null) this.metrics.reloadSuccess.inc(poolLabels(pool));
    else this.metrics.reloadFailure.inc({ ...poolLabels(pool), reason });
    this.log.info(
      {
        pool_id: pool.poolId,
        engine: pool.engine,
        correlation_id: pool.correlationId,
        duration_ms: Math.round(durationMs),
        reason,
        human: reason === null ? 'A pool serves another model now.' : `A reload failed: ${reason}.`,
      },
      'pool reloaded',
    );
  }

  /** Says before a run is stopped that a reload is the cause; counted when its readers get an error for it. */
  stoppedByReload(pool: PoolFacts, taskId: string): void {
    const [oldest] = this.#stoppedByReload.keys();
    if (this.#stoppedByReload.size >= MAX_STOPPED_BY_RELOAD && oldest !== undefined) {
      this.#stoppedByReload.delete(oldest);
    }
    this.#stoppedByReload.set(taskId, pool);
  }

  #endedAfterReload(taskId: string, byLoss: boolean): void {
    const pool = this.#stoppedByReload.get(taskId);
    if (pool === undefined) return;
    this.#stoppedByReload.delete(taskId);
    if (byLoss) this.metrics.streamsDroppedByReload.inc(poolLabels(pool));
  }
}
