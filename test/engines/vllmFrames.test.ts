import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { VLLM_ERRORS } from '../../src/engines/vllm/errors.js';
import { VllmFrames } from '../../src/engines/vllm/frames.js';
import { cutAt, everyCut, type Reading, readStream } from '../support/frames.js';

const failures = new Failures(VLLM_ERRORS);
const readAll = (chunks: readonly Buffer[], expectedModelId?: string): Reading =>
  readStream(new VllmFrames(failures, expectedModelId), chunks);

const sse = (...payloads: readonly string[]): Buffer => Buffer.from(payloads.map((p) => `data: ${p}\n\n`).join(''));
const read = (...payloads: readonly string[]): Reading => readAll([sse(...payloads)]);

const HEAD = { id: 'cmpl-1', object: 'text_completion', created: 1, model: 'm' };
const usage = (completionTokens: number): Record<string, number> => ({
  prompt_tokens: 3,
  total_tokens: 3 + completionTokens,
  completion_tokens: completionTokens,
});

interface ChunkFacts {
  readonly ids?: readonly number[] | null;
  readonly finish?: string | null;
  /** null: no running count in this chunk. */
  readonly count?: number | null;
}

/** A chunk as pydantic writes it: keys that were set, also to null. */
function chunk(text: string, { ids = [9], finish = null, count = null }: ChunkFacts): string {
  const choice = { index: 0, text, logprobs: null, finish_reason: finish, stop_reason: null, prompt_token_ids: null };
  return JSON.stringify({
    ...HEAD,
    choices: [{ ...choice, token_ids: ids }],
    ...(count !== null && { usage: usage(count) }),
  });
}
const total = (tokens: number): string =>
  JSON.stringify({ ...HEAD, choices: [], usage: usage(tokens), system_fingerprint: 'vllm-0.23.0-a1b2c3d4' });
const DONE = '[DONE]';
/** As json.dumps writes it, with spaces. */
const error = (message: string): string =>
  `{"error": {"message": ${JSON.stringify(message)}, "type": "InternalServerError", "param": null, "code": 500}}`;
const DEAD = error('EngineCore encountered an issue. See stack trace (above) for the root cause.');

describe('a stream', () => {
  it('is its tokens, and the totals the engine states', () => {
    const reading = read(chunk(' She', { count: 1 }), chunk(' sat', { count: 2, finish: 'length' }), total(2), DONE);
    expect(reading).toMatchObject({
      tokens: [' She', ' sat'],
      end: { finishReason: 'length', tokensIn: 3, tokensOut: 2, decodeMs: null },
      failure: null,
    });
  });

  it('has a token without text where a character is incomplete, and none in a chunk that carries nothing', () => {
    const reading = read(
      chunk('', { ids: [8], count: 1 }),
      chunk('😀', { ids: [9], count: 2 }),
      chunk('', { ids: [], count: 2 }),
      chunk('', { ids: [2], count: 3, finish: 'stop' }),
      total(3),
      DONE,
    );
    expect(reading).toMatchObject({ tokens: ['', '😀', ''], end: { finishReason: 'stop', tokensOut: 3 } });
  });

  it('gives what was merged as one token, with the count of all', () => {
    const reading = read(
      chunk(' a', { ids: [1], count: 1 }),
      chunk(' b c d', { ids: [2, 3, 4], count: 4, finish: 'length' }),
      total(4),
      DONE,
    );
    expect(reading).toMatchObject({ tokens: [' a', ' b c d'], end: { tokensOut: 4 }, failure: null });
  });

  it.each([
    ['length', 'length'],
    ['stop', 'stop'],
    ['repetition', 'stop'],
  ])('that finishes with %s has ended with %s', (finish, finishReason) => {
    expect(read(chunk('a', { count: 1, finish }), total(1), DONE)).toMatchObject({
      end: { finishReason },
      failure: null,
    });
  });

  it('counts by the ids, or not at all, where the server tells no usage', () => {
    expect(read(chunk('ab', { ids: [1, 2] }), chunk('c', { finish: 'stop' }), DONE).end).toMatchObject({
      ...{ tokensIn: null, tokensOut: 3 },
    });
    expect(read(chunk('ab', { ids: null, finish: 'stop' }), DONE).end).toMatchObject({
      tokensIn: null,
      tokensOut: null,
    });
  });

  it('takes no notice of what follows [DONE]', () => {
    const reading = read(chunk('a', { count: 1, finish: 'stop' }), total(1), DONE, 'junk', error('late'));
    expect(reading).toMatchObject({ tokens: ['a'], end: { tokensOut: 1 }, failure: null });
  });

  it('in the name of another model is refused, when the name is known', () => {
    const stream = [sse(chunk('a', { count: 1, finish: 'stop' }), total(1), DONE)];
    expect(readAll(stream, 'm').failure).toBeNull();
    expect(readAll(stream, 'other')).toMatchObject({
      tokens: [],
      end: null,
      failure: 'INTERNAL before_first_token lost=false',
    });
  });
});

