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
  readonly settle: () => void;
  tries: number;
}

export class Outbox {
  readonly #telemetry: Telemetry;
  readonly #maxPending: number;
  readonly #writer: Reconciler;
  #pending: Pending[] = [];
  #last: Promise<void> = Promise.resolve();

  /** @param maxPending the oldest of more is lost. */
  constructor(telemetry: Telemetry, maxPending = MAX_PENDING) {
    this.#telemetry = telemetry;
    this.#maxPending = maxPending;
    this.#writer = new Reconciler({
      name: 'outbox',
      intervalMs: RETRY_EVERY_MS,
      run: () => this.#flush(),
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

  /** Never throws and never waits. May run more than once, where the answer of the database is lost. */
  push(what: string, write: () => Promise<void>): void {
    let settle = () => {};
    this.#last = new Promise((resolve) => {
      settle = resolve;
    });
    this.#pending.push({ what, write, settle, tries: 0 });
    if (this.#pending.length > this.#maxPending) {
      // The first may be under way.
      const [oldest] = this.#pending.splice(1, 1);
      if (oldest !== undefined)
        this.#lose(oldest, new Error(`more than ${this.#maxPending} writes wait for the database`));
    }
    this.#writer.wake();
  }

  /** @returns whether everything pushed so far is written, or given up, before the deadline. */
  async settled(deadlineMs: number): Promise<boolean> {
    const over = new AbortController();
    try {
      const late = delay(deadlineMs, over.signal).then(() => false);
      return await Promise.race([this.#last.then(() => true), late]);
    } finally {
      over.abort();
    }
  }

  /** Rejects when the first that waits could not be written and is to be tried again. */
  async #flush(): Promise<void> {
    for (let next = this.#pending[0]; next !== undefined; next = this.#pending[0]) {
      const current = next;
      try {
        await current.write();
        current.settle();
      } catch (error) {
        if (isAway(error)) throw error;
        current.tries += 1;
        if (current.tries < MAX_TRIES) throw error;
        this.#lose(current, error);
      }
      this.#pending = this.#pending.filter((pending) => pending !== current);
    }
  }

  #lose({ what, settle }: Pending, error: unknown): void {
    this.#telemetry.log.error({ err: error, human: `Lost: ${what}.` }, 'write lost');
    settle();
  }
}

/** A database that is away is a refusal; anything else is no matter of waiting. */
function isAway(error: unknown): boolean {
  return error instanceof RefusalError;
}
