/** Who follows an operation: first the present state, then every change as it is written, no gap. */
import { isOver } from '../../core/operation.js';
import type { Database } from '../../store/database.js';
import { type OperationRecord, readOperation } from '../../store/operations.js';

/** Operations of another node are found by looking; our own are told at once. */
const LOOK_EVERY_MS = 1_000;

type Listener = (record: OperationRecord) => void;

export class OperationFeed {
  readonly #listeners = new Map<string, Set<Listener>>();

  /** @returns how to leave. */
  listen(id: string, listener: Listener): () => void {
    const listeners = this.#listeners.get(id) ?? new Set();
    this.#listeners.set(id, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(id) === listeners) this.#listeners.delete(id);
    };
  }

  publish(record: OperationRecord): void {
    for (const listener of [...(this.#listeners.get(record.id) ?? [])]) listener(record);
  }
}

/** One reader of one operation. Its calls must not overlap. Always `close()` it. */
export class OperationReader {
  readonly #db: Database;
  readonly #id: string;
  readonly #leave: () => void;
  /** Bounded: an operation changes twice per step of its plan, and three times more. */
  #told: OperationRecord[] = [];
  #seen = -1;
  #over = false;
  #wake: (() => void) | null = null;

  constructor(db: Database, id: string, feed: OperationFeed) {
    this.#db = db;
    this.#id = id;
    // Before the first read of the row: a change that comes between is told here, and known by its revision.
    this.#leave = feed.listen(id, (record) => {
      this.#told.push(record);
      this.#wake?.();
    });
  }

  /** The next states, at least one; null after the terminal one, after close, or when there is no such row. */
  async next(): Promise<readonly OperationRecord[] | null> {
    while (!this.#over) {
      const news = this.#unseen(this.#seen < 0 ? await this.#look() : await this.#changes());
      const last = news.at(-1);
      if (last !== undefined) {
        this.#seen = last.revision;
        if (isOver(last.state)) this.close();
        return news;
      }
      await this.#wait();
    }
    return null;
  }

  close(): void {
    this.#over = true;
    this.#leave();
    this.#wake?.();
  }

  /** What was told, or what the row says; of that, too, what is told while the row is read comes first. */
  async #changes(): Promise<OperationRecord[]> {
    if (this.#told.length > 0) return this.#told.splice(0);
    const found = await this.#look();
    const told = this.#told.splice(0);
    return [...told, ...found.filter(({ revision }) => revision > (told.at(-1)?.revision ?? -1))];
  }

  async #look(): Promise<OperationRecord[]> {
    const row = await readOperation(this.#db, this.#id);
    if (row !== null) return [row];
    this.close();
    return [];
  }

  #unseen(records: readonly OperationRecord[]): OperationRecord[] {
    return records.filter((record) => record.revision > this.#seen);
  }

  #wait(): Promise<void> {
    if (this.#told.length > 0 || this.#over) return Promise.resolve();
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
