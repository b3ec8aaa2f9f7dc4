import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkFit, estimateVram } from '../../src/core/vram.js';
import {
  isNotableRise,
  MIN_SLACK_BYTES,
  needAfterOom,
  needOfPeak,
  notFreed,
  notFreedReason,
  risenBy,
} from '../../src/core/vramObserved.js';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const bytes = fc.integer({ min: 0, max: 200 * 1024 }).map((mib) => mib * MIB);
const real = { label: 'GPU 0 (RTX 3090)', simulated: false };
const estimate = estimateVram({
  ...{ weightsBytes: 4 * GIB, layers: 32, kvHeads: 8, keyLength: 128, valueLength: 128, contextTokens: 4096 },
});

describe('the need of the next start', () => {
  it('is what was observed, with a margin, and says so', () => {
    expect(needOfPeak(estimate, { peakBytes: 5.1 * GIB, runs: 12 }, real)).toEqual({
      totalBytes: Math.ceil(5.1 * GIB * 1.05),
      arithmetic: 'observed peak 5.1 GiB on GPU 0 (RTX 3090), seen 12 times, plus 5 % margin = 5.4 GiB',
    });
    expect(needOfPeak(null, { peakBytes: GIB, runs: 1 }, real)?.arithmetic).toContain('seen once');
  });

  it('has no margin on what is simulated, so that a peak does not grow from start to start', () => {
    const need = needOfPeak(null, { peakBytes: GIB, runs: 3 }, { ...real, simulated: true });
    expect(need).toEqual({ totalBytes: GIB, arithmetic: 'observed peak 1.0 GiB on GPU 0 (RTX 3090), seen 3 times' });
  });

  it('stays the estimate where nothing was observed, or less than the weights alone', () => {
    expect(needOfPeak(estimate, null, real)).toBe(estimate);
    expect(needOfPeak(estimate, { peakBytes: 4 * GIB - 1, runs: 9 }, real)).toBe(estimate);
    expect(needOfPeak(estimate, { peakBytes: 4 * GIB, runs: 9 }, real)?.totalBytes).toBe(Math.ceil(4 * GIB * 1.05));
    expect(needOfPeak(null, null, real)).toBeNull();
  });

  it('after running out of memory is more than there was, whatever was thought before', () => {
    fc.assert(
      fc.property(bytes, bytes, fc.boolean(), (capacityBytes, totalBytes, known) => {
        const before = known ? { totalBytes, arithmetic: 'x' } : null;
        const need = needAfterOom(before, { fault: 'VRAM_OOM_LOAD', capacityBytes });
        expect(need.totalBytes).toBe(Math.max(capacityBytes + 1, before?.totalBytes ?? 0));
        expect(checkFit({ need, freeBytes: capacityBytes, device: 'GPU 0' })).not.toBeNull();
      }),
    );
    const refusal = checkFit({
      need: needAfterOom(estimate, { fault: 'KV_OOM', capacityBytes: 20 * GIB }),
      freeBytes: 20 * GIB,
      device: real.label,
    });
    expect(refusal?.message).toMatch(/1 byte less than .* more than the 20.0 GiB .*ran out of memory \(KV_OOM\)/);
  });
});

describe('what is written and believed', () => {
  it('is a rise of more than a hundredth', () => {
    expect([isNotableRise(101, 100), isNotableRise(102, 100), isNotableRise(1, 0), isNotableRise(0, 0)]).toEqual([
      ...[false, true, true, false],
    ]);
  });

  it('is a difference that is neither noise nor somebody else', () => {
    expect(risenBy(GIB, GIB + MIN_SLACK_BYTES, 0)).toBeNull();
    expect(risenBy(GIB, 6 * GIB, 0)).toBe(5 * GIB);
    expect(risenBy(GIB, 6 * GIB, 4 * GIB)).toBe(5 * GIB);
    expect(risenBy(GIB, 6 * GIB, 2 * GIB)).toBeNull();
    expect(risenBy(6 * GIB, GIB, 0)).toBeNull();
  });
});

describe('memory of an engine that ended', () => {
  const left = { heldBytes: 5 * GIB, usedBytes: 9 * GIB, unlistedBytes: GIB, beforeBytes: 4 * GIB };
  const now = { usedBytes: 4 * GIB, unlistedBytes: GIB, listedBytes: 0, othersBytes: 0 };

  it('is free once the GPU uses so much less, give or take a twentieth', () => {
    expect(notFreed(left, now)).toBe(0);
    expect(notFreed(left, { ...now, usedBytes: 4.2 * GIB, unlistedBytes: 1.2 * GIB })).toBe(0);
    expect(notFreed(left, { ...now, usedBytes: 9 * GIB, unlistedBytes: 6 * GIB })).toBe(5 * GIB);
    expect(notFreed(left, { ...now, usedBytes: 6 * GIB, unlistedBytes: 3 * GIB })).toBe(2 * GIB);
  });

  it('is not missed because others took as much meanwhile', () => {
    // Listed processes answer for themselves; where none are listed, what was booked meanwhile is allowed for.
    expect(notFreed(left, { ...now, usedBytes: 9 * GIB })).toBe(0);
    const untold = { ...now, usedBytes: 9 * GIB, unlistedBytes: null };
    expect(notFreed(left, untold)).toBe(5 * GIB);
    expect(notFreed(left, { ...untold, othersBytes: 5 * GIB })).toBe(0);
    expect(notFreed({ ...left, beforeBytes: 9 * GIB }, untold)).toBe(0);
  });

  it('is held as long as one of its processes is listed', () => {
    expect(notFreed(left, { ...now, listedBytes: 2 * GIB })).toBe(2 * GIB);
  });

  it('is never negative nor more than it held, unless its processes are seen to hold more', () => {
    const maybe = fc.option(bytes, { nil: null });
    fc.assert(
      fc.property(bytes, bytes, maybe, maybe, bytes, maybe, bytes, (heldBytes, used, unlisted, before, ...later) => {
        const [usedBytes, unlistedBytes, othersBytes] = later;
        const last = { heldBytes, usedBytes: used, unlistedBytes: unlisted, beforeBytes: before };
        const missing = notFreed(last, { usedBytes, unlistedBytes, listedBytes: 0, othersBytes });
        expect(missing).toBeGreaterThanOrEqual(0);
        expect(missing).toBeLessThanOrEqual(heldBytes);
      }),
    );
  });

  it('is told with the GPU, the amount, who holds it, and what to do', () => {
    const told = notFreedReason({ device: real.label, bytes: 5 * GIB, pids: [41, 42] });
    expect(told).toMatchObject({
      code: 'VRAM_NOT_FREED',
      message: 'GPU 0 (RTX 3090) still misses 5.0 GiB of an engine that has ended; held by processes 41, 42',
      fix: expect.stringContaining('kill -9 41 42'),
    });
    expect(notFreedReason({ device: real.label, bytes: GIB, pids: [] }).fix).toContain('nvidia-smi');
  });
});
