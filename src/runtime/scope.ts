/** The close stack: whatever opens something pushes its closer at once; closers run in reverse, every one is tried. */

export type Closer = () => Promise<void> | void;

export class Scope implements AsyncDisposable {
  readonly #closers: { name: string; close: Closer }[] = [];
  readonly #onStep: (name: string, error: unknown) => void;
  #closed: Promise<void> | null = null;

  /** @param onStep told of each closer after it ran, with what it threw (undefined: nothing). */
  constructor(onStep: (name: string, error: unknown) => void = () => {}) {
    this.#onStep = onStep;
  }

  defer(name: string, close: Closer): void {
    if (this.#closed !== null) throw new Error(`scope is closed; ${name} would leak`);
    this.#closers.push({ name, close });
  }

  /** Runs every closer once, last opened first. Rejects with the first failure after all were tried. */
  close(): Promise<void> {
    this.#closed ??= this.#run();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(): Promise<void> {
    let first: unknown;
    for (let item = this.#closers.pop(); item !== undefined; item = this.#closers.pop()) {
      let failure: unknown;
      try {
        await item.close();
      } catch (error) {
        failure = error;
        first ??= error;
      }
      this.#onStep(item.name, failure);
    }
    if (first !== undefined) throw first;
  }
}
