/**
 * What other nodes ask of the runs on this one: a task that was cancelled elsewhere, a lease that was recalled. Both are
 * rows first, so that nothing is lost when the message would have been.
 */
import { Reconciler } from '../../runtime/reconciler.js';
import type { Database } from '../../store/database.js';
import { type AskedToStop, askedToStop } from '../../store/leases.js';
import type { Attempt } from '../attempt.js';
import type { Dispatcher } from '../dispatcher.js';
import type { LeaseKeeper } from '../leases.js';

/** How late a cancel from another node may be noticed. */
const LOOK_EVERY_MS = 250;

export interface StopRequestsDeps {
  readonly db: Database;
  readonly leases: LeaseKeeper;
  readonly dispatcher: Dispatcher;
  readonly onError: (name: string, error: unknown) => void;
}

export class StopRequests {
  readonly #deps: StopRequestsDeps;
  readonly #loop: Reconciler;
  /** Told already; each runs to its own end. */
  readonly #stopping = new Set<Attempt>();

  constructor(deps: StopRequestsDeps) {
    this.#deps = deps;
    const { onError } = deps;
    this.#loop = new Reconciler({ name: 'stop requests', intervalMs: LOOK_EVERY_MS, run: () => this.#look(), onError });
  }

  start(): void {
    this.#loop.start();
  }

  wake(): void {
    this.#loop.wake();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  async #look(): Promise<void> {
    const { db, leases, dispatcher } = this.#deps;
    if (leases.count === 0) return;
    for (const asked of await askedToStop(db, leases.holder)) {
      const attempt = dispatcher.attempt(asked.taskId);
      if (attempt === undefined || this.#stopping.has(attempt)) continue;
      this.#stopping.add(attempt);
      void this.#stop(attempt, asked);
    }
  }

  async #stop(attempt: Attempt, { canceled }: AskedToStop): Promise<void> {
    try {
      if (canceled !== null) await attempt.cancel(canceled);
      else await attempt.interrupt('the pool was drained');
    } catch (error) {
      this.#deps.onError('stop request', error);
    } finally {
      this.#stopping.delete(attempt);
    }
  }
}
