/** What goes on between an engine and its clients. */
import { setTimeout } from 'node:timers/promises';

/** Counts of the engine's listeners, for its switchboard. */
export class Traffic {
  readonly sockets = new Set<object>();
  requests = 0;
}

/** The requests that are being answered, so that a dying or stopping engine can end them or wait for them. */
export class OpenCalls {
  readonly #calls = new Map<AbortController, Promise<void>>();

  /** `done` must not reject. */
  add(controller: AbortController, done: Promise<void>): void {
    this.#calls.set(controller, done);
    void done.then(() => this.#calls.delete(controller));
  }

  abortAll(reason: Error): void {
    for (const controller of this.#calls.keys()) controller.abort(reason);
  }

  /** Waits until no request is open; false when that took longer than the limit. */
  async settle(limitMs: number): Promise<boolean> {
    const timer = new AbortController();
    const limit = setTimeout(limitMs, false, { signal: timer.signal }).catch(() => false);
    try {
      while (this.#calls.size > 0) {
        const all = Promise.all(this.#calls.values()).then(() => true);
        if (!(await Promise.race([all, limit]))) return false;
      }
      return true;
    } finally {
      timer.abort();
    }
  }
}
