import { describe, expect, it } from 'vitest';
import { classifyXid, type GpuSample, healthOf, isStale, NO_GAUGES, plausible } from '../../src/core/gpu.js';

const sample: GpuSample = { ...NO_GAUGES, uuid: 'GPU-1', index: 0, name: 'A', memoryTotalBytes: 100 };

describe('the rules about GPUs', () => {
  it.each([
    [13, 'app_fault', false],
    [31, 'app_fault', false],
    [43, 'app_fault', false],
    [45, 'companion', false],
    [172, 'companion', false],
    [46, 'fatal_reset', true],
    [48, 'fatal_reset', true],
    [62, 'fatal_reset', true],
    [64, 'fatal_reset', true],
    [95, 'fatal_reset', true],
    [119, 'fatal_reset', true],
    [120, 'fatal_reset', true],
    [140, 'fatal_reset', true],
    [79, 'fatal_reboot', true],
    [94, 'contained', true],
    [63, 'warn', true],
    [74, 'warn', true],
    [92, 'warn', false],
    [109, 'warn', false],
    [154, 'warn', false],
    [12_345, 'warn', false],
  ])('XID %i is %s', (xid, xidClass, degrades) => {
    const facts = classifyXid(xid);
    expect(facts).toMatchObject({ xid, class: xidClass, degrades });
    expect(facts.action).not.toBe('');
  });

  it('takes a context switch timeout for fatal once it repeats, and no other warning', () => {
    expect(classifyXid(109, true).class).toBe('fatal_reset');
    expect(classifyXid(92, true).class).toBe('warn');
  });

  it('calls a reading stale past the limit, not at it', () => {
    expect(isStale(10_000)).toBe(false);
    expect(isStale(10_001)).toBe(true);
    expect(isStale(51, 50)).toBe(true);
  });

  it('does not pass on numbers that cannot be', () => {
    expect(
      plausible({
        ...sample,
        memoryFreeBytes: 101,
        memoryUsedBytes: -1,
        utilizationPercent: 4_294_967_295,
        temperatureC: 999,
        eccUncorrected: Number.NaN,
        powerWatts: -5,
      }),
    ).toEqual(sample);
    const fine = { ...sample, memoryFreeBytes: 40, memoryUsedBytes: 60, utilizationPercent: 100, temperatureC: 0 };
    expect(plausible(fine)).toEqual(fine);
    expect(plausible({ ...sample, memoryTotalBytes: 0 }).memoryTotalBytes).toBeNull();
  });

  it('names the worst about a GPU and why', () => {
    const well = { lost: null, needsRepair: null, eccUncorrected: 0 };
    expect(healthOf(well)).toEqual({ health: 'ok', reason: null });
    expect(healthOf({ ...well, eccUncorrected: null }).health).toBe('ok');
    expect(healthOf({ ...well, eccUncorrected: 2 })).toMatchObject({
      health: 'degraded',
      reason: expect.stringContaining('2 uncorrected'),
    });
    expect(healthOf({ ...well, needsRepair: 'XID 95' })).toEqual({ health: 'degraded', reason: 'XID 95' });
    expect(healthOf({ lost: 'gone', needsRepair: 'XID 79', eccUncorrected: 1 })).toEqual({
      health: 'lost',
      reason: 'gone',
    });
  });
});
