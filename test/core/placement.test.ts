import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  AUTO_PLACEMENT,
  choosePool,
  PLACEMENT_RULES,
  type PlacementRequest,
  type PoolCandidate,
} from '../../src/core/placement.js';
import { offersOf, WORKLOADS } from '../../src/core/workload.js';

const FIXES = { completion: 'fix c', embedding: 'fix e', rerank: 'fix r' };
const IDS = ['a', 'b', 'c', 'd', 'e'] as const;
const milliseconds = fc.option(fc.nat(2000), { nil: null });

const candidate: fc.Arbitrary<PoolCandidate> = fc.record({
  id: fc.constantFrom(...IDS),
  engine: fc.constantFrom('llamacpp' as const, 'vllm' as const),
  modelRef: fc.constantFrom('m', 'n'),
  contextLength: fc.constantFrom(512, 4096),
  deviceMask: fc.constantFrom('0', '0,1'),
  draining: fc.boolean(),
  ready: fc.boolean(),
  recoverable: fc.boolean(),
  slotsFree: fc.nat(3),
  queueDepth: fc.nat(3),
  vramFreeBytes: fc.nat(3),
  sessionHere: fc.boolean(),
  forecast: fc.record({ earliestMs: milliseconds, startMs: milliseconds, endMs: milliseconds }),
  offers: fc.subarray([...WORKLOADS]).map((taken) => offersOf(taken, FIXES)),
});
const pools = fc.uniqueArray(candidate, { selector: ({ id }) => id });
const names = fc.subarray([...IDS]);
const request: fc.Arbitrary<PlacementRequest> = fc.record({
  workload: fc.constantFrom(...WORKLOADS),
  engine: fc.constantFrom('llamacpp' as const, 'vllm' as const),
  modelRef: fc.constantFrom('m', 'n'),
  ctx: fc.constantFrom(256, 1024),
  deadlineMs: fc.integer({ min: 1, max: 2000 }),
  placement: fc.record({
    mode: fc.constantFrom('pin' as const, 'prefer' as const, 'auto' as const),
    pinPoolId: fc.option(fc.constantFrom(...IDS), { nil: null }),
    preferPools: names,
    avoidPools: names,
    requireDeviceMask: fc.option(fc.constantFrom('0', '0,1'), { nil: null }),
    allowFallback: fc.boolean(),
  }),
});

function pool(overrides: Partial<PoolCandidate>): PoolCandidate {
  return {
    ...{ id: 'a', engine: 'llamacpp', modelRef: 'm', contextLength: 4096, deviceMask: '0', draining: false },
    ...{ ready: true, recoverable: true, slotsFree: 1, queueDepth: 0 },
    ...overrides,
  };
}

const plain: PlacementRequest = {
  ...{ workload: 'completion', engine: 'llamacpp', modelRef: 'm', ctx: 1024, deadlineMs: 60_000 },
  placement: AUTO_PLACEMENT,
};

function order(made: PlacementRequest, candidates: readonly PoolCandidate[]): string[] {
  const ranked = choosePool(made, candidates).explanation.candidates.filter(({ rank }) => rank !== null);
  return ranked.sort((a, b) => (a.rank ?? 0) - (b.rank ?? 0)).map(({ poolId }) => poolId);
}

describe('whatever is asked of whatever pools', () => {
  it('the choice and every verdict are the same for every order of the pools', () => {
    const shuffled = pools.chain((made) =>
      fc.tuple(fc.constant(made), fc.shuffledSubarray(made, { minLength: made.length, maxLength: made.length })),
    );
    fc.assert(
      fc.property(request, shuffled, (made, [one, other]) => {
        const byId = (of: readonly PoolCandidate[]) => {
          const { candidates, ...rest } = choosePool(made, of).explanation;
          return { ...rest, candidates: [...candidates].sort((a, b) => (a.poolId < b.poolId ? -1 : 1)) };
        };
        expect(byId(one)).toEqual(byId(other));
      }),
    );
  });

  it('every pool has a verdict; the ranks are 1, 2, … of those that break no rule; the first is chosen', () => {
    fc.assert(
      fc.property(request, pools, (made, all) => {
        const outcome = choosePool(made, all);
        const { candidates, chosen } = outcome.explanation;
        expect(candidates.map(({ poolId }) => poolId)).toEqual(all.map(({ id }) => id));
        for (const { broken, refusedBecause, rank } of candidates) {
          expect(refusedBecause).toBe(broken[0]?.message ?? null);
          expect(rank === null).toBe(broken.length > 0);
          const places = broken.map(({ rule }) => PLACEMENT_RULES.indexOf(rule));
          expect(places).toEqual([...new Set(places)].sort((a, b) => a - b));
        }
        const ranks = candidates.flatMap(({ rank }) => rank ?? []).sort((a, b) => a - b);
        expect(ranks).toEqual(ranks.map((_, index) => index + 1));
        expect(chosen).toBe(candidates.find(({ rank }) => rank === 1)?.poolId ?? null);
        expect(outcome.ok).toBe(chosen !== null);
      }),
    );
  });

  it('a pin never falls back, and no override is ever passed over', () => {
    fc.assert(
      fc.property(request, pools, (made, all) => {
        const { placement } = made;
        const chosen = all.find(({ id }) => id === choosePool(made, all).explanation.chosen);
        if (chosen === undefined) return;
        if (placement.mode === 'pin') expect(chosen.id).toBe(placement.pinPoolId);
        if (placement.mode === 'prefer' && !placement.allowFallback) expect(placement.preferPools).toContain(chosen.id);
        expect(placement.avoidPools).not.toContain(chosen.id);
        if (placement.requireDeviceMask !== null) expect(chosen.deviceMask).toBe(placement.requireDeviceMask);
        expect([chosen.engine, chosen.modelRef]).toEqual([made.engine, made.modelRef]);
        expect(chosen.contextLength).toBeGreaterThanOrEqual(made.ctx);
        expect([chosen.draining, chosen.recoverable]).toEqual([false, true]);
      }),
    );
  });
});

