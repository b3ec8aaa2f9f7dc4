/**
 * The frames of `POST /completion` with `stream: true`.
 *
 * A middle frame is `{"content":" She","stop":false,"tokens_predicted":1,…}`, the last one is
 * `{"content":"","stop":true,"stop_type":"limit","tokens_predicted":8,"tokens_evaluated":18,"timings":{…},…}`, and only
 * that one ends a stream. Bytes of an unfinished character send no frame: they come with the token that completes it,
 * and `tokens_predicted` has leapt by then.
 */
import type { Failures } from '../failure.js';
import { FrameReader, isCount, isRecord } from '../frames.js';
import { RunningCount } from '../usage.js';

interface Frame {
  readonly content: string;
  readonly stop: boolean;
  readonly tokens_predicted?: unknown;
}

interface LastFrame extends Frame {
  readonly stop_type: string;
  readonly tokens_predicted: number;
  readonly tokens_evaluated: number;
  readonly model?: string;
  readonly timings: { readonly predicted_ms: number };
}

/**
 * The middle frame as llama-server writes it when its text needs no escapes, which is nearly every one: told by its
 * whole shape, it gives its text at a tenth of what JSON.parse costs. Anything else goes the long way.
 */
const PLAIN_MIDDLE_FRAME =
  /^\{"index":0,"content":"([^"\\\p{Cc}]+)","tokens":\[(?:\d+(?:,\d+)*)?\],"stop":false,"id_slot":-?\d+,"tokens_predicted":(\d+),"tokens_evaluated":\d+\}$/u;

export class LlamaCppFrames extends FrameReader {
  readonly #expectedModelId: string | undefined;
  readonly #count = new RunningCount();

  constructor(failures: Failures, expectedModelId?: string) {
    super(failures);
    this.#expectedModelId = expectedModelId;
  }

  protected readOne(payload: string): void {
    const [, text, predicted] = PLAIN_MIDDLE_FRAME.exec(payload) ?? [];
    if (text !== undefined) return this.#middle(text, Number(predicted));
    const frame = this.json(payload, isFrame);
    if (frame === undefined) return;
    if (frame.stop) this.#last(frame);
    else this.#middle(frame.content, frame.tokens_predicted);
  }

  #middle(text: string, predicted: unknown): void {
    // A progress report about the prompt counts no token yet. A text held back as a possible stop word counts one.
    if (text === '' && predicted === 0) return;
    if (isCount(predicted)) {
      const verdict = this.#count.next(predicted, !isAsciiText(text));
      if (verdict !== 'ok') return this.malformed(`a token is ${verdict} before number ${predicted + 1}`);
    }
    if (text !== '') this.token(text);
  }

  #last(frame: Frame): void {
    if (!isLastFrame(frame)) return this.malformed('the last frame of unknown shape');
    if (this.#expectedModelId !== undefined && frame.model !== undefined && frame.model !== this.#expectedModelId) {
      return this.malformed(`it answers as model '${frame.model}', not '${this.#expectedModelId}'`);
    }
    if (frame.content !== '') this.token(frame.content);
    const verdict = this.#count.end(frame.tokens_predicted);
    if (verdict === 'missing') return this.malformed('a token is missing before the end');
    this.end({
      finishReason: frame.stop_type === 'limit' ? 'length' : 'stop',
      tokensIn: frame.tokens_evaluated,
      tokensOut: frame.tokens_predicted,
      decodeMs: frame.timings.predicted_ms,
    });
  }
}

function isAsciiText(text: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the range is ASCII, of which these are part
  return /^[\x00-\x7f]*$/.test(text);
}

function isFrame(value: unknown): value is Frame {
  return isRecord(value) && typeof value.content === 'string' && typeof value.stop === 'boolean';
}

function isLastFrame(value: Frame): value is LastFrame {
  const frame = value as Partial<LastFrame>;
  return (
    typeof frame.stop_type === 'string' &&
    isCount(frame.tokens_predicted) &&
    isCount(frame.tokens_evaluated) &&
    typeof frame.timings?.predicted_ms === 'number'
  );
}
