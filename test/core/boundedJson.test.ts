import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { JsonError, parseJson } from '../../src/core/boundedJson.js';

const LIMITS = { maxDepth: 20, maxParts: 200 };
const NO_LIMITS = { maxDepth: 1_000, maxParts: 1_000_000 };

function attempt(parse: () => unknown): unknown {
  try {
    return { value: parse() };
  } catch (error) {
    return error instanceof SyntaxError || error instanceof JsonError ? 'broken' : error;
  }
}

describe('what it reads', () => {
  it('is what JSON.parse reads, written in any way', () => {
    fc.assert(
      fc.property(fc.json({ stringUnit: 'binary' }), fc.constantFrom('', ' ', '\n\t'), (text, indent) => {
        const value: unknown = JSON.parse(text);
        for (const written of [text, JSON.stringify(value, null, indent), ` ${text}\r\n`]) {
          expect(parseJson(written, NO_LIMITS)).toEqual(value);
        }
      }),
    );
  });

  it('is broken where it is broken for JSON.parse: something left out, put in or changed', () => {
    const piece = fc.oneof(fc.constantFrom(...'[]{}:,"\\-+.eE01 \n\0u', 'true', '\u2028'), fc.string({ maxLength: 2 }));
    fc.assert(
      fc.property(fc.json({ maxDepth: 2 }), fc.nat(), fc.nat(3), piece, (text, place, removed, put) => {
        const at = place % (text.length + 1);
        const changed = text.slice(0, at) + put + text.slice(at + removed);
        const ours = attempt(() => parseJson(changed, NO_LIMITS));
        // The same name twice is for us alone an error.
        if (ours === 'broken' && /"(.*)".*"\1"/s.test(changed)) return;
        expect(ours).toEqual(attempt(() => JSON.parse(changed)));
      }),
      { numRuns: 2_000 },
    );
  });

  it.each([
    '',
    ' ',
    '01',
    '-',
    '1.',
    '.5',
    '+1',
    'NaN',
    'tru',
    '"',
    '"\\',
    '"\\"',
    '"\\u12"',
    '"\n"',
    '[1,]',
    '{"a":1,}',
    '{a:1}',
    '\uFEFF1',
    '[1 2]',
  ])('is not JSON: %j', (text) => {
    expect(attempt(() => JSON.parse(text))).toBe('broken');
    expect(() => parseJson(text, LIMITS)).toThrow('is not valid JSON');
  });

  it('gives numbers as they were written to whoever makes values of them', () => {
    expect(parseJson('[9007199254740993, -1.50e2]', LIMITS, String)).toEqual(['9007199254740993', '-1.50e2']);
  });

  it('never touches a prototype', () => {
    const value = parseJson('{"__proto__":{"polluted":true},"constructor":{"prototype":1}}', LIMITS) as object;
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor']);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });
});

describe('what it does not let in', () => {
  it.each<[string, string, string]>([
    ['the same name twice', '{"a":1,"b":{},"\\u0061":1}', 'has an object with the same name twice'],
    ['the prototype twice', '{"__proto__":1,"__proto__":1}', 'has an object with the same name twice'],
    ['lists in lists', '['.repeat(100_000), 'is nested more than 20 deep'],
    ['objects in objects', '{"a":'.repeat(100_000), 'is nested more than 20 deep'],
    ['a long list', `[${'1,'.repeat(200)}1]`, 'has more than 200 names and values'],
    [
      'many names',
      JSON.stringify(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, i]))),
      'has more than 200',
    ],
  ])('%s', (_name, text, message) => {
    expect(() => parseJson(text, LIMITS)).toThrow(message);
  });

  it('begins one beyond the limits', () => {
    expect(parseJson(`${'['.repeat(20)}${']'.repeat(20)}`, LIMITS)).toHaveLength(1);
    expect(parseJson(`[${'1,'.repeat(198)}1]`, LIMITS)).toHaveLength(199);
  });
});