describe('between feasible pools', () => {
  it('goes by readiness, the wish of the caller, the session, free slots, the queue, VRAM, the id', () => {
    const all = [
      pool({ id: 'h', slotsFree: 0, queueDepth: 2 }),
      pool({ id: 'g', slotsFree: 0, queueDepth: 1 }),
      pool({ id: 'f' }),
      pool({ id: 'e', vramFreeBytes: 5 }),
      pool({ id: 'd', slotsFree: 2 }),
      pool({ id: 'c', slotsFree: 0, queueDepth: 9, sessionHere: true }),
      pool({ id: 'b', slotsFree: 0, queueDepth: 9 }),
      pool({ id: 'a', ready: false, slotsFree: 9, sessionHere: true }),
    ];
    const made = { ...plain, placement: { ...AUTO_PLACEMENT, mode: 'prefer' as const, preferPools: ['b'] } };
    expect(order(made, all)).toEqual(['b', 'c', 'd', 'e', 'f', 'g', 'h', 'a']);
  });

  it('goes by the predicted end where every one has it, and leaves it out where one has not', () => {
    const late = pool({ id: 'a', slotsFree: 2, forecast: { earliestMs: 0, startMs: 0, endMs: 900 } });
    const soon = pool({ id: 'b', slotsFree: 0, forecast: { earliestMs: 0, startMs: 100, endMs: 400 } });
    expect(order(plain, [late, soon])).toEqual(['b', 'a']);
    const { explanation } = choosePool(plain, [late, soon, pool({ id: 'c', slotsFree: 1 })]);
    expect(explanation).toMatchObject({ chosen: 'a', rule: expect.not.stringContaining('predicted') });
  });
});

describe('a deadline', () => {
  const late = (id: string, earliestMs: number) =>
    pool({ id, slotsFree: 0, forecast: { earliestMs, startMs: 2 * earliestMs, endMs: null } });

  it('moves the task to a pool that meets it, and is refused with the wait where none does', () => {
    const made = { ...plain, deadlineMs: 500 };
    expect(choosePool(made, [late('a', 900), late('b', 400)]).explanation.chosen).toBe('b');
    expect(choosePool(made, [late('a', 900), late('b', 700)])).toMatchObject({
      ok: false,
      refusal: { family: 'invalid', code: 'DEADLINE_UNMET', field: 'deadline_ms', retriable: true, retryAfterMs: 250 },
      explanation: { candidates: [{ broken: [{ rule: 'DEADLINE' }] }, { broken: [{ rule: 'DEADLINE' }] }] },
    });
    // A pool that would be late, and could not take it anyway, is not why.
    expect(choosePool(made, [{ ...late('a', 900), draining: true }])).toMatchObject({
      refusal: { code: 'POOL_UNAVAILABLE' },
    });
  });

  it('refuses nothing for want of data', () => {
    expect(choosePool({ ...plain, deadlineMs: 1 }, [pool({ slotsFree: 0, queueDepth: 99 })]).ok).toBe(true);
  });
});

describe('when no pool is left, the refusal', () => {
  const wish = (placement: Partial<PlacementRequest['placement']>) => ({
    ...plain,
    placement: { ...AUTO_PLACEMENT, ...placement },
  });

  it('names the pin, the overrides, or what passes', () => {
    const refusal = (made: PlacementRequest, all: PoolCandidate[]) => {
      const outcome = choosePool(made, all);
      return outcome.ok ? null : outcome.refusal;
    };
    expect(refusal(wish({ mode: 'pin' }), [pool({})])).toMatchObject({ field: 'placement.pin_pool_id' });
    expect(refusal(wish({ mode: 'pin', pinPoolId: 'a', avoidPools: ['a'] }), [pool({}), pool({ id: 'b' })])).toEqual(
      expect.objectContaining({
        field: 'placement',
        message: 'the placement leaves no pool (a: avoided by the request)',
      }),
    );
    expect(refusal(wish({ avoidPools: ['a'] }), [pool({}), pool({ id: 'b', draining: true })])).toMatchObject({
      code: 'POOL_UNAVAILABLE',
    });
    expect(refusal(wish({ mode: 'prefer', preferPools: ['x'], allowFallback: false }), [pool({})])).toMatchObject({
      code: 'INVALID_PARAMS',
      message: expect.stringContaining('fallback is off'),
    });
    expect(refusal(wish({ requireDeviceMask: '7' }), [pool({})])).toMatchObject({ field: 'placement' });
    expect(refusal(plain, [pool({ ready: false, recoverable: false })])).toMatchObject({ code: 'POOL_UNREADY' });
  });
});
