/**
 * Server-Sent Events as engines send them: socket chunks in, the `data` payloads they complete out. Comments
 * (keep-alives) vanish. Both the unfinished event and the whole stream are bounded, because the other side is a process
 * that may be broken; for the same reason a line that is no field breaks the stream: an event would be lost unnoticed.
 */
import { isAscii, isUtf8 } from 'node:buffer';
import { createParser, type EventSourceParser } from 'eventsource-parser';

interface SseLimits {
  /** Largest single event, in UTF-16 units of its text. */
  readonly maxEventChars: number;
  /** Largest whole stream, in bytes off the socket. */
  readonly maxTotalBytes: number;
}

export const DEFAULT_MAX_EVENT_CHARS = 1024 * 1024;

export class SseError extends Error {
  readonly kind: 'event_too_large' | 'stream_too_large' | 'bad_utf8' | 'bad_field';
  constructor(kind: SseError['kind'], message: string) {
    super(message);
    this.name = 'SseError';
    this.kind = kind;
  }
}

const NOTHING = Buffer.alloc(0);
/** May begin a stream, and means nothing. */
const BYTE_ORDER_MARK = Buffer.from('\uFEFF');

export class SseReader {
  readonly #limits: SseLimits;
  readonly #parser: EventSourceParser;
  #payloads: string[] = [];
  #totalBytes = 0;
  #failure: SseError | null = null;
  #begun = false;
  #endedInReturn = false;
  /** The beginning of a character that the last chunk cut. */
  #held: Buffer = NOTHING;

  constructor(limits: SseLimits) {
    this.#limits = limits;
    this.#parser = createParser({
      maxBufferSize: limits.maxEventChars,
      onEvent: ({ data }) => {
        if (data.length > limits.maxEventChars) this.#failTooLarge();
        else if (this.#failure === null) this.#payloads.push(data);
      },
      onError: ({ type }) => {
        if (type === 'max-buffer-size-exceeded') this.#failTooLarge();
        if (type === 'unknown-field') this.#fail('bad_field', 'a line is not a field of an event stream');
      },
    });
  }

  /** Why the stream is broken; follows the payloads that `push` returned. Nothing comes after it. */
  get failure(): SseError | null {
    return this.#failure;
  }

  /** Payloads completed by this chunk, in order, up to where the stream breaks; often none, often many. */
  push(chunk: Buffer): readonly string[] {
    if (this.#failure !== null) return [];
    this.#payloads = [];
    this.#totalBytes += chunk.length;
    const { maxTotalBytes } = this.#limits;
    if (this.#totalBytes > maxTotalBytes)
      this.#fail('stream_too_large', `the stream is larger than ${maxTotalBytes} bytes`);
    else this.#feed(chunk);
    return this.#payloads;
  }

  /** Call at EOF: a character cut in half is an error, an event without its closing blank line is dropped. */
  end(): void {
    if (this.#held.length > 0) this.#fail('bad_utf8', 'the stream ends inside a UTF-8 character');
  }

  // Token frames are nearly always ASCII, and Latin-1 decoding of ASCII is several times faster than UTF-8.
  #feed(chunk: Buffer): void {
    if (this.#held.length === 0 && isAscii(chunk)) {
      this.#begun ||= chunk.length > 0;
      return this.#read(chunk.toString('latin1'));
    }
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const whole = bytes.subarray(0, bytes.length - cutCharacterLength(bytes));
    this.#held = Buffer.from(bytes.subarray(whole.length));
    if (whole.length > 0) this.#feedText(whole);
  }

  #feedText(bytes: Buffer): void {
    const marked = !this.#begun && bytes.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK);
    this.#begun = true;
    const text = marked ? bytes.subarray(BYTE_ORDER_MARK.length) : bytes;
    if (isUtf8(text)) return this.#read(text.toString('utf8'));
    for (const line of linesOf(text)) {
      if (!isUtf8(line) || this.#failure !== null) break;
      this.#read(line.toString('utf8'));
    }
    this.#fail('bad_utf8', 'the stream is not valid UTF-8');
  }

  /** With line feeds alone: a carriage return at the end of a chunk may be half a line end, and the parser would wait. */
  #read(text: string): void {
    const rest = this.#endedInReturn && text.startsWith('\n') ? text.slice(1) : text;
    if (text !== '') this.#endedInReturn = text.endsWith('\r');
    this.#parser.feed(rest.includes('\r') ? rest.replace(/\r\n?/g, '\n') : rest);
  }

  #failTooLarge(): void {
    this.#fail('event_too_large', `an event is larger than ${this.#limits.maxEventChars} characters`);
  }

  #fail(kind: SseError['kind'], message: string): void {
    this.#failure ??= new SseError(kind, message);
  }
}

function* linesOf(chunk: Buffer): Generator<Buffer> {
  let start = 0;
  for (const [index, byte] of chunk.entries()) {
    if (byte !== 0x0a && byte !== 0x0d) continue;
    yield chunk.subarray(start, index + 1);
    start = index + 1;
  }
  yield chunk.subarray(start);
}

/** Bytes at the end that begin a character and do not finish it. */
function cutCharacterLength(bytes: Buffer): number {
  const most = Math.min(3, bytes.length);
  for (let length = 1; length <= most; length += 1) {
    const byte = bytes[bytes.length - length] ?? 0;
    if (byte < 0x80) return 0;
    if (byte < 0xc0) continue; // inside a character: its first byte is further left
    const size = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return size > length ? length : 0;
  }
  return 0;
}