describe('what is no end', () => {
  const one = chunk('a', { count: 1 });
  const BEFORE = 'before_first_token';
  it.each([
    ['EOF with nothing sent', [], `WORKER_RESET ${BEFORE} lost=true`, 0],
    ['EOF after a token', [one], 'WORKER_RESET streaming lost=true', 1],
    ['EOF after the finish reason', [chunk('a', { count: 1, finish: 'stop' })], 'WORKER_RESET streaming lost=true', 1],
    ['EOF after the usage', [chunk('a', { finish: 'stop' }), total(1)], 'WORKER_RESET streaming lost=true', 1],
    ['a bare [DONE]', [DONE], `INTERNAL ${BEFORE} lost=false`, 0],
    ['[DONE] after a token', [one, DONE], 'INTERNAL streaming lost=false', 1],
    ['[DONE] after the usage alone', [one, total(1), DONE], 'INTERNAL streaming lost=false', 1],
    ['an error frame and [DONE]', [error('Internal server error'), DONE], `INTERNAL ${BEFORE} lost=false`, 0],
    ['an error frame in mid-stream', [one, error('Internal server error'), DONE], 'INTERNAL streaming lost=false', 1],
    ['a dead engine', [one, DEAD, DONE], 'WORKER_RESET streaming lost=true', 1],
    ['a dead engine before anything', [DEAD, DONE], `WORKER_RESET ${BEFORE} lost=true`, 0],
    [
      'a flat error of an older build',
      [one, '{"object":"error","message":"EngineCore died","type":"x","param":null,"code":500}', DONE],
      'WORKER_RESET streaming lost=true',
      1,
    ],
    ['finish reason abort', [chunk('a', { count: 1, finish: 'abort' }), DONE], 'WORKER_RESET streaming lost=true', 1],
    ['finish reason error', [chunk('', { ids: [], finish: 'error' }), DONE], `INTERNAL ${BEFORE} lost=false`, 0],
    ['an unknown finish reason', [chunk('a', { finish: 'constructor' }), DONE], 'INTERNAL streaming lost=false', 1],
    ['no JSON', [one, '{"id":"cmpl'], 'INTERNAL streaming lost=false', 1],
    ['another shape', ['{"choices":{}}'], `INTERNAL ${BEFORE} lost=false`, 0],
    ['a choice of another shape', ['{"model":"m","choices":[{"delta":{}}]}'], `INTERNAL ${BEFORE} lost=false`, 0],
  ])('%s', (_name, payloads, failure, tokens) => {
    const reading = read(...payloads);
    expect(reading).toMatchObject({ failure, end: null });
    expect(reading.tokens).toHaveLength(tokens);
  });
});

describe('the running count', () => {
  const last = (count: number): string => chunk('z', { count, finish: 'length' });

  it.each([
    ['a chunk sent twice', [chunk('a', { count: 1 }), chunk('a', { count: 1 }), last(2)], 'repeated', 1],
    ['a chunk that is missing', [chunk('a', { count: 1 }), last(3)], 'missing', 1],
    ['a first chunk that is missing', [last(2)], 'missing', 0],
    ['a missing chunk of several tokens', [chunk('ab', { ids: [1, 2], count: 2 }), last(5)], 'missing', 1],
    ['a count that falls', [chunk('ab', { ids: [1, 2], count: 2 }), last(1)], 'repeated', 1],
    [
      'a text twice, without ids',
      [chunk('a', { ids: null, count: 1 }), chunk('a', { ids: null, count: 1 })],
      'repeated',
      1,
    ],
    ['a chunk after the last', [last(1), chunk('b', { count: 2 })], 'after the last', 1],
    ['the last chunk twice', [last(1), last(1)], 'after the last', 1],
  ])('shows %s', (_name, payloads, message, tokens) => {
    const reading = read(...payloads, total(9), DONE);
    expect(reading.failure).toMatch(/^INTERNAL \w+ lost=false$/);
    expect(reading.message).toContain(message);
    expect(reading.tokens).toHaveLength(tokens);
  });

  it('lets a text without ids stand for several tokens', () => {
    expect(read(chunk('abc', { ids: null, count: 3, finish: 'stop' }), total(3), DONE)).toMatchObject({
      ...{ tokens: ['abc'], end: { tokensOut: 3 }, failure: null },
    });
  });
});

describe('where the socket cuts the bytes', () => {
  const stream = Buffer.concat([
    Buffer.from(': keep-alive\n\n'),
    sse(chunk('é', { count: 1 }), chunk('', { ids: [7], count: 2 })),
    Buffer.from(': keep-alive\n\n'),
    sse(chunk('漢😀', { ids: [1, 2], count: 4 }), chunk(' a', { count: 5, finish: 'length' }), total(5), DONE),
  ]);

  it('makes no difference, at every place of a short stream and byte by byte', () => {
    const whole = readAll([stream]);
    expect(whole).toMatchObject({ tokens: ['é', '', '漢😀', ' a'], end: { tokensOut: 5 }, failure: null });
    for (const chunks of everyCut(stream)) expect(readAll(chunks)).toEqual(whole);
  });

  it('makes no difference, for random cuts of random texts and broken ends', () => {
    const texts = fc.array(fc.string({ unit: 'binary', maxLength: 8 }), { maxLength: 6 });
    const ending = fc.constantFrom([total(6), DONE], [error('m'), DONE], [DONE], ['junk'], [DEAD], []);
    const places = fc.array(fc.nat(4_000), { maxLength: 12 });
    fc.assert(
      fc.property(texts, fc.boolean(), ending, places, (pieces, finishes, end, at) => {
        const chunks = pieces.map((text, index) => {
          const isLast = index === pieces.length - 1;
          return chunk(text, { count: index + 1, finish: isLast && finishes ? 'stop' : null });
        });
        const bytes = sse(...chunks, ...end);
        const whole = readAll([bytes]);
        expect(whole.tokens).toEqual(pieces.map((text) => text.replaceAll('\0', '\uFFFD')));
        expect(readAll(cutAt(bytes, at))).toEqual(whole);
      }),
    );
  });
});
