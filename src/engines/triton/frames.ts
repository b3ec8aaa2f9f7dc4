/**
 * The frames of `POST /v2/models/M/generate_stream`.
 *
 * All look alike: `{"id":"42","model_name":"M","model_version":"1","sequence_end":false,"sequence_id":0,
 * "sequence_start":false,"text_output":" She"}`. They carry no token id and no finish reason, and the end is the end of
 * the body, nothing else; a body that is cut does not end but fails. Newer models add, on request, `num_input_tokens`
 * and `num_output_tokens`, the latter of this frame alone. Where they do not, a frame is a token: also an empty one, for
 * a special token, except the last, which is often there to say nothing. In a stream the backend sends new tokens only,
 * whatever `exclude_input_in_output` says, so the prompt never comes back.
 */
import type { Failures } from '../failure.js';
import { FrameReader, isCount, isRecord } from '../frames.js';

interface Frame {
  readonly model_name: string;
  readonly text_output: string;
  readonly num_input_tokens?: unknown;
  readonly num_output_tokens?: unknown;
}

export class TritonFrames extends FrameReader {
  readonly #model: string;
  readonly #maxTokens: number;
  #tokens = 0;
  #toldIn: number | null = null;
  #toldOut: number | null = null;
  #hasFrame = false;
  /** An empty frame came: a token if another frame follows, the end of the stream if none does. */
  #holdsEmpty = false;

  constructor(failures: Failures, model: string, maxTokens: number) {
    super(failures);
    this.#model = model;
    this.#maxTokens = maxTokens;
  }

  protected readOne(payload: string): void {
    const frame = this.json(payload, isFrame);
    if (frame === undefined) return;
    const { model_name: model, text_output: text } = frame;
    if (model !== this.#model) return this.malformed(`it answers as model '${model}', not '${this.#model}'`);
    this.#hasFrame = true;
    if (this.#holdsEmpty) this.#token('');
    this.#count(frame);
    this.#holdsEmpty = text === '' && frame.num_output_tokens !== 0;
    if (text !== '') this.#token(text);
  }

  protected override readEof(): void {
    if (!this.#hasFrame) return super.readEof();
    const finishReason = (this.#toldOut ?? this.#tokens) >= this.#maxTokens ? 'length' : 'stop';
    this.end({ finishReason, tokensIn: this.#toldIn, tokensOut: this.#toldOut, decodeMs: null });
  }

  #count({ num_input_tokens: tokensIn, num_output_tokens: tokens }: Frame): void {
    if (isCount(tokensIn)) this.#toldIn = tokensIn;
    if (isCount(tokens)) this.#toldOut = (this.#toldOut ?? 0) + tokens;
  }

  #token(text: string): void {
    this.#tokens += 1;
    this.token(text);
  }
}

function isFrame(value: unknown): value is Frame {
  return isRecord(value) && typeof value.model_name === 'string' && typeof value.text_output === 'string';
}
