/**
 * Runs an ended task again and holds what it says against the log, token by token. The second run is a task like any
 * other; its verdict is drawn from what both left in the database, so a check survives whatever dies while it runs.
 */
import { randomUUID } from 'node:crypto';
import type { TaskSubmission } from '../core/admission.js';
import { compareRuns, type Findings } from '../core/comparison.js';
import { conflict, notFound, RefusalError } from '../core/errors.js';
import { AUTO_PLACEMENT } from '../core/placement.js';
import type { Reason } from '../core/pool.js';
import { differences, type RunReceipt } from '../core/receipt.js';
import { isTerminal } from '../core/task.js';
import { Reconciler } from '../runtime/reconciler.js';
import type { Database } from '../store/database.js';
import { getTask, type TaskRow } from '../store/tasks.js';
import {
  type EndedVerification,
  endedVerifications,
  insertVerification,
  readTranscript,
  settleVerification,
} from '../store/verifications.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Admission, Submitter } from './admission.js';
import { chainOf } from './streams/log.js';
import { loggedTokens } from './streams/stored.js';
import { OTHER_AT_EVERY_START } from './supervision/crashes.js';
import { receiptIn } from './transcript.js';

const LOOK_EVERY_MS = 500;
const AT_ONCE = 16;
/** A check may wait longer than the task could: that changes no byte. */
const LEAST_DEADLINE_MS = 600_000;

export interface VerificationDeps {
  readonly db: Database;
  readonly admission: Pick<Admission, 'submit'>;
  readonly telemetry: Telemetry;
}

/** A task and all it left behind. */
interface Run {
  readonly task: TaskRow;
  readonly tokens: readonly string[];
  readonly receipt: RunReceipt | null;
}

export class Verification {
  readonly #deps: VerificationDeps;
  readonly #loop: Reconciler;

  constructor(deps: VerificationDeps) {
    this.#deps = deps;
    this.#loop = new Reconciler({
      name: 'verification',
      intervalMs: LOOK_EVERY_MS,
      run: (signal) => this.#settleEnded(signal),
      onError: (name, error) => deps.telemetry.backgroundFailure(name, error),
    });
  }

  start(): void {
    this.#loop.start();
  }

  async stop(): Promise<void> {
    await this.#loop.stop();
  }

  /**
   * Begins a check: the task is submitted again, with its seed and everything else that may change a byte.
   * @returns the id of the verification, whose verdict comes when that run has ended; at once where none is possible.
   * @throws RefusalError not_found; conflict while the task runs; whatever admission says that may change by waiting.
   */
  async verify(taskId: string, submitter: Submitter): Promise<string> {
    const { db } = this.#deps;
    const task = await getTask(db, taskId.toLowerCase());
    if (task === null) throw new RefusalError(notFound('task_id', `task ${taskId} not found`));
    if (!isTerminal(task.status)) {
      throw new RefusalError(
        conflict('task_id', `task ${taskId} is ${task.status}; only an ended one can be verified`),
      );
    }
    const id = randomUUID();
    const obstacle = saidNothing(task) ?? (await this.#runAgain(id, task, submitter));
    if (obstacle !== null) await insertVerification(db, id, task.id, { findings: notComparable(obstacle) });
    return id;
  }

  /** @returns what will stand in the way however long one waits; null when it is admitted. */
  async #runAgain(id: string, task: TaskRow, submitter: Submitter): Promise<Reason | null> {
    const again = submissionOf(task);
    try {
      await this.#deps.admission.submit(again, submitter);
    } catch (error) {
      if (!(error instanceof RefusalError) || error.refusal.retriable) throw error;
      const message = `The task is not admitted any more: ${error.refusal.message}.`;
      return { code: 'NOT_ADMITTED', message, fix: 'Serve its model again, as it was, with a context as long.' };
    }
    await insertVerification(this.#deps.db, id, task.id, { rerunId: again.taskId });
    return null;
  }

  async #settleEnded(signal: AbortSignal): Promise<void> {
    for (const ended of await endedVerifications(this.#deps.db, AT_ONCE)) {
      if (signal.aborted) return;
      // One that cannot be settled is tried again, and keeps none of the others waiting.
      await this.#settle(ended).catch((error: unknown) =>
        this.#deps.telemetry.backgroundFailure('verification', error),
      );
    }
  }

  async #settle({ id, taskId, rerunId }: EndedVerification): Promise<void> {
    const { db, telemetry } = this.#deps;
    const [first, second] = [await this.#runOf(taskId), await this.#runOf(rerunId)];
    const findings = findingsOf(first, second);
    if (!(await settleVerification(db, id, findings))) return;
    const { engine, poolId, correlationId } = second.task;
    telemetry.verified({ engine, poolId, taskId, rerunId, correlationId }, findings);
  }

  async #runOf(taskId: string): Promise<Run> {
    const { db } = this.#deps;
    const task = await getTask(db, taskId);
    if (task === null) throw new Error(`task ${taskId} of a verification is gone`);
    return { task, tokens: await loggedTokens(db, task), receipt: receiptIn(await readTranscript(db, taskId)) };
  }
}

