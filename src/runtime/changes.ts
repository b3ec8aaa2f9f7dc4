/** Lets others wait for something that one object knows: it tells of every change, they look whether it is what they want. */
export class Changes {
  readonly #listeners = new Set<() => void>();

  tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Resolves when the condition holds, or with the abort. */
  async until(condition: () => boolean, signal?: AbortSignal): Promise<void> {
    while (!condition() && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const done = () => {
          this.#listeners.delete(done);
          signal?.removeEventListener('abort', done);
          resolve();
        };
        this.#listeners.add(done);
        signal?.addEventListener('abort', done);
      });
    }
  }
}
