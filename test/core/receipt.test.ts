import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareRuns } from '../../src/core/comparison.js';
import { differences, FIRST_LINK, nextLink, type RunReceipt } from '../../src/core/receipt.js';
import { chainOf, StreamLog } from '../../src/services/streams/log.js';

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

/** Texts as engines send them, U+0000 and lone surrogates among them. */
const text = fc.oneof(fc.string(), fc.constantFrom('', '\0', '\ud83d', '\ude00', '😀', ' the', '"', '\\'));
const texts = fc.array(text, { maxLength: 20 });

describe('the chain of a run', () => {
  it('is what its definition says', () => {
    const first = sha256(`${FIRST_LINK}[0," Hi"]`);
    expect(chainOf([' Hi', '\n'])).toBe(sha256(`${first}[1,"\\n"]`));
    expect(chainOf([])).toBe(FIRST_LINK);
    expect(nextLink(sha256, FIRST_LINK, 0, ' Hi')).toBe(first);
  });

  it('is another one for any other list of tokens', () => {
    fc.assert(
      fc.property(texts, texts, (one, other) => {
        expect(chainOf(one) === chainOf(other)).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
    );
    expect(chainOf(['\ud83d'])).not.toBe(chainOf(['\ude00']));
    expect(chainOf(['ab'])).not.toBe(chainOf(['a', 'b']));
  });

  it('goes on where an earlier attempt was cut', () => {
    fc.assert(
      fc.property(texts, texts, fc.array(fc.nat(3), { maxLength: 5 }), (before, after, cuts) => {
        const log = new StreamLog('t');
        const events = before.map((token, index) => ({
          ...{ kind: 'tokens' as const, seq: index + 1, atMs: 0, firstIndex: index, tokens: [token] },
        }));
        log.restore(events);
        let from = 0;
        for (const cut of [...cuts, after.length]) {
          const part = after.slice(from, from + cut);
          if (part.length > 0) log.append(part, 1);
          from += part.length;
        }
        expect(log.chainHash).toBe(chainOf([...before, ...after]));
      }),
    );
  });
});

const RECEIPT: RunReceipt = {
  engineVersion: 'b1',
  modelId: 'm',
  modelDigest: 'sha256:1',
  launchArgs: ['-m', 'm', '--port', '1', '-t', '4'],
  gpuUuids: ['GPU-a', 'GPU-b'],
  seed: 7n,
  sampler: { version: 'v', temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 },
  claim: { kind: 'byte_exact', because: 'one slot' },
  coResidentMax: 0,
  tokens: 3,
  chainHash: FIRST_LINK,
};

describe('what differs between two runs', () => {
  const codes = (after: Partial<RunReceipt>) =>
    differences(RECEIPT, { ...RECEIPT, ...after }, new Set(['--port'])).map(({ code }) => code);

  it('is nothing for what cannot change bytes', () => {
    const launchArgs = ['-t', '4', '--port', '2', '-m', 'm'];
    expect(codes({ launchArgs, gpuUuids: ['GPU-b', 'GPU-a'], tokens: 4, chainHash: 'x' })).toEqual([]);
  });

  it.each<[string, Partial<RunReceipt>]>([
    ['ENGINE_VERSION', { engineVersion: 'b2' }],
    ['MODEL', { modelId: 'n' }],
    ['MODEL_DIGEST', { modelDigest: null }],
    ['LAUNCH_ARGS', { launchArgs: ['-m', 'm', '-t', '8'] }],
    ['LAUNCH_ARGS', { launchArgs: null }],
    ['GPU', { gpuUuids: ['GPU-a'] }],
    ['SEED', { seed: 8n }],
    ['SAMPLER_PROFILE', { sampler: { ...RECEIPT.sampler, topK: 1 } }],
    ['CO_RESIDENTS', { coResidentMax: 3 }],
  ])('names %s', (code, after) => {
    expect(codes(after)).toEqual([code]);
  });

  it('says what was and what is', () => {
    const [version] = differences(RECEIPT, { ...RECEIPT, engineVersion: 'b2' });
    expect(version?.message).toBe('The engine version: first b1, then b2.');
    const [flag] = differences(RECEIPT, { ...RECEIPT, launchArgs: ['-m', 'm', '--port', '1'] });
    expect(flag?.message).toBe('The launch arguments: -t was 4, then not given.');
  });
});

describe('two runs compared', () => {
  const whole = (...tokens: string[]) => ({ tokens, complete: true });
  const stopped = (...tokens: string[]) => ({ tokens, complete: false });

  it('are identical when they say the same, however it is cut', () => {
    expect(compareRuns(whole('a', 'b', 'c'), whole('a', 'bc'))).toEqual({ verdict: 'identical' });
    expect(compareRuns(whole(), whole())).toEqual({ verdict: 'identical' });
    expect(compareRuns(whole('a', ''), whole('a'))).toEqual({ verdict: 'identical' });
  });

  it('diverge at the first token that is not repeated', () => {
    const other = { verdict: 'diverged', index: 1, expected: 'bb', got: 'bx' };
    expect(compareRuns(whole('a', 'bb', 'c'), whole('a', 'b', 'x'))).toEqual(other);
    const early = { verdict: 'diverged', index: 1, expected: 'b', got: null };
    expect(compareRuns(whole('a', 'b'), whole('a'))).toEqual(early);
    const late = { verdict: 'diverged', index: 1, expected: null, got: 'bc' };
    expect(compareRuns(whole('a'), whole('a', 'b', 'c'))).toEqual(late);
  });

  it('are compared as far as a stopped one came', () => {
    expect(compareRuns(stopped('a'), whole('a', 'b'))).toEqual({ verdict: 'identical' });
    expect(compareRuns(whole('a', 'b'), stopped('a'))).toEqual({ verdict: 'unfinished' });
    const other = { verdict: 'diverged', index: 0, expected: 'a', got: 'x' };
    expect(compareRuns(whole('a', 'b'), stopped('x'))).toEqual(other);
  });

  it('name the place, whatever the texts and the cuts', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ minLength: 1, maxLength: 3 }), { minLength: 1 }), fc.nat(), (tokens, pick) => {
        const index = pick % tokens.length;
        const changed = tokens.map((token, at) => (at === index ? `\u{1F999}${token}` : token));
        const found = compareRuns(whole(...tokens), whole(changed.join('')));
        expect(found).toMatchObject({ verdict: 'diverged', index, expected: tokens[index] });
      }),
    );
  });
});
