/**
 * Writes that nobody waits for and that are not to be lost while the database is away: in the order they came, each tried
 * again until it is done.
 */
import { RefusalError } from '../core/errors.js';
import { Reconciler } from '../runtime/reconciler.js';
import { delay } from '../runtime/wait.js';
import type { Telemetry } from '../telemetry/events.js';

const RETRY_EVERY_MS = 1_000;
const MAX_PENDING = 1_024;
/** Of one write that fails although the database is there. */
const MAX_TRIES = 5;

interface Pending {
  /** For the log, where it is lost. */
  readonly what: string;
  readonly write: () => Promise<void>;
  /** @param written false: it is lost. */
  readonly settle: (written: boolean) => void;
  tries: number;
}

export class Outbox {
  readonly #telemetry: Telemetry;
  readonly #maxPending: number;
  readonly #writer: Reconciler;
  #pending: Pending[] = [];
  #last: Promise<void> = Promise.resolve();
  /** Rises with every write that is lost. */
  #lost = 0;
  #failedMs = Number.NEGATIVE_INFINITY;

  /** @param maxPending the oldest of more is lost. */
  constructor(telemetry: Telemetry, maxPending = MAX_PENDING) {
    this.#telemetry = telemetry;
    this.#maxPending = maxPending;
    this.#writer = new Reconciler({
      name: 'outbox',
      intervalMs: RETRY_EVERY_MS,
      run: (signal) => this.#flush(signal),
      onError: (name, error) => telemetry.backgroundFailure(name, error),
    });
  }

  start(): void {
    this.#writer.start();
  }

  /** Tries once more to write what waits; what cannot be written is named in the log. */
  async stop(): Promise<void> {
    await this.#writer.stop();
    await this.#flush().catch((error: unknown) => {
      for (const pending of this.#pending.splice(0)) this.#lose(pending, error);
    });
  }

  /**
   * Never throws and never waits. The write may run more than once, where the answer of the database is lost.
   * @param onLost it will not run any more.
   */
  push(what: string, write: () => Promise<void>, onLost: () => void = () => {}): void {
    let resolveLast = () => {};
    this.#last = new Promise((resolve) => {
      resolveLast = resolve;
    });
    const settle = (written: boolean) => {
      if (!written) onLost();
      resolveLast();
    };
    this.#pending.push({ what, write, settle, tries: 0 });
    if (this.#pending.length > this.#maxPending) {
      // The first may be under way.
      const [oldest] = this.#pending.splice(1, 1);
      if (oldest !== undefined)
        this.#lose(oldest, new Error(`more than ${this.#maxPending} writes wait for the database`));
    }
    this.#writer.wake();
  }

  /** @returns whether everything pushed so far was written before the deadline, and nothing lost meanwhile. */
  async settled(deadlineMs: number): Promise<boolean> {
    const over = new AbortController();
    const lostBefore = this.#lost;
    try {
      const late = delay(deadlineMs, over.signal).then(() => false);
      return await Promise.race([this.#last.then(() => this.#lost === lostBefore), late]);
    } finally {
      over.abort();
    }
  }

  /** Rejects when the first that waits could not be written and is to be tried again. */
  async #flush(signal?: AbortSignal): Promise<void> {
    // Whoever pushes wakes the writer: that is no reason to try again sooner.
    const restMs = RETRY_EVERY_MS - (performance.now() - this.#failedMs);
    if (signal !== undefined && restMs > 0) await delay(restMs, signal);
    for (let next = this.#pending[0]; next !== undefined; next = this.#pending[0]) {
      const current = next;
      try {
        await current.write();
        current.settle(true);
      } catch (error) {
        this.#failedMs = performance.now();
        if (isAway(error)) throw error;
        current.tries += 1;
        if (current.tries < MAX_TRIES) throw error;
        this.#lose(current, error);
      }
      this.#pending = this.#pending.filter((pending) => pending !== current);
    }
  }

  #lose({ what, settle }: Pending, error: unknown): void {
    this.#lost += 1;
    this.#telemetry.log.error({ err: error, human: `Lost: ${what}.` }, 'write lost');
    settle(false);
  }
}

/** A database that is away is a refusal; anything else is no matter of waiting. */
function isAway(error: unknown): boolean {
  return error instanceof RefusalError;
}
