import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  checkFit,
  contextTokensOf,
  estimateSplit,
  estimateVram,
  formatBytes,
  type VramEstimate,
  type VramInput,
} from '../../src/core/vram.js';

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** Llama 3 8B in 4 bits, four slots of 4096 tokens. */
const llama8b: VramInput = {
  weightsBytes: 4.3 * GIB,
  outputBytes: 411 * MIB,
  layers: 32,
  kvHeads: 8,
  keyLength: 128,
  valueLength: 128,
  contextTokens: 16_384,
  slots: 4,
};

const sizes = fc.record({
  weightsBytes: fc.integer({ min: 0, max: 2 ** 40 }),
  layers: fc.integer({ min: 0, max: 200 }),
  kvHeads: fc.oneof(fc.integer({ min: 0, max: 128 }), fc.array(fc.integer({ min: 0, max: 128 }), { maxLength: 200 })),
  keyLength: fc.integer({ min: 0, max: 1024 }),
  valueLength: fc.integer({ min: 0, max: 1024 }),
  contextTokens: fc.integer({ min: 0, max: 2 ** 20 }),
  slots: fc.integer({ min: 1, max: 64 }),
  kvElementBytes: fc.constantFrom(0.5625, 34 / 32, 2, 4),
});
const window = fc.record({
  tokens: fc.integer({ min: 1, max: 8192 }),
  layers: fc.array(fc.boolean(), { maxLength: 200 }),
  keyLength: fc.integer({ min: 0, max: 512 }),
  valueLength: fc.integer({ min: 0, max: 512 }),
});
const inputs: fc.Arbitrary<VramInput> = fc
  .tuple(sizes, fc.option(window, { nil: undefined }), fc.option(fc.nat(250), { nil: undefined }))
  .map(([size, windowed, gpuLayers]) => ({
    ...size,
    ...(windowed !== undefined && { window: windowed }),
    ...(gpuLayers !== undefined && { gpuLayers }),
  }));

const partsOf = ({ weightsBytes, kvBytes, overheadBytes }: VramEstimate) => [weightsBytes, kvBytes, overheadBytes];

function expectSound(estimate: VramEstimate): void {
  for (const part of partsOf(estimate)) expect(Number.isSafeInteger(part) && part >= 0).toBe(true);
  expect(partsOf(estimate).reduce((sum, part) => sum + part, 0)).toBe(estimate.totalBytes);
  expect(estimate.arithmetic).not.toMatch(/NaN|undefined|Infinity|e\+|-\d/);
  expect(estimate.arithmetic.endsWith(` = ${formatBytes(estimate.totalBytes)}`)).toBe(true);
}

