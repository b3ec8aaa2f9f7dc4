import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Replay } from '../../src/core/replay.js';

describe('a repeated run', () => {
  it('gives what goes beyond the log', () => {
    const replay = new Replay(['a', 'b', 'c']);
    expect(replay.take(['a', 'b'])).toEqual({ verdict: 'same', fresh: [] });
    expect([replay.done, replay.index]).toEqual([false, 2]);
    expect(replay.take(['c', 'd', ''])).toEqual({ verdict: 'same', fresh: ['d', ''] });
    expect(replay.done).toBe(true);
    expect(replay.take(['e'])).toEqual({ verdict: 'same', fresh: ['e'] });
  });

  it('names the logged token that was not repeated', () => {
    expect(new Replay(['a', 'bc', 'd']).take(['a', 'b', 'x'])).toEqual({ verdict: 'diverged', index: 1 });
  });

  it('compares the tokens that hold text back one by one', () => {
    const replay = new Replay(['a', '']);
    expect(replay.take(['a', ''])).toEqual({ verdict: 'same', fresh: [] });
    expect(replay.take(['', '😀'])).toEqual({ verdict: 'same', fresh: ['', '😀'] });
  });

  it('does not miss tokens without text that were merged away at its end', () => {
    const replay = new Replay(['a', '', '']);
    expect(replay.take(['a'])).toEqual({ verdict: 'same', fresh: [] });
    expect([replay.done, replay.finish()]).toEqual([false, true]);
    const cut = new Replay(['ab', '']);
    cut.take(['a']);
    expect(cut.finish()).toBe(false);
  });

  it('takes the same text however it is cut, and finds a difference wherever it is', () => {
    const cutInto = (text: string, sizes: readonly number[]): string[] => {
      const parts: string[] = [];
      let rest = text;
      for (const size of sizes) {
        parts.push(rest.slice(0, size));
        rest = rest.slice(size);
      }
      return [...parts, rest];
    };
    const sizes = fc.array(fc.nat(4), { maxLength: 8 });
    fc.assert(
      fc.property(
        fc.string({ maxLength: 20 }),
        fc.string({ maxLength: 5 }),
        sizes,
        sizes,
        (text, more, first, second) => {
          const replay = new Replay(cutInto(text, first));
          const outcome = replay.take(cutInto(text + more, second));
          expect(outcome.verdict === 'same' && outcome.fresh.join('')).toBe(more);
          if (text === '') return;
          const changed = `${text.slice(0, -1)}${text.endsWith('x') ? 'y' : 'x'}`;
          const diverged = new Replay(cutInto(text, first)).take(cutInto(changed, second));
          expect(diverged.verdict).toBe('diverged');
        },
      ),
    );
  });
});
