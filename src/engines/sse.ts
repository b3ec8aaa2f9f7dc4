/**
 * Server-Sent Events as engines send them: socket chunks in, the `data` payloads they complete out. Comments
 * (keep-alives) and unknown fields vanish. Both the unfinished event and the whole stream are bounded, because the
 * other side is a process that may be broken.
 */
import { isAscii } from 'node:buffer';
import { createParser, type EventSourceParser } from 'eventsource-parser';

interface SseLimits {
  /** Largest single event, in UTF-16 units of its text. */
  readonly maxEventChars: number;
  /** Largest whole stream, in bytes off the socket. */
  readonly maxTotalBytes: number;
}

export const DEFAULT_MAX_EVENT_CHARS = 1024 * 1024;

export class SseError extends Error {
  readonly kind: 'event_too_large' | 'stream_too_large' | 'bad_utf8';
  constructor(kind: SseError['kind'], message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'SseError';
    this.kind = kind;
  }
}

export class SseReader {
  readonly #limits: SseLimits;
  readonly #parser: EventSourceParser;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  #payloads: string[] = [];
  #totalBytes = 0;
  #overflow = false;
  /** The last chunk ended inside or right after a multi-byte character, so the decoder may hold bytes back. */
  #decoderMayHold = false;

  constructor(limits: SseLimits) {
    this.#limits = limits;
    this.#parser = createParser({
      maxBufferSize: limits.maxEventChars,
      onEvent: ({ data }) => {
        if (data.length > limits.maxEventChars) this.#overflow = true;
        else this.#payloads.push(data);
      },
      onError: (error) => {
        if (error.type === 'max-buffer-size-exceeded') this.#overflow = true;
      },
    });
  }

  /** Payloads completed by this chunk, in order; often none, often many. Throws SseError; the reader is then dead. */
  push(chunk: Buffer): readonly string[] {
    this.#totalBytes += chunk.length;
    if (this.#totalBytes > this.#limits.maxTotalBytes) {
      throw new SseError('stream_too_large', `the stream is larger than ${this.#limits.maxTotalBytes} bytes`);
    }
    this.#payloads = [];
    this.#parser.feed(this.#decode(chunk));
    if (this.#overflow) {
      throw new SseError('event_too_large', `an event is larger than ${this.#limits.maxEventChars} characters`);
    }
    return this.#payloads;
  }

  /** Call at EOF: a character cut in half is an error, an event without its closing blank line is dropped. */
  end(): void {
    try {
      this.#decoder.decode();
    } catch (cause) {
      throw new SseError('bad_utf8', 'the stream ends inside a UTF-8 character', { cause });
    }
  }

  // Token frames are nearly always ASCII, and Latin-1 decoding of ASCII is several times faster than TextDecoder.
  #decode(chunk: Buffer): string {
    if (!this.#decoderMayHold && isAscii(chunk)) return chunk.toString('latin1');
    const lastByte = chunk[chunk.length - 1];
    if (lastByte !== undefined) this.#decoderMayHold = lastByte >= 0x80;
    try {
      return this.#decoder.decode(chunk, { stream: true });
    } catch (cause) {
      throw new SseError('bad_utf8', 'the stream is not valid UTF-8', { cause });
    }
  }
}