describe('estimateVram', () => {
  it('adds weights, KV cache and working memory, and shows how', () => {
    const estimate = estimateVram(llama8b);
    expect(estimate.kvBytes).toBe(2 * GIB);
    expect(estimate.overheadBytes).toBe(512 * MIB + 4096 * 1024);
    expect(estimate.arithmetic).toBe(
      '4.3 GiB weights + 2.0 GiB KV cache (32 layers × 8 heads × (128 + 128) × 2 bytes × 4096 tokens × 4 slots) + 0.5 GiB working memory = 6.8 GiB',
    );
  });

  it('counts windows, layers of several kinds, one slot and a quantized cache', () => {
    const mixed: VramInput = {
      ...llama8b,
      slots: 1,
      contextTokens: 8192,
      layers: 4,
      kvHeads: [8, 8, 2, 0],
      kvElementBytes: 34 / 32,
      window: { tokens: 1024, layers: [true, true], keyLength: 256, valueLength: 256 },
    };
    const windowed = 16 * 512 * 1.0625 * 1536;
    const full = 2 * 256 * 1.0625 * 8192;
    expect(estimateVram(mixed).kvBytes).toBe(windowed + full);
    expect(estimateVram(mixed).arithmetic).toContain(
      '(1 layer × 2 heads × (128 + 128) × 1.0625 bytes × 8192 tokens + 2 layers × 8 heads × (256 + 256) × 1.0625 bytes × 1536 tokens)',
    );
    const uneven = estimateVram({ ...llama8b, layers: 3, kvHeads: [8, 4, 0] });
    expect(uneven.arithmetic).toContain('(12 heads of 2 layers × (128 + 128)');
  });

  it('counts only what lies on the GPU', () => {
    expect(partsOf(estimateVram({ ...llama8b, gpuLayers: 0 })).slice(0, 2)).toEqual([0, 0]);
    const output = estimateVram({ ...llama8b, gpuLayers: 1 });
    expect(output.weightsBytes).toBeGreaterThanOrEqual(411 * MIB);
    expect(output.weightsBytes).toBeLessThanOrEqual(411 * MIB + 1);
    expect(estimateVram({ ...llama8b, gpuLayers: 17 }).kvBytes).toBe(GIB);
    expect(estimateVram({ ...llama8b, gpuLayers: 999 })).toEqual(estimateVram(llama8b));
  });

  it('is sound whatever comes in', () => {
    fc.assert(fc.property(inputs, (input) => expectSound(estimateVram(input))));
    const odd = fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, -1, 1e300, 0.1, Number.MAX_SAFE_INTEGER);
    const record = fc.record({
      weightsBytes: odd,
      layers: odd,
      kvHeads: odd,
      keyLength: odd,
      valueLength: odd,
      contextTokens: odd,
      slots: odd,
      kvElementBytes: odd,
      gpuLayers: odd,
    });
    fc.assert(
      fc.property(record, (input) => {
        const estimate = estimateVram(input);
        for (const part of partsOf(estimate)) expect(Number.isSafeInteger(part) && part >= 0).toBe(true);
        expect(partsOf(estimate).reduce((sum, part) => sum + part, 0)).toBe(estimate.totalBytes);
        expect(estimate.arithmetic).not.toMatch(/NaN|undefined/);
      }),
      { numRuns: 200 },
    );
  });

  it.each(['weightsBytes', 'keyLength', 'valueLength', 'contextTokens', 'gpuLayers'] as const)(
    'never falls with more %s',
    (name) => {
      fc.assert(
        fc.property(inputs, fc.integer({ min: 1, max: 10_000 }), (input, more) => {
          const before = estimateVram({ ...input, [name]: input[name] ?? 0 });
          const after = estimateVram({ ...input, [name]: (input[name] ?? 0) + more });
          expect(after.totalBytes).toBeGreaterThanOrEqual(before.totalBytes);
        }),
      );
    },
  );

  it('does not lose a byte of the weights to rounding', () => {
    // Found by the property above, seed -626831256.
    const found = { ...llama8b, layers: 97, kvHeads: [], gpuLayers: 1 };
    expect(estimateVram({ ...found, weightsBytes: 8, outputBytes: 1 }).weightsBytes).toBe(1);
    expect(estimateVram({ ...found, weightsBytes: 9, outputBytes: 1 }).weightsBytes).toBe(1);
  });

  it('never falls with more layers, heads, slots of one size, bytes or a wider window', () => {
    fc.assert(
      fc.property(sizes, window, fc.integer({ min: 1, max: 8 }), (size, windowed, more) => {
        const base = { ...size, window: windowed };
        const total = (change: Partial<VramInput>) => estimateVram({ ...base, ...change }).totalBytes;
        const heads =
          typeof size.kvHeads === 'number' ? size.kvHeads + more : size.kvHeads.map((count) => count + more);
        expect(total({ layers: size.layers + more })).toBeGreaterThanOrEqual(total({}));
        expect(total({ kvHeads: heads })).toBeGreaterThanOrEqual(total({}));
        expect(total({ kvElementBytes: size.kvElementBytes + more })).toBeGreaterThanOrEqual(total({}));
        expect(total({ window: { ...windowed, tokens: windowed.tokens + more } })).toBeGreaterThanOrEqual(total({}));
        const slots = (count: number) =>
          total({ slots: count, contextTokens: contextTokensOf(size.contextTokens, count) });
        expect(slots(size.slots + more)).toBeGreaterThanOrEqual(slots(size.slots));
      }),
    );
  });
});

