/** Streams that no healthy engine sends: what they mean does not depend on where the socket cuts them, and the worst is told by name. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import type { FrameReader } from '../../src/engines/frames.js';
import { LLAMACPP_ERRORS } from '../../src/engines/llamacpp/errors.js';
import { LlamaCppFrames } from '../../src/engines/llamacpp/frames.js';
import { SseReader } from '../../src/engines/sse.js';
import { TGI_ERRORS } from '../../src/engines/tgi/errors.js';
import { TgiFrames } from '../../src/engines/tgi/frames.js';
import { TRITON_ERRORS } from '../../src/engines/triton/errors.js';
import { TritonFrames } from '../../src/engines/triton/frames.js';
import { VLLM_ERRORS } from '../../src/engines/vllm/errors.js';
import { VllmFrames } from '../../src/engines/vllm/frames.js';
import { cutAt, everyCut, readStream } from '../support/frames.js';

const MAX_EVENT_CHARS = 1024;
/** Sockets give at most 64 KiB at once, far less than an event may have; so here. */
const MAX_CHUNK_BYTES = 256;

function parsed(chunks: Iterable<Buffer>): { payloads: string[]; kind: string | null } {
  const sse = new SseReader({ maxEventChars: MAX_EVENT_CHARS, maxTotalBytes: 1024 * 1024 });
  const payloads: string[] = [];
  for (const chunk of chunks) payloads.push(...sse.push(chunk));
  sse.end();
  return { payloads, kind: sse.failure?.kind ?? null };
}

/** As large as they may come. */
function plain(bytes: Buffer): Buffer[] {
  const count = Math.ceil(bytes.length / MAX_CHUNK_BYTES);
  return Array.from({ length: count }, (_, index) =>
    bytes.subarray(index * MAX_CHUNK_BYTES, (index + 1) * MAX_CHUNK_BYTES),
  );
}

const lineEnd = fc.constantFrom('\n', '\r\n', '\r');
const text = fc.string({ unit: 'binary', maxLength: 6 }).map((made) => made.toWellFormed().replace(/[\r\n]/g, '.'));
const line = fc.oneof(
  { weight: 8, arbitrary: text.map((made) => `data: ${made}`) },
  { weight: 3, arbitrary: text.map((made) => `data:{"content":${JSON.stringify(made)}}`) },
  { weight: 6, arbitrary: fc.constant('') },
  fc.constantFrom(
    'data',
    'data: [DONE]',
    'event: e',
    'id: \0',
    'id: 7',
    'retry: x',
    ': comment',
    ':',
    'data: \0',
    'data: é漢😀',
  ),
  fc.constantFrom('<html>', '\uFEFFdata: x', `: ${'c'.repeat(100)}`, `data: ${'x'.repeat(3 * MAX_EVENT_CHARS)}`),
);
const bad = fc.constantFrom([0xff], [0xc3], [0xe6, 0xbc], [0xed, 0xa0, 0x80], [0xc0, 0x80]);
const piece = fc.oneof(
  { weight: 30, arbitrary: fc.tuple(line, lineEnd).map(([made, end]) => Buffer.from(made + end)) },
  { weight: 1, arbitrary: bad.map((bytes) => Buffer.from(bytes)) },
);
const stream = fc
  .tuple(fc.boolean(), fc.array(piece, { maxLength: 24 }), fc.constantFrom('', 'data: last', '\n\n'))
  .map(([marked, pieces, end]) => Buffer.concat([Buffer.from(marked ? '\uFEFF' : ''), ...pieces, Buffer.from(end)]));

describe('any stream', () => {
  it('is read the same, wherever the socket cuts it', () => {
    const cuts = fc.array(fc.nat(8_000), { maxLength: 30 });
    fc.assert(
      fc.property(stream, cuts, (bytes, places) => {
        const pieces = cutAt(bytes, places).flatMap(plain);
        expect(parsed(pieces)).toEqual(parsed(plain(bytes)));
        expect(parsed(Array.from(bytes, (byte) => Buffer.from([byte])))).toEqual(parsed(plain(bytes)));
      }),
      { numRuns: 500 },
    );
  });

  it.each<[string, string, string[], string | null]>([
    ['line ends of all three kinds', 'data: 1\r\n\r\ndata: 2\n\ndata: 3\r\rdata: 4\r\n\n', ['1', '2', '3', '4'], null],
    ['several lines, ended differently', 'data: 1\rdata: 2\r\ndata: 3\n\n', ['1\n2\n3'], null],
    ['characters of two to four bytes', 'data: é漢😀\n\n', ['é漢😀'], null],
    ['a mark of byte order at its beginning', '\uFEFFdata: 1\n\n', ['1'], null],
    ['a mark of byte order later', 'data: 1\n\n\uFEFFdata: 2\n\n', ['1'], 'bad_field'],
    ['NUL', 'data: a\0b\n\nid: a\0b\ndata: 2\n\n', ['a\0b', '2'], null],
    ['no blank line at its end', 'data: 1\n\ndata: 2\n', ['1'], null],
    ['a page instead', '<!doctype html>\n<html><body>502 Bad Gateway</body></html>\n', [], 'bad_field'],
    ['a page after an event', 'data: 1\n\n<html>\n\ndata: 2\n\n', ['1'], 'bad_field'],
    ['a line that never ends', `data: 1\n\ndata: ${'x'.repeat(10_000)}`, ['1'], 'event_too_large'],
    ['an event of lines without end', `data: 1\n\n${'data: xxxxxxx\n'.repeat(500)}`, ['1'], 'event_too_large'],
    ['a comment that never ends', `data: 1\n\n:${'x'.repeat(10_000)}`, ['1'], 'event_too_large'],
  ])('%s', (_name, written, payloads, kind) => {
    const bytes = Buffer.from(written);
    expect(parsed(plain(bytes))).toEqual({ payloads, kind });
    if (bytes.length > MAX_EVENT_CHARS) return;
    for (const chunks of everyCut(bytes)) expect(parsed(chunks.flatMap(plain))).toEqual({ payloads, kind });
  });

  it('is given up at the first thing that breaks it, when the same chunk has more of the kind', () => {
    const bytes = Buffer.concat([
      Buffer.from(`data: 1\n\ndata: ${'x'.repeat(2 * MAX_EVENT_CHARS)}\ndata: 2\n\n`),
      Buffer.from([0xff]),
    ]);
    expect(parsed([bytes])).toEqual({ payloads: ['1'], kind: 'event_too_large' });
  });
});

