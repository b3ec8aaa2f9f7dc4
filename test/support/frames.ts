/** Reads a stream of bytes as an adapter does: through the SSE parser and a dialect's frame reader. */
import type { TokenFrame } from '../../src/engines/adapter.js';
import type { FrameReader } from '../../src/engines/frames.js';
import { SseReader } from '../../src/engines/sse.js';
import type { ClaimedEnd } from '../../src/engines/usage.js';

const LIMITS = { maxEventChars: 1024 * 1024, maxTotalBytes: 64 * 1024 * 1024 };

export interface Reading {
  /** Texts of the tokens, in order. */
  readonly tokens: readonly string[];
  readonly end: ClaimedEnd | null;
  /** `CODE phase lost=…`, or what the SSE parser says. */
  readonly failure: string | null;
  readonly message: string | null;
}

/** Reads the chunks and then EOF. */
export function readStream(reader: FrameReader, chunks: readonly Buffer[]): Reading {
  const sse = new SseReader(LIMITS);
  const tokens: TokenFrame[] = [];
  for (const chunk of chunks) tokens.push(...reader.read(sse.push(chunk)));
  sse.end();
  if (sse.failure === null) tokens.push(...reader.eof());
  const { failure, claimedEnd: end } = reader;
  const told = failure && `${failure.code} ${failure.phase} lost=${failure.engineLost}`;
  const broken = end === null ? (sse.failure?.kind ?? null) : null;
  return {
    tokens: tokens.map(({ text }) => text),
    end,
    failure: told ?? broken,
    message: failure?.message ?? null,
  };
}

/** The chunks that cutting `bytes` at these places gives; places wrap around. */
export function cutAt(bytes: Buffer, places: readonly number[]): readonly Buffer[] {
  const edges = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

/** Every way to cut once, and byte by byte. */
export function* everyCut(bytes: Buffer): Generator<readonly Buffer[]> {
  for (let place = 0; place <= bytes.length; place += 1) yield cutAt(bytes, [place]);
  yield Array.from(bytes, (byte) => Buffer.from([byte]));
}