describe('estimateSplit', () => {
  it('gives whole layers to the devices, and the output matrix to the last', () => {
    const [first, second] = estimateSplit(llama8b, [2, 1]);
    expect(first?.arithmetic).toMatch(/^22 of 33 layers: .*\(22 layers × 8 heads/);
    expect(second?.arithmetic).toMatch(/^11 of 33 layers: .*\(10 layers × 8 heads/);
    const layerBytes = (4.3 * GIB - 411 * MIB) / 32;
    expect(Math.abs((second?.weightsBytes ?? 0) - 10 * layerBytes - 411 * MIB)).toBeLessThan(2);
  });

  it('adds up to the whole: weights and cache once, working memory on each device', () => {
    const ratios = fc.array(fc.double({ min: 0, max: 1e12, noNaN: true }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(inputs, ratios, (input, split) => {
        const whole = estimateVram(input);
        const parts = estimateSplit(input, split);
        expect(parts).toHaveLength(split.length);
        for (const part of parts) expectSound(part);
        const sum = (pick: (estimate: VramEstimate) => number) => parts.reduce((total, part) => total + pick(part), 0);
        expect(sum((part) => part.weightsBytes)).toBe(whole.weightsBytes);
        // A cache of part bytes per element is rounded up on every device.
        expect(Math.abs(sum((part) => part.kvBytes) - whole.kvBytes)).toBeLessThan(split.length + 1);
        expect(sum((part) => part.overheadBytes)).toBe(whole.overheadBytes * split.length);
      }),
    );
  });

  it('splits evenly where ratios say nothing, and leaves out a device with ratio 0', () => {
    const layersOf = (ratios: readonly number[]) =>
      estimateSplit(llama8b, ratios).map(({ arithmetic }) => Number.parseInt(arithmetic, 10));
    expect(layersOf([0, 0])).toEqual([17, 16]);
    expect(layersOf([Number.NaN, 1, -1])).toEqual([0, 33, 0]);
    expect(layersOf([24 * GIB, 12 * GIB])).toEqual([22, 11]);
    expect(estimateSplit(llama8b, [])).toEqual([estimateVram(llama8b)]);
    expect(estimateSplit(llama8b, [7])).toEqual([estimateVram(llama8b)]);
  });
});

describe('checkFit', () => {
  const need = estimateVram(llama8b);
  const device = 'GPU 0 (RTX 3090)';

  it('says nothing when it fits, to the byte', () => {
    expect(checkFit({ need, freeBytes: need.totalBytes, device })).toBeNull();
    expect(checkFit({ need, freeBytes: need.totalBytes - 1, device })).toMatchObject({
      message: expect.stringContaining(', 1 byte less than a replica needs'),
    });
  });

  it('shows the arithmetic, and what to do', () => {
    expect(checkFit({ need, freeBytes: 6 * GIB, device })).toEqual({
      code: 'VRAM_INSUFFICIENT',
      message: `GPU 0 (RTX 3090) has 6.0 GiB of memory free, 0.8 GiB less than a replica needs: ${need.arithmetic}.`,
      fix: expect.stringMatching(/^Lower ctx or slots/),
    });
    expect(checkFit({ need, freeBytes: 4 * GIB, device })?.fix).toMatch(/^The weights alone do not fit/);
    expect(checkFit({ need, freeBytes: Number.NaN, device })?.message).toContain('has 0 bytes of memory free');
  });
});

describe('amounts', () => {
  it.each([
    [0, '0 bytes'],
    [700, '700 bytes'],
    [562_528, '0.5 MiB'],
    [12 * MIB, '12 MiB'],
    [0.5 * GIB, '0.5 GiB'],
    [139.8 * GIB, '139.8 GiB'],
  ])('%d is %s', (bytes, shown) => {
    expect(formatBytes(bytes)).toBe(shown);
  });

  it('round the context of a slot up as llama.cpp does', () => {
    expect([contextTokensOf(4096, 4), contextTokensOf(1000, 4), contextTokensOf(0, 4)]).toEqual([16_384, 4096, 0]);
  });
});
