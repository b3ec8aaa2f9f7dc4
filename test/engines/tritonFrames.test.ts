import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { TRITON_ERRORS } from '../../src/engines/triton/errors.js';
import { TritonFrames } from '../../src/engines/triton/frames.js';
import { cutAt, everyCut, type Reading, readStream } from '../support/frames.js';

const failures = new Failures(TRITON_ERRORS, ['k-1234567']);
const readAll = (chunks: readonly Buffer[], maxTokens = 8): Reading =>
  readStream(new TritonFrames(failures, 'ensemble', maxTokens), chunks);

const sse = (...payloads: readonly string[]): Buffer => Buffer.from(payloads.map((p) => `data: ${p}\n\n`).join(''));
const frame = (text: string, model = 'ensemble'): string =>
  `{"id":"42","model_name":"${model}","model_version":"1","sequence_end":false,"sequence_id":0,"sequence_start":false,"text_output":${JSON.stringify(text)}}`;
const counted = (text: string, tokens: number): string =>
  frame(text).replace('"sequence_end"', `"num_input_tokens":18,"num_output_tokens":${tokens},"sequence_end"`);
const error = (message: string): string => JSON.stringify({ error: message });
const IN_ENSEMBLE = "in ensemble 'ensemble', Encountered error for requestId 1804289383: ";

describe('a stream', () => {
  it('has one token per frame and ends with its body', () => {
    expect(readAll([sse(frame(' She'), frame(' ran'), frame('.'))])).toEqual({
      tokens: [' She', ' ran', '.'],
      end: { finishReason: 'stop', tokensIn: null, tokensOut: null, decodeMs: null },
      failure: null,
      message: null,
    });
  });

  it.each([
    ['an empty last frame', [frame('a'), frame('')], ['a'], 'stop'],
    ['an empty last frame after an empty token', [frame('a'), frame(''), frame('')], ['a', ''], 'stop'],
    ['an empty frame between two others', [frame('a'), frame(''), frame('b')], ['a', '', 'b'], 'length'],
    ['nothing but an empty frame', [frame('')], [], 'stop'],
    ['as many tokens as were asked for', [frame('a'), frame('b'), frame('c')], ['a', 'b', 'c'], 'length'],
    [
      'as many tokens as were asked for and an empty frame',
      [frame('a'), frame('b'), frame('c'), frame('')],
      ['a', 'b', 'c'],
      'length',
    ],
    ['a frame with other outputs', [frame('a').replace('{', '{"cum_log_probs":0.0,')], ['a'], 'stop'],
    ['half characters that each became U+FFFD', [frame('\uFFFD'), frame('\uFFFD')], ['\uFFFD', '\uFFFD'], 'stop'],
  ])('%s', (_name, payloads, tokens, finishReason) => {
    expect(readAll([sse(...payloads)], 3)).toMatchObject({ tokens, end: { finishReason }, failure: null });
  });

  it.each([
    ['an end-of-sequence token', [counted('a', 1), counted('', 1)], ['a'], 2, 'stop'],
    ['a last frame without a token', [counted('a', 1), counted('', 0)], ['a'], 1, 'stop'],
    ['a frame of several tokens', [counted('a b', 2), counted('c', 1)], ['a b', 'c'], 3, 'length'],
    [
      'a frame without a token in the middle',
      [counted('a', 1), counted('', 0), counted('b', 1)],
      ['a', 'b'],
      2,
      'stop',
    ],
  ])('takes the counts of a model that tells them: %s', (_name, payloads, tokens, tokensOut, finishReason) => {
    const end = { finishReason, tokensIn: 18, tokensOut, decodeMs: null };
    expect(readAll([sse(...payloads)], 3)).toMatchObject({ tokens, end, failure: null });
  });

  it.each([
    ['EOF with nothing said', [], 'WORKER_RESET before_first_token lost=true', 0],
    ['an error frame first', [error(`${IN_ENSEMBLE}boom`)], 'INTERNAL before_first_token lost=false', 0],
    ['an error frame after a token', [frame('a'), error('boom'), frame('b')], 'INTERNAL streaming lost=false', 1],
    ['an error frame after an empty one', [frame(''), error('boom')], 'INTERNAL before_first_token lost=false', 0],
    ['an error of the GPU', [frame('a'), error('CUDA runtime error in x')], 'WORKER_RESET streaming lost=true', 1],
    ['a bare [DONE]', [frame('a'), '[DONE]'], 'INTERNAL streaming lost=false', 1],
    ['[DONE] alone', ['[DONE]'], 'INTERNAL before_first_token lost=false', 0],
    ['half a frame', [frame('a'), frame('b').slice(0, 40)], 'INTERNAL streaming lost=false', 1],
    ['a frame without text', ['{"model_name":"ensemble"}'], 'INTERNAL before_first_token lost=false', 0],
    [
      'text that is no text',
      ['{"model_name":"ensemble","text_output":["a"]}'],
      'INTERNAL before_first_token lost=false',
      0,
    ],
    ['a frame of nobody', ['{"text_output":"a"}'], 'INTERNAL before_first_token lost=false', 0],
    ['another model', [frame('a', 'other')], 'INTERNAL before_first_token lost=false', 0],
    ['another model later', [frame('a'), frame('b', 'other')], 'INTERNAL streaming lost=false', 1],
  ])('%s is a failure, after the tokens before it', (_name, payloads, failure, tokens) => {
    const reading = readAll([sse(...payloads)]);
    expect(reading.failure).toBe(failure);
    expect(reading.end).toBeNull();
    expect(reading.tokens).toHaveLength(tokens);
  });

  it('says which model answered', () => {
    expect(readAll([sse(frame('a', 'other'))]).message).toContain("as model 'other', not 'ensemble'");
  });

  it('keeps secrets out of the message of an error frame', () => {
    const said = 'k-1234567 refused; Authorization: Bearer abc.def.ghi; cannot read hf_AbCdEfGhIjKl';
    const { message } = readAll([sse(error(said))]);
    expect(message).toContain('[redacted]');
    expect(message).not.toMatch(/1234567|abc\.def|AbCdEf/);
  });
});

describe('where the socket cuts the bytes', () => {
  const stream = sse(frame('é'), frame(''), frame('漢😀'), frame(' "a"\n'), frame(''));

  it('makes no difference, at every place of a short stream and byte by byte', () => {
    const whole = readAll([stream]);
    expect(whole).toMatchObject({ tokens: ['é', '', '漢😀', ' "a"\n'], failure: null, end: { finishReason: 'stop' } });
    for (const chunks of everyCut(stream)) expect(readAll(chunks)).toEqual(whole);
  });

  it('makes no difference, for random cuts of random texts and broken ends', () => {
    const texts = fc.array(fc.string({ unit: 'binary', maxLength: 8 }), { maxLength: 6 });
    const ending = fc.constantFrom(frame(''), frame('z'), error('m'), 'junk', '[DONE]', frame('z', 'other'));
    const cuts = fc.array(fc.nat(2_000), { maxLength: 12 });
    fc.assert(
      fc.property(texts, ending, cuts, (pieces, end, places) => {
        const bytes = sse(...pieces.map((text) => frame(text)), end);
        expect(readAll(cutAt(bytes, places), 5)).toEqual(readAll([bytes], 5));
      }),
    );
  });
});
