import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readFault } from '../../src/engines/launch.js';
import { readSamples, sumOf } from '../../src/engines/prometheus.js';
import { maskSecrets, redact } from '../../src/engines/redact.js';
import { RunningCount, settleEnd } from '../../src/engines/usage.js';

describe('a running count', () => {
  /** Counts as an engine sends them that decodes `sizes` tokens at a time and tells the total in each of their frames. */
  const countsOf = (sizes: readonly number[]): number[] => {
    let total = 0;
    return sizes.flatMap((size) => {
      total += size;
      return Array.from({ length: size }, () => total);
    });
  };
  const verdicts = (counts: readonly number[], total: number): string[] => {
    const running = new RunningCount();
    const each = counts.map((count) => running.next(count, false));
    return [...each, running.end(total)];
  };

  it('agrees with any complete stream, and with none that lost or doubled a frame', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(sizes, fc.nat(), (groups, at) => {
        const counts = countsOf(groups);
        const total = counts.at(-1) ?? 0;
        expect(new Set(verdicts(counts, total))).toEqual(new Set(['ok']));
        const index = at % counts.length;
        expect(verdicts(counts.toSpliced(index, 0, counts[index] ?? 0), total)).toContain('repeated');
        // Tokens at the very end may have no frame (end of sequence), so the loss of the last group cannot be seen.
        if (index === counts.length - 1 && groups.at(-1) === 1) return;
        expect(verdicts(counts.toSpliced(index, 1), total)).toContain('missing');
      }),
    );
  });

  it('takes a leap for several tokens in one frame only where it may be', () => {
    const held = new RunningCount();
    expect([held.next(1, false), held.next(4, true), held.next(5, false), held.end(5)]).toEqual([
      'ok',
      'ok',
      'ok',
      'ok',
    ]);
  });
});

describe('what an engine states at the end', () => {
  const claimed = { finishReason: 'length', tokensIn: 3, tokensOut: 8, decodeMs: 20 } as const;
  const seen = { tokens: 8, maxTokens: 10, sinceRequestMs: 30, sinceFirstTokenMs: 25 };

  it('is believed as far as it can be true', () => {
    expect(settleEnd(claimed, seen)).toEqual({ kind: 'end', ...claimed });
    // Tokens whose text was held back have no event of their own.
    expect(settleEnd({ ...claimed, tokensOut: 10 }, seen)).toMatchObject({ tokensOut: 10 });
    expect(settleEnd({ ...claimed, tokensOut: null, decodeMs: null }, seen)).toEqual({
      ...{ kind: 'end', finishReason: 'length', tokensIn: 3, tokensOut: 8, decodeMs: 25 },
    });
  });

  it.each([
    ['fewer tokens than came', { tokensOut: 7 }, { tokensOut: 8 }],
    ['more tokens than were asked for', { tokensOut: 11 }, { tokensOut: 8 }],
    ['more time than has passed', { decodeMs: 3_600_000 }, { decodeMs: 25 }],
    ['less than no time', { decodeMs: -1 }, { decodeMs: 25 }],
    ['a prompt longer than any', { tokensIn: 4_294_967_295 }, { tokensIn: null }],
  ])('%s: is replaced by our own measure, and named', (_name, lie, truth) => {
    const end = settleEnd({ ...claimed, ...lie }, seen);
    expect(end).toMatchObject(truth);
    expect(end.disbelieved).toContain(String(Object.values(lie)[0]));
  });
});

describe('secrets', () => {
  it('are taken out of texts', () => {
    const text = 'key abcd-efgh and Bearer xyz.123 and hf_abcdefghij and https://u:p@h/x and password="hunter22"';
    const clean = redact(text, ['abcd-efgh']);
    expect(clean).not.toMatch(/abcd|xyz|hf_abc|u:p|hunter/);
    expect(clean).toContain('https://[redacted]h/x');
    expect(redact('a\u001b[31mb\nc')).toBe('a [31mb c');
    expect(redact(`token${' '.repeat(1_000_000)}= secret`).length).toBeLessThan(5_000);
  });

  it('are taken out of arguments, and nothing else is', () => {
    const args = ['--api-key', 'k1', '--hf-token=hf_abcdefghij', '--max-total-tokens', '512', '--model', '/m'];
    expect(maskSecrets(args)).toEqual([
      ...['--api-key', '[redacted]', '--hf-token=[redacted]', '--max-total-tokens', '512', '--model', '/m'],
    ]);
  });
});

describe('Prometheus text', () => {
  it('is read with labels, exponents and escapes; what is no number says nothing', () => {
    const text = '# TYPE a gauge\na{m="x",n="q\\"r"} 1.5e+03\na{m="y"} 2 1700000000\nb nan\nc +Inf\n';
    const samples = readSamples(text);
    expect(sumOf(samples, 'a')).toBe(1_502);
    expect(sumOf(samples, 'a', { m: 'y' })).toBe(2);
    expect(sumOf(samples, 'b')).toBeNull();
    expect(samples[0]?.labels.n).toBe('q\\"r');
  });
});

describe('log patterns', () => {
  it('name the most telling fault, wherever its line stands', () => {
    const patterns = [
      { fault: 'VRAM_OOM_LOAD', pattern: /out of memory/, fix: '' },
      { fault: 'MODEL_UNREADABLE', pattern: /failed to load/, fix: '' },
    ] as const;
    expect(readFault(patterns, ['failed to load', 'out of memory'])?.pattern.fault).toBe('VRAM_OOM_LOAD');
    expect(readFault(patterns, ['fine'])).toBeNull();
  });
});
