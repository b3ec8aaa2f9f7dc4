/**
 * Calls in their order, so many in one turn of the event loop. One event may wake thousands; taken together they would
 * hold the loop, and between two turns of it Node accepts a single connection: a herd that comes back would starve at the
 * door. What was added while earlier ones wait finds more to do when its turn comes, and does it at once.
 */
export class Turns {
  readonly #perTurn: number;
  #left: number;
  #waiting: (() => void)[] = [];
  #next = 0;
  #scheduled = false;

  constructor(perTurn: number) {
    this.#perTurn = perTurn;
    this.#left = perTurn;
  }

  /** Calls at once while this turn has room, else in one that follows. The caller bounds how many wait. */
  add(call: () => void): void {
    if (this.#left === 0) {
      this.#waiting.push(call);
      return;
    }
    this.#left -= 1;
    this.#schedule();
    call();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#scheduled = false;
    this.#left = this.#perTurn;
    while (this.#left > 0) {
      const call = this.#waiting[this.#next];
      if (call === undefined) break;
      this.#next += 1;
      this.#left -= 1;
      call();
    }
    if (this.#next === this.#waiting.length) {
      this.#waiting = [];
      this.#next = 0;
    }
    if (this.#left < this.#perTurn) this.#schedule();
  }
}
