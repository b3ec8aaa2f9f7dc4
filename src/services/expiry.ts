/** Tasks whose deadline passes while they wait end with it, soon after: none is started for nobody. */

import type { TaskFailure } from '../core/errors.js';
import type { ErrorEvent } from '../core/frame.js';
import type { Clock } from '../runtime/clock.js';
import { Reconciler } from '../runtime/reconciler.js';
import type { Database } from '../store/database.js';
import { overdueQueuedTasks, type TaskRow } from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import { endQueued } from './ending.js';
import type { StreamHub } from './streams/hub.js';

/** One look at an index that is empty as a rule. */
const LOOK_EVERY_MS = 250;

const DEADLINE_PASSED: TaskFailure = {
  code: 'DEADLINE_UNMET',
  message: 'the deadline passed while the task was waiting',
  retriable: true,
};

export interface ExpiryDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly hub: StreamHub;
  readonly telemetry: Telemetry;
}

export class Expiry {
  readonly #deps: ExpiryDeps;
  readonly #loop: Reconciler;

  constructor(deps: ExpiryDeps) {
    this.#deps = deps;
    this.#loop = new Reconciler({
      name: 'expiry',
      intervalMs: LOOK_EVERY_MS,
      run: (signal) => this.#sweep(signal),
      onError: (name, error) => deps.telemetry.backgroundFailure(name, error),
    });
  }

  start(): void {
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  async #sweep(signal: AbortSignal): Promise<void> {
    for (const task of await overdueQueuedTasks(this.#deps.db)) {
      if (signal.aborted) return;
      await this.#expire(task);
    }
  }

  async #expire(task: TaskRow): Promise<void> {
    const error = DEADLINE_PASSED;
    const event: ErrorEvent = { kind: 'error', seq: task.tokensOut + 1, atMs: this.#deps.clock.nowMs(), error };
    await endQueued(this.#deps, task, { status: 'EXPIRED', event, finishReason: 'deadline', error });
  }
}
