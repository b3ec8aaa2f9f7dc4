import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { TGI_ERRORS } from '../../src/engines/tgi/errors.js';
import { TgiFrames } from '../../src/engines/tgi/frames.js';
import type { ClaimedEnd } from '../../src/engines/usage.js';
import { readStream } from '../support/frames.js';

const SECRET = 'key-of-this-engine';

interface Reading {
  readonly texts: readonly string[];
  readonly end: ClaimedEnd | null;
  readonly failure: string | null;
}

function readAll(chunks: readonly Buffer[], maxTokens = 8): Reading {
  const reader = new TgiFrames(new Failures(TGI_ERRORS, [SECRET]), maxTokens);
  const { tokens: texts, end, failure, message } = readStream(reader, chunks);
  return { texts, end, failure: failure && `${failure} ${message}` };
}

/** As the server writes them: no space after the colon. */
const sse = (...payloads: readonly string[]): Buffer => Buffer.from(payloads.map((p) => `data:${p}\n\n`).join(''));
const tokenJson = (text: string, special = false): string =>
  `{"id":2296,"text":${JSON.stringify(text)},"logprob":-0.51,"special":${special}}`;
const middle = (index: number, text: string, special = false): string =>
  `{"index":${index},"token":${tokenJson(text, special)},"generated_text":null,"details":null}`;
interface Closing {
  readonly reason?: string;
  readonly special?: boolean;
  readonly generated?: number;
}
const last = (index: number, text: string, { reason = 'length', special = false, generated = index }: Closing = {}) =>
  `{"index":${index},"token":${tokenJson(text, special)},"generated_text":"all of it","details":{"finish_reason":"${reason}","generated_tokens":${generated},"seed":42,"input_length":18}}`;
const error = (message: string, type: string): string => JSON.stringify({ error: message, error_type: type });

describe('a stream', () => {
  it('has one token per frame, the last one included, and the totals of the last frame', () => {
    expect(readAll([sse(middle(1, ' She'), middle(2, ' ran'), last(3, '.'))])).toEqual({
      texts: [' She', ' ran', '.'],
      end: { finishReason: 'length', tokensIn: 18, tokensOut: 3, decodeMs: null },
      failure: null,
    });
  });

  it('may be a single frame', () => {
    expect(readAll([sse(last(1, ' She'))])).toMatchObject({ texts: [' She'], end: { tokensOut: 1 }, failure: null });
  });

  it.each([
    ['length', 'length'],
    ['eos_token', 'stop'],
    ['stop_sequence', 'stop'],
  ])('finish_reason %s finishes as %s', (reason, finishReason) => {
    expect(readAll([sse(last(1, 'a', { reason }))]).end).toMatchObject({ finishReason });
  });

  it('counts a token whose character is incomplete, and shows the character with the token that completes it', () => {
    const { texts, end } = readAll([sse(middle(1, ''), middle(2, ''), middle(3, '😀'), last(4, '!'))]);
    expect(texts).toEqual(['', '', '😀', '!']);
    expect(end).toMatchObject({ tokensOut: 4 });
  });

  it('counts a special token and does not show it', () => {
    const stream = sse(
      middle(1, '<|im_start|>', true),
      middle(2, 'a'),
      last(3, '</s>', { reason: 'eos_token', special: true }),
    );
    expect(readAll([stream])).toMatchObject({ texts: ['', 'a', ''], end: { finishReason: 'stop', tokensOut: 3 } });
  });

  it.each([
    ['escapes', middle(1, 'say "no"\n\\')],
    ['a logprob that is no number', middle(1, 'say "no"\n\\').replace('-0.51', 'null')],
    ['a tiny logprob', middle(1, 'say "no"\n\\').replace('-0.51', '-1.1920929e-7')],
    ['top tokens', middle(1, 'say "no"\n\\').replace(',"generated_text"', ',"top_tokens":[],"generated_text"')],
  ])('reads frames with %s', (_name, frame) => {
    expect(readAll([sse(frame, last(2, 'b'))])).toMatchObject({ texts: ['say "no"\n\\', 'b'], failure: null });
  });

  it('reads a plain frame the same on the short way and on the long way', () => {
    const plain = middle(1, ' héllo 漢');
    const long = plain.replace('{"index":1,', '{ "index":1,');
    expect(readAll([sse(plain, last(2, ''))])).toEqual(readAll([sse(long, last(2, ''))]));
  });

  it('hands on what the last frame claims, for others to believe or not', () => {
    expect(readAll([sse(middle(1, 'a'), last(2, 'b', { generated: 11 }))]).end).toMatchObject({ tokensOut: 11 });
  });

  it('ignores keep-alive comments and takes no notice of what follows the last frame', () => {
    const stream = Buffer.concat([Buffer.from(':\n\n'), sse(last(1, 'a'), '[DONE]', middle(2, 'b'), 'junk')]);
    expect(readAll([stream])).toMatchObject({ texts: ['a'], failure: null });
  });
});

