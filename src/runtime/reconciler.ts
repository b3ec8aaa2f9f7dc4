/**
 * Runs one idempotent function again and again: after every wake-up and at the latest after the interval, never two at
 * a time. It takes no input (truth is read again each time), and its retry is its next run.
 */
export interface ReconcilerOptions {
  readonly name: string;
  readonly intervalMs: number;
  readonly run: (signal: AbortSignal) => Promise<void>;
  readonly onError: (name: string, error: unknown) => void;
}

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #abort = new AbortController();
  #woken = false;
  #wakeSleeper: (() => void) | null = null;
  #loop: Promise<void> | null = null;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Asks for a run soon. Cheap, and safe at any time; wakes that come during a run lead to one more run. */
  wake(): void {
    this.#woken = true;
    this.#wakeSleeper?.();
  }

  /** Ends the loop after the run in progress, whose signal is aborted. */
  async stop(): Promise<void> {
    this.#abort.abort();
    this.#wakeSleeper?.();
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (!this.#abort.signal.aborted) {
      this.#woken = false;
      try {
        await this.#options.run(this.#abort.signal);
      } catch (error) {
        if (!this.#abort.signal.aborted) this.#options.onError(this.#options.name, error);
      }
      await this.#sleep();
    }
  }

  #sleep(): Promise<void> {
    if (this.#woken || this.#abort.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wakeSleeper = null;
        resolve();
      };
      const timer = setTimeout(done, this.#options.intervalMs);
      this.#wakeSleeper = done;
    });
  }
}
