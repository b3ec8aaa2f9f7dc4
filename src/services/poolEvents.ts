/** The journal of pools: every event is a row with a cursor; a reader replays from any point and goes on live, no gap. */
import { randomUUID } from 'node:crypto';
import type { Database } from '../store/database.js';
import {
  appendPoolEvent,
  journalHead,
  type NewPoolEvent,
  readPoolEvents,
  type StoredPoolEvent,
} from '../store/journal.js';
import type { Telemetry } from '../telemetry/events.js';

/** Another node's events are found by looking; our own wake the readers at once. */
const LOOK_EVERY_MS = 1_000;
const PAGE = 200;

export class PoolEvents {
  readonly #db: Database;
  readonly #telemetry: Telemetry;
  readonly #wake = new Set<() => void>();

  constructor(db: Database, telemetry: Telemetry) {
    this.#db = db;
    this.#telemetry = telemetry;
  }

  /** Writes an event and wakes readers. A failure is logged: what happened, happened, recorded or not. */
  async record(event: Omit<NewPoolEvent, 'id'>): Promise<void> {
    await this.append({ id: randomUUID(), ...event }).catch((error: unknown) =>
      this.#telemetry.backgroundFailure('pool event', error),
    );
  }

  /** The same for whoever tries again, with the same id: rejects when it is not known to be written. */
  async append(event: NewPoolEvent): Promise<void> {
    await appendPoolEvent(this.#db, event);
    for (const wake of [...this.#wake]) wake();
  }

  /** @param after cursor of the last event seen; null: only what is to come. */
  async open(poolId: string | null, after: string | null): Promise<PoolEventReader> {
    return new PoolEventReader(this.#db, poolId, after ?? (await journalHead(this.#db)), this.#wake);
  }
}

/** One reader. Its calls must not overlap. Always `close()` it. */
export class PoolEventReader {
  readonly #db: Database;
  readonly #poolId: string | null;
  readonly #wakers: Set<() => void>;
  #after: string;
  #closed = false;
  #wake: (() => void) | null = null;
  #missed = false;
  readonly #onEvent = () => {
    this.#missed = true;
    this.#wake?.();
  };

  constructor(db: Database, poolId: string | null, after: string, wakers: Set<() => void>) {
    this.#db = db;
    this.#poolId = poolId;
    this.#after = after;
    this.#wakers = wakers;
    wakers.add(this.#onEvent);
  }

  /** The next events, at least one; null after close. */
  async next(): Promise<readonly StoredPoolEvent[] | null> {
    while (!this.#closed) {
      this.#missed = false;
      const events = await readPoolEvents(this.#db, { after: this.#after, poolId: this.#poolId, limit: PAGE });
      const last = events[events.length - 1];
      if (last !== undefined) {
        this.#after = last.seq;
        return events;
      }
      await this.#wait();
    }
    return null;
  }

  close(): void {
    this.#closed = true;
    this.#wakers.delete(this.#onEvent);
    this.#wake?.();
  }

  #wait(): Promise<void> {
    if (this.#missed || this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wake = null;
        resolve();
      };
      const timer = setTimeout(done, LOOK_EVERY_MS);
      this.#wake = done;
    });
  }
}