describe('a length of more than one run of 1024', () => {
  const frames = (count: number): string[] => Array.from({ length: count }, (_, place) => middle(place + 1, 'a'));

  it('is kept by the reader, where the server would go on', () => {
    const { texts, end, failure } = readAll([sse(...frames(2_000))], 1_500);
    expect([texts.length, failure]).toEqual([1_500, null]);
    expect(end).toEqual({ finishReason: 'length', tokensIn: null, tokensOut: 1_500, decodeMs: null });
  });

  it('is the server’s to state when it ends there or before', () => {
    const exact = readAll([sse(...frames(2_047), last(2_048, 'b'))], 2_048);
    expect(exact.end).toMatchObject({ tokensIn: 18, tokensOut: 2_048 });
    const early = readAll([sse(...frames(1_200), last(1_201, 'b', { reason: 'eos_token' }))], 1_500);
    expect(early.end).toMatchObject({ finishReason: 'stop', tokensIn: 18, tokensOut: 1_201 });
  });

  it('does not make an end of a stream that was cut before', () => {
    expect(readAll([sse(...frames(1_499))], 1_500).failure).toContain('WORKER_RESET streaming');
  });

  it('within one run, the server has to say that it ends', () => {
    expect(readAll([sse(...frames(8))], 8).failure).toContain('WORKER_RESET streaming');
  });
});

