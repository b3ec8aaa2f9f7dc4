import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  gradeQuote,
  MIN_SAMPLES,
  mixServices,
  observeService,
  onTimeProbability,
  predictStartMs,
  quoteStart,
  type ServiceTime,
  UNKNOWN_SERVICE,
} from '../../src/core/prediction.js';
import type { StartBasis } from '../../src/core/queue.js';

const time = fc.double({ min: 0, max: 1e7, noNaN: true });
const basis: fc.Arbitrary<StartBasis> = fc
  .record({
    slotsTotal: fc.nat(40),
    slotsFree: fc.nat(40),
    serviceMs: time,
    deviationMs: time,
    samples: fc.nat(50),
    slotsReady: fc.integer({ min: 1, max: 40 }),
    heldMs: fc.array(time, { maxLength: 50 }),
  })
  .map((made) => ({ ...made, slotsFree: Math.min(made.slotsFree, made.slotsTotal) }));
const known: StartBasis = { slotsTotal: 1, slotsFree: 0, serviceMs: 100, deviationMs: 20, samples: 9, slotsReady: 1 };

function quoted(position: number, of: StartBasis) {
  const { quote } = quoteStart(position, of);
  if (quote === null) throw new Error('withheld');
  return quote;
}

describe('a quote', () => {
  it('is never earlier further back, finite, p90 not below p50, and the same every time', () => {
    fc.assert(
      fc.property(basis, fc.nat(500), fc.nat(500), (made, position, further) => {
        const near = quoteStart(position, made);
        expect(quoteStart(position, made)).toEqual(near);
        const far = quoteStart(position + further, made);
        expect(predictStartMs(position, made)).toBeLessThanOrEqual(predictStartMs(position + further, made));
        if (near.quote === null) {
          expect(near.withheld).toBe('THIN_DATA');
          expect(far.quote).toBeNull();
          return;
        }
        const { p50Ms, p90Ms } = near.quote;
        expect([Number.isFinite(p50Ms), Number.isFinite(p90Ms), p50Ms >= 0, p90Ms >= p50Ms]).not.toContain(false);
        expect(p50Ms).toBe(predictStartMs(position, made));
        if (far.quote === null) return;
        expect(far.quote.p50Ms).toBeGreaterThanOrEqual(p50Ms);
        expect(far.quote.p90Ms).toBeGreaterThanOrEqual(p90Ms);
      }),
    );
  });

  it('is 0 where a slot is free, also with nothing measured', () => {
    fc.assert(
      fc.property(basis, fc.nat(40), (made, position) => {
        const { quote } = quoteStart(position, made);
        const isFree = position < made.slotsFree;
        expect(quote?.basis === 'slot_free').toBe(isFree);
        if (isFree) expect(quote).toMatchObject({ p50Ms: 0, p90Ms: 0 });
      }),
    );
  });

  it('is withheld while the data is thin, and while nobody serves', () => {
    expect(quoteStart(0, { ...known, samples: MIN_SAMPLES - 1 })).toEqual({ quote: null, withheld: 'THIN_DATA' });
    expect(quoteStart(0, { ...known, samples: MIN_SAMPLES }).withheld).toBeNull();
    expect(quoteStart(0, { ...known, slotsReady: 0 })).toEqual({ quote: null, withheld: 'POOL_UNREADY' });
    // A basis from before these were kept.
    expect(quoteStart(0, { slotsTotal: 1, slotsFree: 0, serviceMs: 100 }).withheld).toBe('THIN_DATA');
  });

  it('knows how far each running task is', () => {
    const regular = { ...known, slotsTotal: 2, deviationMs: 0 };
    expect(predictStartMs(0, { ...regular, heldMs: [90, 30] })).toBe(10);
    expect(predictStartMs(1, { ...regular, heldMs: [90, 30] })).toBe(70);
    expect(predictStartMs(2, { ...regular, heldMs: [90, 30] })).toBe(110);
    // One that is overdue may end at any moment; where services scatter as much as they last, it has no memory.
    expect(predictStartMs(0, { ...known, deviationMs: 0, heldMs: [5000] })).toBe(0);
    expect(predictStartMs(0, { ...known, deviationMs: 100, heldMs: [5000] })).toBe(100);
  });

  it('is wider where services scatter more, and where fewer were measured', () => {
    const width = (of: StartBasis) => quoted(3, of).p90Ms - quoted(3, of).p50Ms;
    expect(width({ ...known, deviationMs: 0 })).toBe(0);
    expect(width({ ...known, deviationMs: 40 })).toBeGreaterThan(width(known));
    expect(width({ ...known, samples: 5 })).toBeGreaterThan(width(known));
  });

  it('covers what it says it covers, for scattered services of a busy pool', () => {
    // A small fixed generator: the test is the same every time.
    let state = 12345;
    const dice = () => {
      state = (state * 1103515245 + 12345) % 2147483648;
      return state / 2147483648;
    };
    const service = () => 60 + 80 * dice();
    const rounds = 2000;
    let under50 = 0;
    let under90 = 0;
    for (let round = 0; round < rounds; round += 1) {
      const slots = 1 + Math.floor(dice() * 4);
      const position = Math.floor(dice() * 20);
      const running = Array.from({ length: slots }, () => {
        const total = service();
        return { heldMs: total * dice(), total };
      });
      const heldMs = running.map((task) => task.heldMs);
      const quote = quoted(position, { ...known, slotsTotal: slots, deviationMs: 23.1, heldMs });
      const free = running.map((task) => task.total - task.heldMs).sort((a, b) => a - b);
      let start = 0;
      for (let n = 0; n <= position; n += 1) {
        start = free.shift() ?? 0;
        free.push(start + service());
        free.sort((a, b) => a - b);
      }
      if (start <= quote.p50Ms) under50 += 1;
      if (start <= quote.p90Ms) under90 += 1;
    }
    expect(under50 / rounds).toBeGreaterThan(0.4);
    expect(under50 / rounds).toBeLessThan(0.75);
    expect(under90 / rounds).toBeGreaterThan(0.85);
  });

  it('is graded against the wait that came', () => {
    const quote = { p50Ms: 100, p90Ms: 300 };
    expect([0, 150, 151, 350, 351].map((ms) => gradeQuote(quote, ms))).toEqual([
      'within_p50',
      'within_p50',
      'within_p90',
      'within_p90',
      'over_p90',
    ]);
  });
});