/** Batch, so that a check never goes before somebody's work; on its own pool where that still serves its model. */
function submissionOf(task: TaskRow): TaskSubmission {
  const { workload, modelRef, engine, ctx, seed, determinism, samplerProfileVersion, prompt, maxTokens } = task;
  const taskId = randomUUID();
  return {
    ...{ taskId, sessionId: taskId, workload, modelRef, engine, ctx, seed, determinism, samplerProfileVersion },
    ...{
      prompt,
      inputs: task.inputs,
      maxTokens,
      priority: 'batch',
      kvHint: null,
      followsPool: false,
      disconnectGraceMs: null,
    },
    deadlineMs: Math.max(LEAST_DEADLINE_MS, task.deadlineAt.getTime() - task.createdAt.getTime()),
    placement: { ...AUTO_PLACEMENT, mode: 'prefer', preferPools: [task.poolId] },
  };
}

function saidNothing({ status, tokensOut, workload }: TaskRow): Reason | null {
  if (workload !== 'completion') {
    const message = `The task is one of ${workload}: it has no tokens to compare.`;
    return { code: 'NOTHING_TO_COMPARE', message, fix: null };
  }
  if (status === 'SUCCEEDED' || tokensOut > 0) return null;
  return { code: 'NOTHING_TO_COMPARE', message: `The task ended as ${status} before its first token.`, fix: null };
}

function findingsOf(first: Run, second: Run): Findings {
  const compared = compareRuns(saidBy(first), saidBy(second));
  const reasons = [...changedLog(first), ...whatDiffers(first.receipt, second.receipt)];
  if (compared.verdict === 'unfinished') {
    const { status, tokensOut } = second.task;
    const message = `The second run ended as ${status} after ${tokensOut} tokens, the same as the first ones.`;
    return notComparable({ code: 'RERUN_INCOMPLETE', message, fix: 'Verify the task again.' }, reasons);
  }
  const none = { firstDivergentIndex: null, expected: null, got: null };
  if (compared.verdict === 'identical') return { verdict: 'IDENTICAL', ...none, reasons };
  const { index, expected, got } = compared;
  return { verdict: 'DIVERGED', firstDivergentIndex: index, expected, got, reasons: [...reasons, ...noClaim(second)] };
}

function saidBy({ task, tokens }: Run): Parameters<typeof compareRuns>[0] {
  return { tokens, complete: task.status === 'SUCCEEDED' && task.finishReason !== 'budget' };
}

function notComparable(obstacle: Reason, others: readonly Reason[] = []): Findings {
  const none = { firstDivergentIndex: null, expected: null, got: null };
  return { verdict: 'NOT_COMPARABLE', ...none, reasons: [obstacle, ...others] };
}

function whatDiffers(first: RunReceipt | null, second: RunReceipt | null): Reason[] {
  if (first !== null && second !== null) return differences(first, second, OTHER_AT_EVERY_START);
  const which = first === null ? 'first' : 'second';
  return [{ code: 'NO_RECEIPT', message: `What the ${which} run depended on is not known.`, fix: null }];
}

/** Its receipt was made from what the log said at its end. */
function changedLog({ tokens, receipt }: Run): Reason[] {
  if (receipt === null || receipt.chainHash === chainOf(tokens)) return [];
  const message = 'The log of the task is not what it was when its receipt was made.';
  return [{ code: 'LOG_CHANGED', message, fix: 'Find out who writes to the database besides llama-orch.' }];
}

function noClaim({ receipt }: Run): Reason[] {
  if (receipt === null || receipt.claim.kind === 'byte_exact') return [];
  return [
    { code: 'NO_CLAIM', message: `The engine does not promise equal bytes: ${receipt.claim.because}.`, fix: null },
  ];
}
