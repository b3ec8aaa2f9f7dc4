import { describe, expect, it } from 'vitest';
import { SseError, SseReader } from '../../src/engines/sse.js';

const KIB = 1024;
const reader = (): SseReader => new SseReader({ maxEventChars: KIB, maxTotalBytes: 8 * KIB });

function errorKind(run: () => unknown): string | null {
  try {
    run();
    return null;
  } catch (error) {
    return error instanceof SseError ? error.kind : `other: ${error}`;
  }
}

describe('SseReader', () => {
  it('groups the payloads that one chunk completes and leaves out comments and unknown fields', () => {
    const sse = reader();
    expect(sse.push(Buffer.from(':\n\ndata: 1\n\nretry: 5\ndata:2\n\nfoo: x\n\ndata: 3'))).toEqual(['1', '2']);
    expect(sse.push(Buffer.from('\n\n'))).toEqual(['3']);
    expect(sse.push(Buffer.from(':\n\n'))).toEqual([]);
  });

  it('accepts CRLF line ends', () => {
    expect(reader().push(Buffer.from('data: 1\r\n\r\ndata: 2\r\n\r\n'))).toEqual(['1', '2']);
  });

  it('bounds an event that never ends', () => {
    const sse = reader();
    sse.push(Buffer.from(`data: ${'x'.repeat(KIB / 2)}`));
    expect(errorKind(() => sse.push(Buffer.from('x'.repeat(KIB))))).toBe('event_too_large');
  });

  it('bounds an event of many lines and one that comes in a single chunk', () => {
    expect(errorKind(() => reader().push(Buffer.from(`data: ${'x'.repeat(KIB + 1)}\n\n`)))).toBe('event_too_large');
    expect(errorKind(() => reader().push(Buffer.from('data: xxxxxxxx\n'.repeat(KIB / 4))))).toBe('event_too_large');
  });

  it('bounds the stream', () => {
    const sse = reader();
    const chunk = Buffer.from('data: x\n\n'.repeat(100));
    expect(errorKind(() => Array.from({ length: 10 }, () => sse.push(chunk)))).toBe('stream_too_large');
  });

  it('refuses bytes that are not UTF-8, also when the stream ends inside a character', () => {
    expect(errorKind(() => reader().push(Buffer.from([0x64, 0xff, 0x64])))).toBe('bad_utf8');
    const sse = reader();
    sse.push(Buffer.from('data: é').subarray(0, -1));
    expect(errorKind(() => sse.end())).toBe('bad_utf8');
  });
});
