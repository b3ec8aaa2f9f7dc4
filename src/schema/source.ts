/**
 * The source of a subscription: batches of a reader, flattened. An object and not a generator, because a generator that
 * waits cannot be told to return: `return()` here closes the reader, which wakes a parked read.
 */

export interface BatchReader<Item> {
  /** At least one item; null at the end and after close. */
  next(): Promise<readonly Item[] | null>;
  close(): void;
}

/** A replay is always ready; without a pause now and then it would starve everything else in the process. */
const YIELD_EVERY = 64;

export class ReaderSource<Item> implements AsyncIterableIterator<Item> {
  readonly #reader: BatchReader<Item>;
  #batch: readonly Item[] = [];
  #index = 0;
  #sincePause = 0;
  #done = false;

  constructor(reader: BatchReader<Item>) {
    this.#reader = reader;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Item>> {
    this.#sincePause += 1;
    if (this.#sincePause >= YIELD_EVERY) {
      this.#sincePause = 0;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    while (!this.#done) {
      const item = this.#batch[this.#index];
      if (item !== undefined) {
        this.#index += 1;
        return { done: false, value: item };
      }
      await this.#refill();
    }
    return { done: true, value: undefined };
  }

  async #refill(): Promise<void> {
    try {
      const batch = await this.#reader.next();
      this.#index = 0;
      this.#batch = batch ?? [];
      if (batch === null) this.#close();
    } catch (error) {
      this.#close();
      throw error;
    }
  }

  return(): Promise<IteratorResult<Item>> {
    this.#close();
    return Promise.resolve({ done: true, value: undefined });
  }

  throw(error: unknown): Promise<IteratorResult<Item>> {
    this.#close();
    return Promise.reject(error);
  }

  #close(): void {
    if (this.#done) return;
    this.#done = true;
    this.#batch = [];
    this.#reader.close();
  }
}
