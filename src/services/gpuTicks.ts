/** The rhythm in which a subscriber is told of GPUs: at once, then after each interval. */
import { invalid, RefusalError } from '../core/errors.js';
import { delay } from '../runtime/wait.js';

const MIN_INTERVAL_MS = 250;
const MAX_INTERVAL_MS = 60_000;

/** One subscriber's. Its calls must not overlap. Always `close()` it. */
export class GpuTicks {
  readonly #intervalMs: number;
  readonly #closing = new AbortController();
  #begun = false;

  /** @throws RefusalError invalid */
  constructor(intervalMs: number) {
    if (!Number.isInteger(intervalMs) || intervalMs < MIN_INTERVAL_MS || intervalMs > MAX_INTERVAL_MS) {
      const message = `must be ${MIN_INTERVAL_MS} to ${MAX_INTERVAL_MS} ms, got ${intervalMs}`;
      throw new RefusalError(invalid('intervalMs', message));
    }
    this.#intervalMs = intervalMs;
  }

  /** One tick; null after close. Nothing is read while nobody asks for it. */
  async next(): Promise<readonly ['tick'] | null> {
    const { signal } = this.#closing;
    if (this.#begun) await delay(this.#intervalMs, signal);
    this.#begun = true;
    return signal.aborted ? null : ['tick'];
  }

  close(): void {
    this.#closing.abort();
  }
}
