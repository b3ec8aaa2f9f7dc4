/**
 * Group commit: items that arrive while one batch is being written form the next batch. Nobody waits for company; a
 * lone item is written at once.
 */
export interface BatcherOptions<Item, Result> {
  readonly maxItems: number;
  /** Items waiting beyond this are refused, so that memory stays bounded when the other side is slow. */
  readonly maxWaiting: number;
  readonly write: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly overflow: () => Error;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>;
  #waiting: Waiting<Item, Result>[] = [];
  #writing = false;

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options;
  }

  submit(item: Item): Promise<Result> {
    if (this.#waiting.length >= this.#options.maxWaiting) return Promise.reject(this.#options.overflow());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      if (!this.#writing) {
        this.#writing = true;
        // One turn of the event loop lets callers of the same turn share the first batch.
        setImmediate(() => void this.#drain());
      }
    });
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.slice(0, this.#options.maxItems);
      this.#waiting = this.#waiting.slice(batch.length);
      await this.#writeOne(batch);
    }
    this.#writing = false;
  }

  async #writeOne(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#options.write(batch.map((waiting) => waiting.item));
      batch.forEach((waiting, index) => {
        const result = results[index];
        if (result === undefined) waiting.reject(new Error('the batch gave no result for an item'));
        else waiting.resolve(result);
      });
    } catch (error) {
      for (const waiting of batch) waiting.reject(error);
    }
  }
}
