/**
 * The frames of `POST /completion` with `stream: true`, told in our words. Pure: payloads in, EngineFrames out.
 *
 * A middle frame is `{"content":" She","stop":false,"tokens_predicted":1,…}`, the last one is
 * `{"content":"","stop":true,"stop_type":"limit","tokens_predicted":8,"tokens_evaluated":18,"timings":{…},…}`, and only
 * that one ends a stream: an EOF before it, an error frame or anything unreadable is an EngineError.
 */
import type { EngineError, EngineFrame } from '../adapter.js';
import { envelopeError, type Phase, readEnvelope, transportError } from './errors.js';

interface MiddleFrame {
  readonly content: string;
  readonly stop: boolean;
}

interface LastFrame extends MiddleFrame {
  readonly stop_type: string;
  readonly tokens_predicted: number;
  readonly tokens_evaluated: number;
  readonly timings: { readonly predicted_ms: number };
}

/**
 * The middle frame as llama-server writes it when its text needs no escapes, which is nearly every one: told by its
 * whole shape, it gives its text at a tenth of what JSON.parse costs. Anything else goes the long way.
 */
const PLAIN_MIDDLE_FRAME =
  /^\{"index":0,"content":"([^"\\\p{Cc}]+)","tokens":\[(?:\d+(?:,\d+)*)?\],"stop":false,"id_slot":-?\d+,"tokens_predicted":\d+,"tokens_evaluated":\d+\}$/u;

export class CompletionFrames {
  #phase: Phase = 'before_first_token';
  #ended = false;
  #failure: EngineError | null = null;

  get phase(): Phase {
    return this.#phase;
  }

  /** The last frame has been read; nothing after it counts. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Why the stream is broken; set only after every frame that came before the break has been returned. */
  get failure(): EngineError | null {
    return this.#failure;
  }

  /** Reads payloads in order, up to the end or the first broken one. Look at `failure` after passing the result on. */
  read(payloads: readonly string[]): readonly EngineFrame[] {
    const frames: EngineFrame[] = [];
    for (const payload of payloads) {
      if (this.#ended || this.#failure !== null) break;
      this.#readOne(payload, frames);
    }
    return frames;
  }

  /** The error an EOF at this point is, or null when the stream had ended. */
  atEof(): EngineError | null {
    if (this.#ended) return null;
    return this.#failure ?? transportError('reset', 'the stream ends without its last frame', this.#phase);
  }

  #readOne(payload: string, frames: EngineFrame[]): void {
    const plain = PLAIN_MIDDLE_FRAME.exec(payload)?.[1];
    if (plain !== undefined) {
      this.#phase = 'streaming';
      frames.push({ kind: 'token', text: plain });
      return;
    }
    let value: unknown;
    try {
      value = JSON.parse(payload);
    } catch (cause) {
      this.#failure = transportError('malformed', 'a frame is not JSON', this.#phase, cause);
      return;
    }
    if (!isMiddleFrame(value)) {
      const envelope = readEnvelope(value);
      this.#failure =
        envelope === null
          ? transportError('malformed', 'a frame of unknown shape', this.#phase)
          : envelopeError(envelope, this.#phase);
      return;
    }
    // Empty content stands for no token of ours: a prompt progress report, or text held back as a possible stop word.
    // Text held back as incomplete UTF-8 sends no frame at all and comes with the token that completes it.
    if (value.content !== '') {
      this.#phase = 'streaming';
      frames.push({ kind: 'token', text: value.content });
    }
    if (value.stop) this.#readLast(value, frames);
  }

  #readLast(value: MiddleFrame, frames: EngineFrame[]): void {
    if (!isLastFrame(value)) {
      this.#failure = transportError('malformed', 'the last frame of unknown shape', this.#phase);
      return;
    }
    this.#ended = true;
    frames.push({
      kind: 'end',
      finishReason: value.stop_type === 'limit' ? 'length' : 'stop',
      tokensIn: value.tokens_evaluated,
      tokensOut: value.tokens_predicted,
      decodeMs: value.timings.predicted_ms,
    });
  }
}

// Checked by hand, not by a schema: this runs once per token.
function isMiddleFrame(value: unknown): value is MiddleFrame {
  if (typeof value !== 'object' || value === null) return false;
  const frame = value as Partial<MiddleFrame>;
  return typeof frame.content === 'string' && typeof frame.stop === 'boolean';
}

function isLastFrame(value: MiddleFrame): value is LastFrame {
  const frame = value as Partial<LastFrame>;
  return (
    typeof frame.stop_type === 'string' &&
    isCount(frame.tokens_predicted) &&
    isCount(frame.tokens_evaluated) &&
    typeof frame.timings?.predicted_ms === 'number'
  );
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
