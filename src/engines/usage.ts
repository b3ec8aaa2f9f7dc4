/** Whether what an engine counts agrees with what it sent. Pure. */
import type { EngineEnd } from './adapter.js';

export type CountVerdict = 'ok' | 'repeated' | 'missing';

/**
 * Holds a running count of generated tokens, as some engines send it in every frame, against the frames that came.
 * Engines that decode several tokens at a time tell the count after all of them in each of their frames: such a leap is
 * paid off by frames that repeat it. `mayMerge`: the frame may stand for several tokens by itself (held-back bytes).
 */
export class RunningCount {
  #last = 0;
  #owed = 0;

  get total(): number {
    return this.#last;
  }

  next(count: number, mayMerge: boolean): CountVerdict {
    if (count < this.#last) return 'repeated';
    if (count === this.#last) {
      if (this.#owed === 0) return 'repeated';
      this.#owed -= 1;
      return 'ok';
    }
    if (this.#owed > 0) return 'missing';
    this.#owed = mayMerge ? 0 : count - this.#last - 1;
    this.#last = count;
    return 'ok';
  }

  /** @param total the engine's last word on it. */
  end(total: number): CountVerdict {
    if (total < this.#last) return 'repeated';
    return this.#owed > 0 ? 'missing' : 'ok';
  }
}

/** What an engine states at the end of a stream; null where it has no word for it. */
export interface ClaimedEnd {
  readonly finishReason: 'stop' | 'length';
  readonly tokensIn: number | null;
  readonly tokensOut: number | null;
  /** Time it says it spent decoding, ms. */
  readonly decodeMs: number | null;
}

/** What was seen of the stream from here. */
export interface SeenStream {
  readonly tokens: number;
  readonly maxTokens: number;
  readonly sinceRequestMs: number;
  readonly sinceFirstTokenMs: number;
}

/** More than any context holds; what comes after it fits into the columns that keep it. */
const MAX_PROMPT_TOKENS = 2 ** 30;
/** Its clock and ours are read at different moments, so a little more is no lie. */
const CLOCK_SLACK_MS = 50;

/**
 * Believes an engine's totals as far as they can be true: at least the tokens seen, at most the tokens asked for, and
 * no longer than the time that passed here. What is not believed is replaced by our own measure, and named.
 */
export function settleEnd(claimed: ClaimedEnd, seen: SeenStream): EngineEnd {
  const { finishReason } = claimed;
  const doubts: string[] = [];
  let { tokensIn } = claimed;
  if (tokensIn !== null && tokensIn > MAX_PROMPT_TOKENS) {
    doubts.push(`${tokensIn} prompt tokens`);
    tokensIn = null;
  }
  let tokensOut = claimed.tokensOut ?? seen.tokens;
  if (tokensOut < seen.tokens || tokensOut > seen.maxTokens) {
    doubts.push(`${tokensOut} generated tokens (${seen.tokens} came, ${seen.maxTokens} were asked for)`);
    tokensOut = seen.tokens;
  }
  let decodeMs = claimed.decodeMs ?? seen.sinceFirstTokenMs;
  if (decodeMs < 0 || decodeMs > seen.sinceRequestMs + CLOCK_SLACK_MS) {
    doubts.push(`${Math.round(decodeMs)} ms of decoding (${Math.round(seen.sinceRequestMs)} ms have passed)`);
    decodeMs = seen.sinceFirstTokenMs;
  }
  const end: EngineEnd = { kind: 'end', finishReason, tokensIn, tokensOut, decodeMs };
  return doubts.length === 0 ? end : { ...end, disbelieved: `the engine claims ${doubts.join(' and ')}` };
}
