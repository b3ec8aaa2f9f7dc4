/** What a scenario and its control planes said to each other, in the order in which it began. */

/** A scenario asks again and again until it sees what it waits for; what stays the same is kept once. */
const MAX_RECORDS = 500;

/** One exchange; its answer comes later, or never. */
export type Exchange = Record<string, unknown> & { at: string; times?: number };

export class Transcript {
  readonly #records: Exchange[] = [];
  #leftOut = 0;

  /** Keeps what was asked before there is an answer. */
  begin(asked: Record<string, unknown>): Exchange {
    const exchange: Exchange = { at: new Date().toISOString(), ...asked };
    this.#records.push(exchange);
    this.#bound();
    return exchange;
  }

  /** Adds what became of it. One that is the same as the one just before it is counted there, and not kept. */
  end(exchange: Exchange, answered: Record<string, unknown>): void {
    Object.assign(exchange, answered);
    const place = this.#records.indexOf(exchange);
    const before = this.#records[place - 1];
    if (before === undefined || bare(before) !== bare(exchange)) return;
    before.times = (before.times ?? 1) + 1;
    this.#records.splice(place, 1);
  }

  toJSON(): unknown {
    const note = { leftOut: `${this.#leftOut} exchanges, after the first ${MAX_RECORDS / 2}` };
    if (this.#leftOut === 0) return this.#records;
    return [...this.#records.slice(0, MAX_RECORDS / 2), note, ...this.#records.slice(MAX_RECORDS / 2)];
  }

  /** The first tell how it came about, the last how it ended. */
  #bound(): void {
    if (this.#records.length <= MAX_RECORDS) return;
    this.#records.splice(MAX_RECORDS / 2, 1);
    this.#leftOut += 1;
  }
}

function bare({ at: _at, times: _times, ...rest }: Exchange): string {
  return JSON.stringify(rest);
}
