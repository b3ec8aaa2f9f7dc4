/**
 * The frames of one streamed completion, told in our words. Pure: payloads in, frames out. A dialect says what one
 * payload means (`readOne`) and what an EOF means (`readEof`); the rules of every stream are kept here.
 */
import type { TokenFrame } from './adapter.js';
import type { EngineError, Failures, Phase } from './failure.js';
import type { ClaimedEnd } from './usage.js';

export abstract class FrameReader {
  protected readonly failures: Failures;
  #tokens: TokenFrame[] = [];
  #phase: Phase = 'before_first_token';
  #claimedEnd: ClaimedEnd | null = null;
  #failure: EngineError | null = null;

  constructor(failures: Failures) {
    this.failures = failures;
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** The engine's statement that it is done; nothing after that counts. Follows the tokens that `read` returned. */
  get claimedEnd(): ClaimedEnd | null {
    return this.#claimedEnd;
  }

  /** The end is ours: the engine would go on, and its connection must be cut. */
  get cutShort(): boolean {
    return false;
  }

  /** Why the stream is broken; follows the tokens that `read` returned. */
  get failure(): EngineError | null {
    return this.#failure;
  }

  /** Reads payloads in order, up to the end or the first broken one. */
  read(payloads: readonly string[]): readonly TokenFrame[] {
    for (const payload of payloads) {
      if (this.#isOver()) break;
      this.readOne(payload);
    }
    return this.#take();
  }

  /** The body is over. Fails unless the stream had ended, or ends here by this engine's rule. */
  eof(): readonly TokenFrame[] {
    if (!this.#isOver()) this.readEof();
    return this.#take();
  }

  protected abstract readOne(payload: string): void;

  protected readEof(): void {
    this.fail(this.failures.transport('reset', 'the stream ends without the engine saying so', this.#phase));
  }

  protected token(text: string): void {
    this.#phase = 'streaming';
    this.#tokens.push({ kind: 'token', text: storable(text) });
  }

  protected end(claimed: ClaimedEnd): void {
    this.#claimedEnd ??= claimed;
  }

  protected fail(error: EngineError): void {
    this.#failure ??= error;
  }

  protected malformed(detail: string, cause?: unknown): void {
    this.fail(this.failures.malformed(detail, this.#phase, cause));
  }

  /** The payload as JSON, checked by hand: this runs once per token. Undefined when it is broken; the stream is then too. */
  protected json<T>(payload: string, isFrame: (value: unknown) => value is T): T | undefined {
    let value: unknown;
    try {
      value = JSON.parse(payload);
    } catch (cause) {
      this.malformed('a frame is not JSON', cause);
      return undefined;
    }
    if (isFrame(value)) return value;
    const said = this.failures.frame(value, this.#phase);
    if (said === null) this.malformed('a frame of unknown shape');
    else this.fail(said);
    return undefined;
  }

  #isOver(): boolean {
    return this.#claimedEnd !== null || this.#failure !== null;
  }

  #take(): readonly TokenFrame[] {
    const tokens = this.#tokens;
    this.#tokens = [];
    return tokens;
  }
}

/** Neither half characters nor NUL can be stored; a healthy engine sends none. */
function storable(text: string): string {
  const whole = text.isWellFormed() ? text : text.toWellFormed();
  return whole.includes('\0') ? whole.replaceAll('\0', '\uFFFD') : whole;
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

export function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
