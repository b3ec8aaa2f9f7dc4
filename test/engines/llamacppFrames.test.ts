import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { LLAMACPP_ERRORS } from '../../src/engines/llamacpp/errors.js';
import { LlamaCppFrames } from '../../src/engines/llamacpp/frames.js';
import { cutAt, everyCut, type Reading, readStream } from '../support/frames.js';
import { readCapture } from '../support/replay.js';

// Captured from llama-server b11669.
const greedy = readCapture('llamacpp/completion-stream-greedy').body;
const withProgress = readCapture('llamacpp/completion-stream-timings').body;

const failures = new Failures(LLAMACPP_ERRORS);
const readAll = (chunks: readonly Buffer[], expectedModelId?: string): Reading =>
  readStream(new LlamaCppFrames(failures, expectedModelId), chunks);

const sse = (...payloads: readonly string[]): Buffer => Buffer.from(payloads.map((p) => `data: ${p}\n\n`).join(''));
const middle = (content: string, tokensPredicted: number): string =>
  `{"index":0,"content":${JSON.stringify(content)},"tokens":[9],"stop":false,"id_slot":-1,"tokens_predicted":${tokensPredicted},"tokens_evaluated":3}`;
const last = (stopType: string, tokensPredicted: number): string =>
  `{"content":"","stop":true,"stop_type":"${stopType}","tokens_predicted":${tokensPredicted},"tokens_evaluated":3,"timings":{"predicted_ms":1.5}}`;

describe('captured streams', () => {
  it('reads one token frame per token and the end the engine states', () => {
    expect(readAll([greedy], 'tiny.gguf')).toMatchObject({
      tokens: [' kino', ' kive', ' nodo', ' nove', ' talo', ' pemi'],
      end: { finishReason: 'length', tokensIn: 12, tokensOut: 6, decodeMs: 0.821 },
      failure: null,
    });
  });

  it('yields nothing for prompt progress frames', () => {
    const { tokens, end } = readAll([withProgress]);
    expect([...tokens, end?.tokensOut]).toEqual([' veki', ' tano', ' nodo', 3]);
  });
});

describe('rules of a stream', () => {
  it('gives text that was held back as one token and takes the count from the engine', () => {
    const { tokens, end, failure } = readAll([sse(middle('a', 1), middle('😀', 5), middle('b', 6), last('eos', 7))]);
    expect(tokens).toEqual(['a', '😀', 'b']);
    expect(end).toEqual({ finishReason: 'stop', tokensIn: 3, tokensOut: 7, decodeMs: 1.5 });
    expect(failure).toBeNull();
  });

  it('takes the frames of a build that decodes several tokens at a time', () => {
    const frames = [middle('a', 3), middle('b', 3), middle('c', 3), middle('d', 4)];
    expect(readAll([sse(...frames, last('limit', 4))])).toMatchObject({ tokens: ['a', 'b', 'c', 'd'], failure: null });
  });

  it.each([
    ['limit', 'length'],
    ['eos', 'stop'],
    ['word', 'stop'],
  ])('stop_type %s finishes as %s', (stopType, finishReason) => {
    expect(readAll([sse(last(stopType, 1))]).end).toMatchObject({ finishReason });
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
    ['a token that comes twice', [middle('a', 1), middle('b', 2), middle('b', 2)], 'INTERNAL streaming lost=false', 2],
    ['a token left out', [middle('a', 1), middle('c', 3), middle('d', 4)], 'INTERNAL streaming lost=false', 2],
    [
      'a token left out before the end',
      [middle('a', 1), middle('c', 3), last('limit', 3)],
      'INTERNAL streaming lost=false',
      2,
    ],
    ['a count that falls', [middle('a', 2), middle('b', 1)], 'INTERNAL streaming lost=false', 1],
  ])('%s is a failure, after the tokens before it', (_name, payloads, failure, tokens) => {
    const reading = readAll([sse(...payloads)]);
    expect(reading.failure).toBe(failure);
    expect(reading.tokens).toHaveLength(tokens);
  });

  it('makes of what cannot be stored something that can', () => {
    const { tokens, failure } = readAll([sse(middle('a\0b', 1), middle('\ud83d', 2), last('limit', 2))]);
    expect([tokens, failure]).toEqual([['a\uFFFDb', '\uFFFD'], null]);
  });

  it('refuses an end in the name of another model', () => {
    expect(readAll([greedy], 'other')).toMatchObject({
      failure: 'INTERNAL streaming lost=false',
      message: expect.stringContaining("as model 'tiny.gguf', not 'other'"),
    });
  });

  it('takes no notice of what follows the last frame', () => {
    expect(readAll([sse(last('limit', 0), '[DONE]', 'junk')])).toMatchObject({ failure: null, end: { tokensOut: 0 } });
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
    expect(whole).toMatchObject({ tokens: ['é', '漢😀', ' a'], failure: null });
    for (const chunks of everyCut(stream)) expect(readAll(chunks)).toEqual(whole);
  });

  it('makes no difference, for random cuts of random texts and broken ends', () => {
    const payloads = fc.array(fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }), { maxLength: 6 });
    const ending = fc.constantFrom(last('limit', 6), '{"error":{"code":500,"message":"m"}}', 'junk', middle('z', 7));
    const cuts = fc.array(fc.nat(2_000), { maxLength: 12 });
    fc.assert(
      fc.property(payloads, ending, cuts, (texts, end, places) => {
        const bytes = sse(...texts.map((text, index) => middle(text, index + 1)), end);
        expect(readAll(cutAt(bytes, places))).toEqual(readAll([bytes]));
      }),
    );
  });
});