describe('service times', () => {
  it('stay within what was seen, and never become no number', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(time, fc.constantFrom(Number.NaN, -1, Infinity)), { maxLength: 60 }), (samples) => {
        const seen = samples.filter((ms) => ms >= 0 && Number.isFinite(ms));
        const service = samples.reduce(observeService, UNKNOWN_SERVICE);
        expect(service.samples).toBe(seen.length);
        expect(service.meanMs).toBeGreaterThanOrEqual(seen.length === 0 ? 0 : Math.min(...seen) * 0.999);
        expect(service.meanMs).toBeLessThanOrEqual(Math.max(0, ...seen) * 1.001);
        expect(service.varianceMs2).toBeGreaterThanOrEqual(0);
        expect(Number.isFinite(service.varianceMs2)).toBe(true);
      }),
    );
  });

  it('take the first samples alike, and forget old ones', () => {
    expect([10, 30].reduce(observeService, UNKNOWN_SERVICE)).toEqual({ samples: 2, meanMs: 20, varianceMs2: 100 });
    const changed = [...Array(50).fill(10), ...Array(50).fill(500)].reduce<ServiceTime>(
      observeService,
      UNKNOWN_SERVICE,
    );
    expect(changed.meanMs).toBeGreaterThan(499);
  });

  it('mix by what is ahead, and are known as well as the least known part', () => {
    const quick = { samples: 100, meanMs: 10, varianceMs2: 0 };
    const slow = { samples: 7, meanMs: 110, varianceMs2: 0 };
    const parts = [
      { tasks: 1, service: quick },
      { tasks: 1, service: slow },
    ];
    expect(mixServices(parts)).toEqual({ samples: 7, meanMs: 60, varianceMs2: 2500 });
    expect(mixServices([])).toEqual(UNKNOWN_SERVICE);
  });
});

describe('the chance to end in time', () => {
  const pace = { remainingMs: 1000, tokensLeft: 50, firstTokenMs: 0, tokensPerSecond: 100 };

  it('rises with time, falls with work, and stays between 0 and 1', () => {
    const arbitrary = fc.record({
      remainingMs: fc.double({ min: -1e6, max: 1e9, noNaN: true }),
      tokensLeft: fc.nat(100_000),
      firstTokenMs: fc.double({ min: 0, max: 1e6, noNaN: true }),
      tokensPerSecond: fc.double({ min: 0, max: 1e5, noNaN: true }),
    });
    fc.assert(
      fc.property(arbitrary, fc.nat(10_000), (made, more) => {
        const chance = onTimeProbability(made);
        expect(chance >= 0 && chance <= 1).toBe(true);
        expect(onTimeProbability({ ...made, remainingMs: made.remainingMs + more })).toBeGreaterThanOrEqual(chance);
        expect(onTimeProbability({ ...made, tokensLeft: made.tokensLeft + more })).toBeLessThanOrEqual(chance);
      }),
    );
  });

  it('is even where time and work are, sure where nothing is left, and nil after the deadline', () => {
    expect(onTimeProbability({ ...pace, remainingMs: 500 })).toBe(0.5);
    expect(onTimeProbability(pace)).toBeGreaterThan(0.99);
    expect(onTimeProbability({ ...pace, remainingMs: 250 })).toBeLessThan(0.01);
    expect(onTimeProbability({ ...pace, tokensLeft: 0, remainingMs: -5 })).toBe(1);
    expect(onTimeProbability({ ...pace, remainingMs: 0 })).toBe(0);
  });
});