const sse = (...payloads: string[]) => Buffer.from(payloads.map((payload) => `data: ${payload}\n\n`).join(''));

/** A frame of each dialect that says its place, one that ends the stream, and what makes a reader of one. */
interface Dialect {
  readonly reader: () => FrameReader;
  readonly token: (place: number) => string;
  readonly closing: readonly string[];
}
const vllm = (place: number, finish: string | null) =>
  JSON.stringify({
    ...{ id: 'c', object: 'text_completion', created: 1, model: 'm' },
    choices: [{ index: 0, text: `t${place}`, logprobs: null, finish_reason: finish, token_ids: [9] }],
    usage: { prompt_tokens: 3, total_tokens: 3 + place, completion_tokens: place },
  });
const vllmTotal =
  '{"id":"c","object":"text_completion","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"total_tokens":6,"completion_tokens":3}}';
const tgi = (place: number, rest: string) =>
  `{"index":${place},"token":{"id":1,"text":"t${place}","logprob":-0.5,"special":false},${rest}}`;
const DIALECTS: Readonly<Record<string, Dialect>> = {
  llamacpp: {
    reader: () => new LlamaCppFrames(new Failures(LLAMACPP_ERRORS)),
    token: (place) =>
      `{"index":0,"content":"t${place}","tokens":[9],"stop":false,"id_slot":-1,"tokens_predicted":${place},"tokens_evaluated":3}`,
    closing: [
      '{"content":"","stop":true,"stop_type":"limit","tokens_predicted":3,"tokens_evaluated":3,"timings":{"predicted_ms":1.5}}',
    ],
  },
  vllm: {
    reader: () => new VllmFrames(new Failures(VLLM_ERRORS)),
    token: (place) => vllm(place, place === 3 ? 'length' : null),
    closing: [vllmTotal, '[DONE]'],
  },
  tgi: {
    reader: () => new TgiFrames(new Failures(TGI_ERRORS), 8),
    token: (place) =>
      tgi(
        place,
        place === 3
          ? '"generated_text":"all","details":{"finish_reason":"length","generated_tokens":3,"seed":42,"input_length":18}'
          : '"generated_text":null,"details":null',
      ),
    closing: [],
  },
};
const GOOD = ['t1', 't2', 't3'];

describe.each(Object.entries(DIALECTS))('%s', (_name, { reader, token, closing }) => {
  const read = (bytes: Buffer) => readStream(reader(), plain(bytes));
  const whole = [token(1), token(2), token(3), ...closing];

  it('ends once: what is said again after the end changes nothing', () => {
    for (const again of [[], closing, ['[DONE]', '[DONE]'], ['{'], ['<html>']]) {
      expect(read(sse(...whole, ...again))).toMatchObject({ tokens: GOOD, failure: null, end: { tokensOut: 3 } });
    }
  });

  it.each<[string, number[], number]>([
    ['out of order', [2, 1, 3], 0],
    ['turned round', [1, 3, 2], 1],
    ['with one twice', [1, 2, 2, 3], 2],
  ])('is refused %s, after what was in order', (_order, places, good) => {
    const { tokens, failure } = read(sse(...places.map(token), ...closing));
    // A gap shows to one engine's reader by the next frame only.
    expect(tokens.length).toBeGreaterThanOrEqual(good);
    expect(tokens.length).toBeLessThanOrEqual(good + 1);
    expect(failure).toMatch(/^INTERNAL \w+ lost=false$/);
  });

  it.each([
    ['JSON that breaks off', '{"content":"'],
    ['JSON of another kind', '[1,2,3]'],
    ['JSON too deep for anybody', '['.repeat(10_000)],
    ['a bare word', 'undefined'],
    ['a page in an event', '<html><body>502</body></html>'],
  ])('is broken by %s, after the tokens before it', (_what, payload) => {
    const { tokens, failure, end } = read(sse(token(1), payload, token(2), token(3), ...closing));
    expect({ tokens, failure, end }).toEqual({ tokens: ['t1'], failure: 'INTERNAL streaming lost=false', end: null });
  });

  it('is lost, not ended, when its last event has no blank line', () => {
    const bytes = sse(...whole);
    expect(read(bytes.subarray(0, -1))).toMatchObject({ end: null, failure: expect.stringContaining('lost=true') });
  });
});

it('triton: a body is the end, and what it breaks with comes after its tokens', () => {
  const frame = (said: string) => `{"id":"42","model_name":"e","model_version":"1","text_output":"${said}"}`;
  const read = (...payloads: string[]) =>
    readStream(new TritonFrames(new Failures(TRITON_ERRORS), 'e', 8), plain(sse(...payloads)));
  expect(read(frame('a'), frame('b'))).toMatchObject({ tokens: ['a', 'b'], failure: null });
  for (const payload of ['{', '[DONE]', '<html>', '['.repeat(10_000)]) {
    expect(read(frame('a'), payload, frame('b'))).toMatchObject({
      ...{ tokens: ['a'], failure: 'INTERNAL streaming lost=false', end: null },
    });
  }
});
