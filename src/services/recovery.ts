/** Mends what a death left behind: tasks whose lease ran out or whose holder is known to be gone run again or end. */
import type { TaskFailure } from '../core/errors.js';
import type { EndEvent, ErrorEvent } from '../core/frame.js';
import { LEASE_SWEEP_EVERY_MS } from '../core/lease.js';
import { afterLoss, finishOfCancel } from '../core/task.js';
import type { Clock } from '../runtime/clock.js';
import { Reconciler } from '../runtime/reconciler.js';
import type { Database } from '../store/database.js';
import { releaseDeadLeases } from '../store/leases.js';
import { finishTask, lostTasks, requeueTask, type TaskRow } from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import type { StreamHub } from './streams/hub.js';
import { terminalChunk } from './streams/log.js';
import { loggedText } from './streams/stored.js';
import { transcriptOf } from './transcript.js';

export interface RecoveryDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly hub: StreamHub;
  readonly telemetry: Telemetry;
  readonly wakeDispatcher: () => void;
  /** Holders that cannot be alive: earlier lives of this node, whose lock it now has. */
  readonly deadHolders: readonly string[];
}

export class Recovery {
  readonly #deps: RecoveryDeps;
  readonly #loop: Reconciler;

  constructor(deps: RecoveryDeps) {
    this.#deps = deps;
    this.#loop = new Reconciler({
      name: 'recovery',
      intervalMs: LEASE_SWEEP_EVERY_MS,
      run: () => this.sweep(),
      onError: (name, error) => deps.telemetry.backgroundFailure(name, error),
    });
  }

  start(): void {
    this.#loop.start();
  }

  async stop(): Promise<void> {
    await this.#loop.stop();
  }

  async sweep(): Promise<void> {
    const { db, deadHolders } = this.#deps;
    for (const task of await lostTasks(db, deadHolders)) await this.#recover(task);
    await releaseDeadLeases(db, deadHolders);
  }

  async #recover(task: TaskRow): Promise<void> {
    if (task.leaseId === null) return;
    const { db, telemetry } = this.#deps;
    const cause = 'the node that ran the task is gone';
    const decision = afterLoss({
      cancelRequested: task.cancelRequestedAt !== null,
      attempts: task.attempts,
      tokensLogged: task.tokensOut,
      determinism: task.determinism,
      cause,
    });
    if (decision.next === 'requeue') {
      const nothing = {
        taskId: task.id,
        leaseId: task.leaseId,
        firstOrd: task.chunks,
        chunks: [],
        tokensOut: task.tokensOut,
      };
      if (!(await requeueTask(db, nothing, { delayMs: 0, reason: 'holder_lost' }))) return;
      telemetry.requeued(task, cause);
      this.#deps.wakeDispatcher();
    } else {
      await this.#endLost(task, task.leaseId, decision.next === 'fail' ? decision.error : null);
    }
    this.#deps.hub.changed(task.id);
  }

  async #endLost(task: TaskRow, leaseId: string, error: TaskFailure | null): Promise<void> {
    const base = { seq: task.tokensOut + 1, atMs: this.#deps.clock.nowMs() };
    const finishReason = error === null ? finishOfCancel(task.cancelReason ?? 'client') : 'error';
    const event: EndEvent | ErrorEvent =
      error === null
        ? { kind: 'end', ...base, tokensOut: task.tokensOut, decodeMs: 0, canceled: true, finishReason }
        : { kind: 'error', ...base, error };
    const status = error === null ? 'CANCELED' : 'FAILED';
    const text = await loggedText(this.#deps.db, task);
    const finished = await finishTask(this.#deps.db, {
      taskId: task.id,
      leaseId,
      firstOrd: task.chunks,
      chunks: [terminalChunk(event)],
      tokensOut: task.tokensOut,
      status,
      tokensIn: null,
      decodeMs: null,
      finishReason,
      error,
      releaseReason: 'holder_lost',
      transcript: transcriptOf(task, {
        status,
        text,
        tokensOut: task.tokensOut,
        finishReason,
        error,
        replicaId: task.replicaId,
        engine: null,
      }),
    });
    // Its holder may have come to end it after all, or another node was first.
    if (finished) this.#deps.telemetry.endedInQueue({ ...task, taskId: task.id }, status, finishReason);
  }
}
