/** Parsed documents by their text, for clients that send the same ones again. Whoever sends others each time fills no memory. */

interface DocumentCacheLimits {
  /** Of all texts together, in UTF-16 units; a document takes up to 250 bytes for each. */
  readonly maxChars: number;
  /** Longer ones are not kept. */
  readonly maxCharsEach: number;
}

const LIMITS: DocumentCacheLimits = { maxChars: 32 * 1024, maxCharsEach: 8 * 1024 };

export class DocumentCache<T> {
  readonly #limits: DocumentCacheLimits;
  /** The least recently used first. */
  readonly #kept = new Map<string, T>();
  #chars = 0;

  constructor(limits = LIMITS) {
    this.#limits = limits;
  }

  get(text: string): T | undefined {
    const value = this.#kept.get(text);
    if (value === undefined) return undefined;
    this.#kept.delete(text);
    this.#kept.set(text, value);
    return value;
  }

  set(text: string, value: T): void {
    if (text.length > this.#limits.maxCharsEach) return;
    this.#forget(text);
    this.#kept.set(text, value);
    this.#chars += text.length;
    for (const oldest of this.#kept.keys()) {
      if (this.#chars <= this.#limits.maxChars) break;
      this.#forget(oldest);
    }
  }

  #forget(text: string): void {
    if (this.#kept.delete(text)) this.#chars -= text.length;
  }
}

/** Documents that cannot be parsed are not worth keeping. */
export const NO_CACHE = { get: () => undefined, set: () => {} };
