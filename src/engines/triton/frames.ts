/**
 * The frames of `POST /v2/models/M/generate_stream`.
 *
 * All look alike: `{"id":"42","model_name":"M","model_version":"1","sequence_end":false,"sequence_id":0,
 * "sequence_start":false,"text_output":" She"}`. They carry no token id, no count and no finish reason, and the end is
 * the end of the body, nothing else; a body that is cut does not end but fails. A token without text (end of sequence,
 * another special one) has a frame too, so the last frame is often empty: that one counts as no token. In a stream the
 * backend sends new tokens only, whatever `exclude_input_in_output` says, so the prompt never comes back.
 */
import type { Failures } from '../failure.js';
import { FrameReader, isRecord } from '../frames.js';

interface Frame {
  readonly model_name: string;
  readonly text_output: string;
}

export class TritonFrames extends FrameReader {
  readonly #model: string;
  readonly #maxTokens: number;
  #tokens = 0;
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
    this.#holdsEmpty = text === '';
    if (text !== '') this.#token(text);
  }

  protected override readEof(): void {
    if (!this.#hasFrame) return super.readEof();
    const finishReason = this.#tokens >= this.#maxTokens ? 'length' : 'stop';
    this.end({ finishReason, tokensIn: null, tokensOut: null, decodeMs: null });
  }

  #token(text: string): void {
    this.#tokens += 1;
    this.token(text);
  }
}

function isFrame(value: unknown): value is Frame {
  return isRecord(value) && typeof value.model_name === 'string' && typeof value.text_output === 'string';
}
