import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FlagChange, flagChanges } from '../../src/core/flags.js';

const change = (flag: string, before: string | null, after: string | null): FlagChange => ({ flag, before, after });

describe('changes of flags', () => {
  it.each<[string, string, string, FlagChange[]]>([
    ['a value', '--ctx 4096', '--ctx 8192', [change('--ctx', '4096', '8192')]],
    ['a value behind =', '--ctx=4096', '--ctx=8192', [change('--ctx', '4096', '8192')]],
    ['the way it is written', '--ctx 4096 -n=1', '-n 1 --ctx=4096', []],
    ['a short flag', '-c 4096', '-c 8192', [change('-c', '4096', '8192')]],
    ['a flag that came', 'serve m', 'serve m --embedding', [change('--embedding', null, '')]],
    ['a flag that went', '--mlock --ctx 1', '--ctx 1', [change('--mlock', '', null)]],
    ['a flag that got a value', '--flash-attn --ctx 1', '--flash-attn on --ctx 1', [change('--flash-attn', '', 'on')]],
    [
      'a negative number',
      '-ngl 99 --temp .5',
      '-ngl -1 --temp -.5',
      [change('--temp', '.5', '-.5'), change('-ngl', '99', '-1')],
    ],
    ['one of several values', '--lora a --lora b', '--lora b', [change('--lora', 'a', null)]],
    ['a value in the middle', '--lora a --lora b --lora c', '--lora a --lora x --lora c', [change('--lora', 'b', 'x')]],
    ['bare flags, counted', '-v -v', '-v -v -v', [change('-v', null, '')]],
    ['words', 'serve m1 --ctx 1', 'serve m2 --ctx 1', [change('', 'm1', 'm2')]],
    ['a word behind a value', '--port 1 m1', '--port 2 m2', [change('', 'm1', 'm2')]],
    ['a word behind --', '--mlock -- --ctx 1', '--mlock -- --ctx 2', [change('', '1', '2')]],
    ['standard input', '--file - --ctx 1', '--file x --ctx 1', [change('--file', '-', 'x')]],
    ['more than one =', '--override a=1', '--override=a=2', [change('--override', 'a=1', 'a=2')]],
    ['a port', '--port 4001 --ctx 1', '--ctx 1 --port=4002', []],
  ])('%s', (_name, before, after, want) => {
    expect(flagChanges(before.split(' '), after.split(' '), new Set(['--port']))).toEqual(want);
  });

  const value = fc.oneof(
    fc.constantFrom('', '1', '-1', '-.5', '-', 'a=b', '{"k": [1]}'),
    fc.string().filter((text) => !text.startsWith('-')),
  );
  const occurrence = fc.record({ style: fc.constantFrom('next word', 'equals', 'bare'), value });
  const flags = fc.array(
    fc.record({
      flag: fc.constantFrom('--ctx', '--port', '-n', '--lora', '--mlock', '--__proto__', '-ngl'),
      occurrences: fc.array(occurrence, { minLength: 1, maxLength: 4 }),
    }),
    { maxLength: 6 },
  );
  type Flags = typeof flags extends fc.Arbitrary<infer Value> ? Value : never;
  const unique = flags.map((all) => all.filter(({ flag }, at) => all.findIndex((other) => other.flag === flag) === at));

  const written = (given: Flags): string[] =>
    given.flatMap(({ flag, occurrences }) =>
      occurrences.flatMap(({ style, value: text }) => {
        if (style === 'bare') return [flag];
        return style === 'equals' ? [`${flag}=${text}`] : [flag, text];
      }),
    );
  const valuesOf = (given: Flags, name: string): string[] =>
    given
      .filter(({ flag }) => flag === name)
      .flatMap(({ occurrences }) => occurrences.map(({ style, value: text }) => (style === 'bare' ? '' : text)));
  /** How often each text is there. */
  const counts = (texts: readonly (string | null)[]) => {
    const count = new Map<string, number>();
    for (const text of texts) if (text !== null) count.set(text, (count.get(text) ?? 0) + 1);
    return count;
  };

  it('say neither more nor less than what differs', () => {
    fc.assert(
      fc.property(unique, unique, (before, after) => {
        const changes = flagChanges(written(before), written(after));
        for (const { flag } of [...before, ...after]) {
          const [old, now] = [valuesOf(before, flag), valuesOf(after, flag)];
          const own = changes.filter((found) => found.flag === flag);
          expect(own.length === 0).toBe(JSON.stringify(old) === JSON.stringify(now));
          // What was there and what came is what is there and what went.
          expect(counts([...old, ...own.map((found) => found.after)])).toEqual(
            counts([...now, ...own.map((found) => found.before)]),
          );
        }
        for (const found of changes) expect(found.before).not.toBe(found.after);
      }),
    );
  });

  it('do not depend on the order of different flags', () => {
    fc.assert(
      fc.property(unique, unique, (before, after) => {
        expect(flagChanges(written(before), written([...before].reverse()))).toEqual([]);
        expect(flagChanges(written([...before].reverse()), written([...after].reverse()))).toEqual(
          flagChanges(written(before), written(after)),
        );
      }),
    );
  });

  it('backwards are the same changes turned round', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.array(fc.string()), (before, after) => {
        const forth = flagChanges(before, after);
        expect(flagChanges(after, before)).toEqual(forth.map(({ flag, ...of }) => change(flag, of.after, of.before)));
        expect(forth.length).toBeLessThanOrEqual(before.length + after.length);
      }),
    );
  });

  it('leave out what is ignored, and nothing else', () => {
    fc.assert(
      fc.property(unique, unique, fc.constantFrom('--port', '-n'), (before, after, name) => {
        expect(flagChanges(written(before), written(after), new Set([name]))).toEqual(
          flagChanges(written(before), written(after)).filter(({ flag }) => flag !== name),
        );
      }),
    );
  });
});
