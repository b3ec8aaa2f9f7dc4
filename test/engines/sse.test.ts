import { describe, expect, it } from 'vitest';
import { SseReader } from '../../src/engines/sse.js';

const KIB = 1024;
const reader = (): SseReader => new SseReader({ maxEventChars: KIB, maxTotalBytes: 8 * KIB });

/** What a stream of these chunks breaks with, after the payloads that came before the break. */
function broken(
  chunks: readonly (Buffer | string)[],
  sse = reader(),
): { payloads: string[]; kind: string | undefined } {
  const payloads = chunks.flatMap((chunk) => sse.push(Buffer.from(chunk)));
  sse.end();
  return { payloads, kind: sse.failure?.kind };
}

describe('SseReader', () => {
  it('groups the payloads that one chunk completes and leaves comments out', () => {
    const sse = reader();
    expect(sse.push(Buffer.from(':\n\ndata: 1\n\nretry: 5\ndata:2\n\ndata: 3'))).toEqual(['1', '2']);
    expect(sse.push(Buffer.from('\n\n'))).toEqual(['3']);
    expect(sse.push(Buffer.from(':\n\n'))).toEqual([]);
    expect(sse.failure).toBeNull();
  });

  it('accepts CRLF line ends', () => {
    expect(reader().push(Buffer.from('data: 1\r\n\r\ndata: 2\r\n\r\n'))).toEqual(['1', '2']);
  });

  it('bounds an event that never ends', () => {
    const chunks = [`data: ${'x'.repeat(KIB / 2)}`, 'x'.repeat(KIB)];
    expect(broken(chunks)).toEqual({ payloads: [], kind: 'event_too_large' });
  });

  it('bounds an event of many lines and one that comes in a single chunk', () => {
    expect(broken([`data: ${'x'.repeat(KIB + 1)}\n\n`]).kind).toBe('event_too_large');
    expect(broken(['data: xxxxxxxx\n'.repeat(KIB / 4)]).kind).toBe('event_too_large');
  });

  it('bounds the stream', () => {
    const chunk = 'data: x\n\n'.repeat(100);
    const { payloads, kind } = broken(Array.from({ length: 10 }, () => chunk));
    expect(kind).toBe('stream_too_large');
    expect(payloads.length).toBeLessThanOrEqual((8 * KIB) / 9);
  });

  it.each([
    ['a line that is no field', 'bad_field', '<html>oops</html>\n\n'],
    ['bytes that are not UTF-8', 'bad_utf8', Buffer.from([0x64, 0xff, 0x64, 0x0a, 0x0a])],
  ])('gives what came before %s, and nothing after it, however it was cut', (_name, kind, bad) => {
    const bytes = Buffer.concat([Buffer.from('data: é\n\n'), Buffer.from(bad), Buffer.from('data: 2\n\n')]);
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      expect(broken([bytes.subarray(0, cut), bytes.subarray(cut)])).toEqual({ payloads: ['é'], kind });
    }
  });

  it('refuses a stream that ends inside a character', () => {
    expect(broken([Buffer.from('data: é').subarray(0, -1)]).kind).toBe('bad_utf8');
  });
});
