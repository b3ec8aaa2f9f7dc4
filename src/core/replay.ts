/**
 * Whether a repeated run says again what its readers already have. Texts are compared, not tokens: an engine that merges
 * tokens cuts the same text in other places the next time.
 */

export type Replayed =
  /** `fresh`: what goes beyond the log, to be appended. */
  | { readonly verdict: 'same'; readonly fresh: readonly string[] }
  /** `index` of the logged token that was not repeated. */
  | { readonly verdict: 'diverged'; readonly index: number };

export class Replay {
  readonly #logged: readonly string[];
  readonly #end: number;
  #index = 0;
  /** UTF-16 units of the token at `#index` that were repeated already. */
  #offset = 0;

  /** @param logged may grow: only what it holds now is compared. */
  constructor(logged: readonly string[]) {
    this.#logged = logged;
    this.#end = logged.length;
  }

  /** Everything in the log has been repeated. */
  get done(): boolean {
    return this.#index >= this.#end;
  }

  /** First logged token that has not been repeated in full. */
  get index(): number {
    return this.#index;
  }

  /** The repeated run is over. @returns whether it said everything again; tokens without text may be merged away. */
  finish(): boolean {
    while (this.#offset === 0 && this.#logged[this.#index] === '' && !this.done) this.#index += 1;
    return this.done;
  }

  take(texts: readonly string[]): Replayed {
    if (this.done) return { verdict: 'same', fresh: texts };
    const fresh: string[] = [];
    for (const text of texts) {
      if (this.done) {
        fresh.push(text);
        continue;
      }
      const rest = this.#compare(text);
      if (rest === null) return { verdict: 'diverged', index: this.#index };
      if (rest !== '') fresh.push(rest);
    }
    return { verdict: 'same', fresh };
  }

  /** @returns what is left of the text behind the log; null when it differs. */
  #compare(text: string): string | null {
    // An empty text stands for a token whose bytes come later; it repeats one of its kind.
    if (text === '') {
      if (this.#offset === 0 && this.#logged[this.#index] === '') this.#index += 1;
      return '';
    }
    let rest = text;
    while (rest !== '' && !this.done) {
      const expected = (this.#logged[this.#index] ?? '').slice(this.#offset);
      const shared = Math.min(expected.length, rest.length);
      if (!rest.startsWith(expected.slice(0, shared))) return null;
      rest = rest.slice(shared);
      this.#offset += shared;
      if (shared === expected.length) {
        this.#index += 1;
        this.#offset = 0;
      }
    }
    return rest;
  }
}
