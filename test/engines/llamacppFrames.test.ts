import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { EngineFrame } from '../../src/engines/adapter.js';
import { CompletionFrames } from '../../src/engines/llamacpp/frames.js';
import { SseReader } from '../../src/engines/sse.js';

const LIMITS = { maxEventChars: 1024 * 1024, maxTotalBytes: 64 * 1024 * 1024 };

// Captured from llama-server b11669.
const greedy = readFileSync(new URL('fixtures/llamacpp-stream-greedy.sse', import.meta.url));
const withProgress = readFileSync(new URL('fixtures/llamacpp-stream-progress.sse', import.meta.url));

interface Reading {
  readonly frames: readonly EngineFrame[];
  readonly failure: string | null;
}

/** Reads a whole stream, given in chunks and then EOF. */
function readAll(chunks: readonly Buffer[]): Reading {
  const reader = new SseReader(LIMITS);
  const completion = new CompletionFrames();
  const frames: EngineFrame[] = [];
  for (const chunk of chunks) frames.push(...completion.read(reader.push(chunk)));
  reader.end();
  const failure = completion.atEof();
  return { frames, failure: failure && `${failure.code} ${failure.phase} lost=${failure.engineLost}` };
}

const sse = (...payloads: readonly string[]): Buffer => Buffer.from(payloads.map((p) => `data: ${p}\n\n`).join(''));
const middle = (content: string, tokensPredicted: number): string =>
  `{"index":0,"content":${JSON.stringify(content)},"tokens":[9],"stop":false,"id_slot":-1,"tokens_predicted":${tokensPredicted},"tokens_evaluated":3}`;
const last = (stopType: string, tokensPredicted: number): string =>
  `{"content":"","stop":true,"stop_type":"${stopType}","tokens_predicted":${tokensPredicted},"tokens_evaluated":3,"timings":{"predicted_ms":1.5}}`;

describe('captured streams', () => {
  it('reads one token frame per token and the end the engine states', () => {
    expect(readAll([greedy])).toEqual({
      frames: [
        ...[' kino', ' kive', ' nodo', ' nove', ' talo', ' pemi'].map((text) => ({ kind: 'token', text })),
        { kind: 'end', finishReason: 'length', tokensIn: 12, tokensOut: 6, decodeMs: 0.821 },
      ],
      failure: null,
    });
  });

  it('yields nothing for prompt progress frames', () => {
    const { frames } = readAll([withProgress]);
    expect(frames.map((frame) => (frame.kind === 'token' ? frame.text : frame.tokensOut))).toEqual([
      ' veki',
      ' tano',
      ' nodo',
      3,
    ]);
  });
});

describe('rules of a stream', () => {
  it('gives text that was held back as one token and takes the count from the engine', () => {
    const { frames } = readAll([sse(middle('a', 1), middle('😀', 5), last('eos', 5))]);
    expect(frames).toEqual([
      { kind: 'token', text: 'a' },
      { kind: 'token', text: '😀' },
      { kind: 'end', finishReason: 'stop', tokensIn: 3, tokensOut: 5, decodeMs: 1.5 },
    ]);
  });

  it.each([
    ['limit', 'length'],
    ['eos', 'stop'],
    ['word', 'stop'],
  ])('stop_type %s finishes as %s', (stopType, finishReason) => {
    expect(readAll([sse(last(stopType, 1))]).frames).toMatchObject([{ kind: 'end', finishReason }]);
  });

  it.each([
    ['EOF with nothing sent', [], 'WORKER_RESET before_first_token lost=true', 0],
    ['EOF after a token', [middle('a', 1)], 'WORKER_RESET streaming lost=true', 1],
    [
      'an error frame first',
      ['{"error":{"code":500,"message":"m","type":"server_error"}}'],
      'INTERNAL before_first_token lost=false',
      0,
    ],
    [
      'an error frame after a token',
      [middle('a', 1), '{"error":{"code":500,"message":"m","type":"server_error"}}', middle('b', 2)],
      'INTERNAL streaming lost=false',
      1,
    ],
    ['no JSON', [middle('a', 1), '[DONE]'], 'INTERNAL streaming lost=false', 1],
    ['JSON of another shape', ['{"content":1}'], 'INTERNAL before_first_token lost=false', 0],
    ['a last frame without its counts', ['{"content":"","stop":true}'], 'INTERNAL before_first_token lost=false', 0],
  ])('%s is a failure, after the tokens before it', (_name, payloads, failure, tokens) => {
    const reading = readAll([sse(...payloads)]);
    expect(reading.failure).toBe(failure);
    expect(reading.frames).toHaveLength(tokens);
  });

  it('takes no notice of what follows the last frame', () => {
    expect(readAll([sse(last('limit', 0), '[DONE]', 'junk')])).toMatchObject({
      failure: null,
      frames: [{ kind: 'end' }],
    });
  });
});

describe('where the socket cuts the bytes', () => {
  const stream = Buffer.concat([
    Buffer.from(':\n\n'),
    sse(middle('é', 1)),
    Buffer.from(':\n\n'),
    sse(middle('漢😀', 4), middle(' a', 5), last('limit', 5)),
  ]);

  it('makes no difference, at every place of a short stream and byte by byte', () => {
    const whole = readAll([stream]);
    expect(whole.failure).toBeNull();
    for (let cut = 0; cut <= stream.length; cut += 1) {
      expect(readAll([stream.subarray(0, cut), stream.subarray(cut)])).toEqual(whole);
    }
    expect(readAll(Array.from(stream, (byte) => Buffer.from([byte])))).toEqual(whole);
  });

  it('makes no difference, for random cuts of random texts and broken ends', () => {
    const payloads = fc.array(fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }), { maxLength: 6 });
    const ending = fc.constantFrom(last('limit', 6), '{"error":{"code":500,"message":"m"}}', 'junk', middle('z', 7));
    const cuts = fc.array(fc.nat(2_000), { maxLength: 12 });
    fc.assert(
      fc.property(payloads, ending, cuts, (texts, end, at) => {
        const bytes = sse(...texts.map((text, index) => middle(text, index + 1)), end);
        const edges = [0, ...at.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
        const chunks = edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
        expect(readAll(chunks)).toEqual(readAll([bytes]));
      }),
    );
  });
});
