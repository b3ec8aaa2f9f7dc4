/**
 * The frames of `POST /generate_stream`.
 *
 * Every generated token has a frame, numbered from 1:
 * `{"index":1,"token":{"id":2296,"text":" She","logprob":-0.51,"special":false},"generated_text":null,"details":null}`.
 * The text is empty while the bytes of a character are incomplete. The last frame carries the last token, a
 * `generated_text`, and `details` when they were asked for; only that one ends a stream, there is no `[DONE]`. Special
 * tokens such as end-of-sequence are not part of `generated_text`, so here they are tokens without text.
 */
import type { Failures } from '../failure.js';
import { FrameReader, isCount, isRecord } from '../frames.js';
import type { ClaimedEnd } from '../usage.js';

interface Frame {
  readonly index: number;
  readonly token: { readonly text: string; readonly special: boolean };
  readonly generated_text: string | null;
  readonly details?: unknown;
}

const FINISH_REASONS: ReadonlyMap<unknown, ClaimedEnd['finishReason']> = new Map([
  ['length', 'length'],
  ['eos_token', 'stop'],
  ['stop_sequence', 'stop'],
]);

/**
 * The server decodes a longer request in runs of so many tokens, each prompted with what came before, and only asks
 * between two runs whether there are enough: it goes past the length unless that is a multiple of this.
 */
const TOKENS_PER_RUN = 1024;

/** The frame of an ordinary token in the middle, whose text needs no escapes: told by its whole shape, without parsing. */
const PLAIN_MIDDLE_FRAME =
  /^\{"index":(\d+),"token":\{"id":\d+,"text":"([^"\\\p{Cc}]*)","logprob":(?:-?[\d.]+(?:e-?\d+)?|null),"special":false\},"generated_text":null,"details":null\}$/u;

export class TgiFrames extends FrameReader {
  readonly #maxTokens: number;
  #index = 0;
  #isCutShort = false;

  constructor(failures: Failures, maxTokens: number) {
    super(failures);
    this.#maxTokens = maxTokens;
  }

  override get cutShort(): boolean {
    return this.#isCutShort;
  }

  protected readOne(payload: string): void {
    const [, index, text] = PLAIN_MIDDLE_FRAME.exec(payload) ?? [];
    if (text !== undefined) {
      if (this.#token(Number(index), text)) this.#endAtLength();
      return;
    }
    const frame = this.json(payload, isFrame);
    if (frame === undefined) return;
    const { token } = frame;
    if (!this.#token(frame.index, token.special ? '' : token.text)) return;
    if (frame.generated_text === null) this.#endAtLength();
    else this.#last(frame.details);
  }

  /** False when the frame is out of turn; the stream is then broken. */
  #token(index: number, text: string): boolean {
    if (index !== this.#index + 1) {
      const verdict = index <= this.#index ? 'repeated' : 'missing';
      this.malformed(`a token is ${verdict}: number ${index} after number ${this.#index}`);
      return false;
    }
    this.#index = index;
    this.token(text);
    return true;
  }

  /** Ends a request of several runs where it should end: the server would go on, so nobody tells the prompt's length. */
  #endAtLength(): void {
    if (this.#index < this.#maxTokens || this.#maxTokens <= TOKENS_PER_RUN) return;
    this.#isCutShort = true;
    this.end({ finishReason: 'length', tokensIn: null, tokensOut: this.#index, decodeMs: null });
  }

  #last(details: unknown): void {
    const finishReason = isRecord(details) ? FINISH_REASONS.get(details.finish_reason) : undefined;
    if (!isRecord(details) || finishReason === undefined || !isCount(details.generated_tokens)) {
      return this.malformed('the last frame of unknown shape');
    }
    const { generated_tokens: tokensOut, input_length: tokensIn } = details;
    this.end({ finishReason, tokensIn: isCount(tokensIn) ? tokensIn : null, tokensOut, decodeMs: null });
  }
}

function isFrame(value: unknown): value is Frame {
  return (
    isRecord(value) &&
    isCount(value.index) &&
    isRecord(value.token) &&
    typeof value.token.text === 'string' &&
    typeof value.token.special === 'boolean' &&
    (value.generated_text === null || typeof value.generated_text === 'string')
  );
}
