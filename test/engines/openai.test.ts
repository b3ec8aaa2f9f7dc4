/** What an engine answers to embeddings and rankings, in whatever order it comes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Failures } from '../../src/engines/failure.js';
import { LLAMACPP_ERRORS } from '../../src/engines/llamacpp/errors.js';
import { orderedVectors, rankingOf } from '../../src/engines/openai.js';

const failures = new Failures(LLAMACPP_ERRORS);
const usage = { prompt_tokens: 7 };
const number = fc.double({ noNaN: true, noDefaultInfinity: true });

/** Things in some order, with the place each had before. */
function shuffled<Value>(values: fc.Arbitrary<Value>) {
  return fc
    .array(values, { minLength: 1, maxLength: 40 })
    .chain((made) => fc.tuple(fc.constant(made), fc.shuffledSubarray([...made.keys()], { minLength: made.length })));
}

describe('vectors', () => {
  const vectors = fc
    .integer({ min: 1, max: 4 })
    .chain((size) => shuffled(fc.array(number, { minLength: size, maxLength: size })));

  it('stand in the order of the inputs, whatever the order of the answer', () => {
    fc.assert(
      fc.property(vectors, ([made, order]) => {
        const data = order.map((index) => ({ index, embedding: made[index] ?? [] }));
        expect(orderedVectors({ data, usage }, made.length, failures)).toEqual({ vectors: made, tokensIn: 7 });
      }),
    );
  });

  it('of other indices, of other lengths, too few or too many are no answer', () => {
    const answer =
      (...data: [number, number[]][]) =>
      () =>
        orderedVectors({ data: data.map(([index, embedding]) => ({ index, embedding })), usage }, 2, failures);
    for (const bad of [
      answer([0, [1]]),
      answer([0, [1]], [0, [1]]),
      answer([0, [1]], [2, [1]]),
      answer([0, [1]], [1, []]),
    ]) {
      expect(bad).toThrow(/embeddings for 2 inputs/);
    }
    expect(answer([0, [1]], [1, [1, 2]])).toThrow(/embeddings for 2 inputs/);
    expect(answer([0, [1]], [1, [1]], [1, [1]])).toThrow(/embeddings for 2 inputs/);
  });
});

describe('a ranking', () => {
  it('names every document once, best first, equals in the order of the documents', () => {
    fc.assert(
      fc.property(shuffled(fc.constantFrom(-1, 0, 0.5, 1)), ([scores, order]) => {
        const results = order.map((index) => ({ index, relevance_score: scores[index] ?? 0 }));
        const ranking = rankingOf({ results, usage }, scores.length, failures).results;
        expect(ranking.map(({ index }) => index).sort((a, b) => a - b)).toEqual([...scores.keys()]);
        for (const { index, score } of ranking) expect(score).toBe(scores[index]);
        for (const [at, next] of ranking.slice(1).entries()) {
          const before = ranking[at];
          expect(before === undefined ? 0 : before.score - next.score || next.index - before.index).toBeGreaterThan(0);
        }
      }),
    );
  });

  it('that leaves one out, doubles one or names another is no answer', () => {
    for (const indices of [[0], [0, 0], [0, 2], [0, 1, 1]]) {
      const results = indices.map((index) => ({ index, relevance_score: 0 }));
      expect(() => rankingOf({ results, usage }, 2, failures)).toThrow(/a ranking of 2 documents/);
    }
  });
});
