/** Cancel at any point of a task's life: durable first, then told to the engine, then confirmed by looking at it. */
import { notFound, RefusalError, unavailable } from '../core/errors.js';
import type { EndEvent } from '../core/frame.js';
import { type CancelReason, finishOfCancel, isTerminal } from '../core/task.js';
import type { Clock } from '../runtime/clock.js';
import { delay, pollUntil } from '../runtime/wait.js';
import type { Database } from '../store/database.js';
import { getTask, requestCancel, type TaskRow } from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Dispatcher } from './dispatcher.js';
import { endQueued } from './ending.js';
import type { StreamHub } from './streams/hub.js';

const LOOK_AGAIN_MS = 50;
const DEADLINE_MS = 10_000;
/** As long as its holder gives the engine. */
const SLOT_FREE_DEADLINE_MS = 5_000;

export interface CancelOutcome {
  /** False: the task had ended already, by itself or by an earlier cancel. */
  readonly canceled: boolean;
  /** The engine was seen to have let go of the slot (or never had one). */
  readonly slotFree: boolean;
}

export interface CancellationDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly dispatcher: Dispatcher;
  readonly hub: StreamHub;
  readonly telemetry: Telemetry;
  /** Another node holds the task; it finds the request sooner. */
  readonly tellHolder: () => void;
}

export class Cancellation {
  readonly #deps: CancellationDeps;

  constructor(deps: CancellationDeps) {
    this.#deps = deps;
  }

  /**
   * Idempotent. When it answers, the ending is durable, no token follows, and the engine was asked to stop.
   * @throws RefusalError not_found; unavailable when the holder does not end the task in time.
   */
  async cancel(taskId: string, reason: CancelReason = 'client'): Promise<CancelOutcome> {
    const id = taskId.toLowerCase();
    const deadlineMs = this.#deps.clock.monotonicMs() + DEADLINE_MS;
    let requested = false;
    while (this.#deps.clock.monotonicMs() < deadlineMs) {
      const task = await getTask(this.#deps.db, id);
      if (task === null) throw new RefusalError(notFound('task_id', `task ${taskId} not found`));
      if (isTerminal(task.status)) {
        if (!requested || task.status !== 'CANCELED') return { canceled: false, slotFree: true };
        return { canceled: true, slotFree: task.cancelSlotFreeAt !== null || (await this.#seenFree(id)) };
      }
      const outcome = await this.#tryOnce(task, reason);
      if (outcome !== null) return outcome;
      requested = true;
      await delay(LOOK_AGAIN_MS);
    }
    throw new RefusalError(
      unavailable('POOL_UNAVAILABLE', 'the cancel is recorded; the holder of the task has not confirmed it yet', 1000),
    );
  }

  /** @returns null: look again. An ending whose answer was lost may be there. */
  async #tryOnce(task: TaskRow, reason: CancelReason): Promise<CancelOutcome | null> {
    try {
      return task.status === 'QUEUED'
        ? await this.#cancelQueued(task, reason)
        : await this.#cancelHeld(task.id, reason);
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error;
      return null;
    }
  }

  /** Of a task that another node ran: its ending is durable, and its engine is told now. */
  async #seenFree(taskId: string): Promise<boolean> {
    const look = async () => {
      const task = await getTask(this.#deps.db, taskId);
      return task !== null && task.cancelSlotFreeAt !== null;
    };
    return pollUntil(look, { everyMs: LOOK_AGAIN_MS, deadlineMs: SLOT_FREE_DEADLINE_MS });
  }

  async #cancelQueued(task: TaskRow, reason: CancelReason): Promise<CancelOutcome | null> {
    const { tokensOut } = task;
    const finishReason = finishOfCancel(reason);
    const at = { seq: tokensOut + 1, atMs: this.#deps.clock.nowMs() };
    const event: EndEvent = { kind: 'end', ...at, tokensOut, decodeMs: 0, canceled: true, finishReason };
    const ended = await endQueued(this.#deps, task, {
      status: 'CANCELED',
      event,
      finishReason,
      error: null,
    });
    return ended ? { canceled: true, slotFree: true } : null;
  }

  async #cancelHeld(taskId: string, reason: CancelReason): Promise<CancelOutcome | null> {
    if (!(await requestCancel(this.#deps.db, taskId, reason))) return null;
    const attempt = this.#deps.dispatcher.attempt(taskId);
    if (attempt === undefined) this.#deps.tellHolder();
    const slotFree = await attempt?.cancel(reason);
    return slotFree === undefined || slotFree === null ? null : { canceled: true, slotFree };
  }
}