describe('a stream is broken', () => {
  const malformed = 'INTERNAL streaming lost=false TGI connection malformed:';
  it.each([
    ['by EOF with nothing sent', [], 'WORKER_RESET before_first_token lost=true', 0],
    ['by EOF after a token', [middle(1, 'a')], 'WORKER_RESET streaming lost=true', 1],
    ['by a bare [DONE]', [middle(1, 'a'), '[DONE]'], `${malformed} a frame is not JSON`, 1],
    ['by JSON of another shape', ['{"index":1}'], 'INTERNAL before_first_token lost=false', 0],
    ['by a token without a number', ['{"token":{"text":"a"}}'], 'INTERNAL before_first_token lost=false', 0],
    ['by a frame twice', [middle(1, 'a'), middle(1, 'a')], `${malformed} a token is repeated: number 1 after`, 1],
    ['by a frame left out', [middle(1, 'a'), middle(3, 'c')], `${malformed} a token is missing: number 3 after`, 1],
    ['by the first frame left out', [middle(2, 'b')], 'INTERNAL before_first_token lost=false', 0],
    ['by a last frame out of turn', [middle(1, 'a'), last(3, 'c')], `${malformed} a token is missing`, 1],
    ['by the last frame twice the number', [middle(1, 'a'), last(1, 'a')], `${malformed} a token is repeated`, 1],
    [
      'by a last frame without details',
      [`{"index":1,"token":${tokenJson('a')},"generated_text":"a","details":null}`],
      `${malformed} the last frame of unknown shape`,
      1,
    ],
    ['by a last frame without its count', [last(1, 'a').replace('"generated_tokens":1,', '')], malformed, 1],
    ['by an unknown finish reason', [last(1, 'a', { reason: 'tired' })], `${malformed} the last frame of unknown`, 1],
  ])('%s, after the tokens before it', (_name, payloads, failure, tokens) => {
    const reading = readAll([sse(...payloads)]);
    expect(reading.failure).toContain(failure);
    expect(reading.texts).toHaveLength(tokens);
    expect(reading.end).toBeNull();
  });

  it.each([
    ['overloaded', 'Model is overloaded', 'POOL_UNREADY', false],
    ['validation', 'Input validation error: `inputs` must have less than 9 tokens. Given: 12', 'INVALID_PARAMS', false],
    ['generation', 'Request failed during generation: Server error: list index out of range', 'INTERNAL', false],
    [
      'generation',
      'Request failed during generation: Server error: CUDA error: an illegal memory access was encountered',
      'WORKER_RESET',
      true,
    ],
    ['incomplete_generation_stream', 'Incomplete generation stream', 'INTERNAL', false],
  ])('by an error frame of type %s, first and in the middle', (type, message, code, lost) => {
    const first = readAll([sse(error(message, type))]);
    expect(first).toMatchObject({ texts: [], end: null });
    expect(first.failure).toBe(`${code} before_first_token lost=${lost} TGI: ${message}`);
    const later = readAll([sse(middle(1, 'a'), error(message, type), last(2, 'b'))]);
    expect(later).toMatchObject({ texts: ['a'], end: null });
    expect(later.failure).toBe(`${code} streaming lost=${lost} TGI: ${message}`);
  });

  it('and says so without the secrets in it', () => {
    const { failure } = readAll([sse(error(`Bearer abc.def ${SECRET} hf_abcdefghijklmnop`, 'generation'))]);
    expect(failure).toBe('INTERNAL before_first_token lost=false TGI: [redacted] [redacted] [redacted]');
  });
});

describe('where the socket cuts the bytes', () => {
  it('makes no difference, at every place of a short stream and byte by byte', () => {
    const stream = Buffer.concat([
      Buffer.from(':\n\n'),
      sse(middle(1, 'é'), middle(2, '')),
      Buffer.from(':\n\n'),
      sse(middle(3, '漢😀'), last(4, '</s>', { reason: 'eos_token', special: true })),
    ]);
    const whole = readAll([stream]);
    expect(whole).toMatchObject({ texts: ['é', '', '漢😀', ''], failure: null });
    for (let cut = 0; cut <= stream.length; cut += 1) {
      expect(readAll([stream.subarray(0, cut), stream.subarray(cut)])).toEqual(whole);
    }
    expect(readAll(Array.from(stream, (byte) => Buffer.from([byte])))).toEqual(whole);
  });

  it('makes no difference, for random cuts of random texts and broken ends', () => {
    const payloads = fc.array(fc.string({ unit: 'binary', maxLength: 8 }), { maxLength: 6 });
    const ending = fc.constantFrom(
      (index: number) => last(index, 'z'),
      (index: number) => middle(index + 1, 'z'),
      (index: number) => middle(index, 'z'),
      () => error('Model is overloaded', 'overloaded'),
      () => 'junk',
    );
    const cuts = fc.array(fc.nat(2_000), { maxLength: 12 });
    fc.assert(
      fc.property(payloads, ending, cuts, (texts, end, at) => {
        const bytes = sse(...texts.map((text, place) => middle(place + 1, text)), end(texts.length + 1));
        const edges = [0, ...at.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
        const chunks = edges.slice(1).map((edge, place) => bytes.subarray(edges[place], edge));
        const whole = readAll([bytes]);
        const stored = texts.map((text) => text.replaceAll('\0', '\uFFFD'));
        expect(whole.texts.slice(0, texts.length)).toEqual(stored);
        expect(readAll(chunks)).toEqual(whole);
      }),
    );
  });
});
