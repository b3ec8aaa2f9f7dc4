import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AUTO_PLACEMENT, choosePool, type PlacementOverrides, type PoolCandidate } from '../../src/core/placement.js';
import { replaced, strandedFailure } from '../../src/core/stranded.js';

function pool(id: string, overrides: Partial<PoolCandidate> = {}): PoolCandidate {
  return {
    ...{ id, engine: 'llamacpp', modelRef: 'old', contextLength: 4096, deviceMask: '0', draining: false },
    ...{ ready: true, recoverable: true, slotsFree: 1, queueDepth: 0 },
    ...overrides,
  };
}

const WANTED = { workload: 'completion', engine: 'llamacpp', modelRef: 'old', ctx: 1024 } as const;

/** Placed by these overrides among pools as they were, then looked at again with the pools as they are. */
function again(placement: Partial<PlacementOverrides>, then: readonly PoolCandidate[], now: readonly PoolCandidate[]) {
  const request = { ...WANTED, deadlineMs: 60_000, placement: { ...AUTO_PLACEMENT, ...placement } };
  const placed = choosePool(request, then);
  if (!placed.ok) throw new Error(placed.refusal.message);
  const task = { ...WANTED, poolId: placed.poolId, remainingMs: 1_000, told: placed.explanation };
  return { task, chosen: replaced(task, now).chosen };
}

const BOTH = [pool('a'), pool('b', { slotsFree: 0 })];
const RELOADED = [pool('a', { modelRef: 'new' }), pool('b', { slotsFree: 0 })];

describe('a task whose pool was given another model', () => {
  it('goes where its caller left it free to go', () => {
    expect(again({}, BOTH, RELOADED).chosen).toBe('b');
    expect(again({ mode: 'prefer', preferPools: ['a'] }, BOTH, RELOADED).chosen).toBe('b');
    expect(again({ mode: 'prefer', preferPools: ['a', 'b'], allowFallback: false }, BOTH, RELOADED).chosen).toBe('b');
  });

  it('goes nowhere else: not past a pin, a refused fallback, a pool it avoids, or a device mask', () => {
    expect(again({ mode: 'pin', pinPoolId: 'a' }, BOTH, RELOADED).chosen).toBeNull();
    expect(again({ mode: 'prefer', preferPools: ['a'], allowFallback: false }, BOTH, RELOADED).chosen).toBeNull();
    expect(again({ avoidPools: ['b'] }, BOTH, RELOADED).chosen).toBeNull();
    const masked = (pools: readonly PoolCandidate[]) =>
      pools.map((one) => (one.id === 'b' ? { ...one, deviceMask: '1' } : one));
    expect(again({ requireDeviceMask: '0' }, masked(BOTH), masked(RELOADED)).chosen).toBeNull();
  });

  it('does not go to a pool that cannot have it now, and does to one that could not have it then', () => {
    const b = (overrides: Partial<PoolCandidate>) => [RELOADED[0] ?? pool('a'), pool('b', overrides)];
    for (const overrides of [{ draining: true }, { recoverable: false }, { contextLength: 512 }, { modelRef: 'new' }])
      expect(again({}, BOTH, b(overrides)).chosen, JSON.stringify(overrides)).toBeNull();
    const forecast = { earliestMs: 2_000, startMs: 2_000, endMs: null };
    expect(again({}, BOTH, b({ forecast })).chosen).toBeNull();
    expect(again({}, [pool('a'), pool('b', { draining: true })], RELOADED).chosen).toBe('b');
    expect(again({}, [pool('a')], RELOADED).chosen, 'a pool that was not there then').toBeNull();
  });

  it('keeps what its caller demanded when it moves again', () => {
    const three = (models: readonly string[]) =>
      models.map((modelRef, n) => pool('abc'[n] ?? '', { modelRef, slotsFree: 3 - n }));
    const first = again({ avoidPools: ['c'] }, three(['old', 'old', 'old']), three(['new', 'old', 'old']));
    expect(first.chosen).toBe('b');
    const told = replaced(first.task, three(['new', 'old', 'old']));
    const second = replaced({ ...first.task, poolId: 'b', told }, three(['old', 'new', 'old']));
    expect(second.chosen).toBe('a');
  });

  it('never goes where a new submission of the same task would not', () => {
    const names = ['a', 'b', 'c'];
    const some = fc.record({
      modelRef: fc.constantFrom('old', 'new'),
      deviceMask: fc.constantFrom('0', '1'),
      draining: fc.boolean(),
      recoverable: fc.boolean(),
    });
    const pools = fc.tuple(some, some, some).map((rest) => rest.map((one, n) => pool(names[n] ?? '', one)));
    const overrides = fc.record({
      mode: fc.constantFrom('pin' as const, 'prefer' as const, 'auto' as const),
      pinPoolId: fc.constantFrom(...names),
      preferPools: fc.subarray(names),
      avoidPools: fc.subarray(names),
      requireDeviceMask: fc.constantFrom(null, '0', '1'),
      allowFallback: fc.boolean(),
    });
    const check = (placement: PlacementOverrides, then: readonly PoolCandidate[], now: readonly PoolCandidate[]) => {
      const request = { ...WANTED, deadlineMs: 1_000, placement };
      if (!choosePool(request, then).ok) return;
      const fixed = now.map((one, n) => ({ ...one, deviceMask: then[n]?.deviceMask ?? '0' }));
      const { task, chosen } = again(placement, then, fixed);
      const fresh = choosePool(request, fixed).explanation.candidates;
      const allowed = fresh.filter(({ broken, poolId }) => broken.length === 0 && poolId !== task.poolId);
      const names = allowed.map(({ poolId }) => poolId);
      if (chosen === null) expect(names).toEqual([]);
      else expect(names).toContain(chosen);
    };
    fc.assert(fc.property(overrides, pools, pools, check), { numRuns: 300 });
  });

  it('ends with an error that names the reload, where it can go nowhere', () => {
    const { task } = again({}, BOTH, RELOADED);
    expect(strandedFailure(task, 'new')).toMatchObject({
      code: 'POOL_UNAVAILABLE',
      message: expect.stringContaining('a reload gave pool a the model new in place of old'),
      retriable: true,
    });
  });
});
