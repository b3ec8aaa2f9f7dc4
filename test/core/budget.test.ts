import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Amounts,
  BUDGET_KINDS,
  type Budget,
  budgetLeft,
  costMicros,
  FRESH,
  needOf,
  refusedByBudget,
  reserve,
  settle,
  shortOf,
  TIME_SLICE_MS,
} from '../../src/core/budget.js';
import { promptCache, refusedByTurns } from '../../src/core/session.js';

const limit = fc.option(fc.integer({ min: 0, max: 2_000_000 }), { nil: null });
const limits = fc.record({ tokens: limit, timeMs: limit, costMicros: limit });
const amount = fc.nat(3_000_000);
const used = fc.record({ tokens: amount, timeMs: amount, costMicros: amount });
const cost = fc.record({ promptTokens: fc.nat(5_000), maxTokens: fc.nat(5_000), priceMicros: fc.nat(1_000_000) });
const steps = fc.array(fc.oneof(fc.record({ cost }), fc.record({ pick: fc.nat(20), used })), { maxLength: 60 });

describe('a budget', () => {
  it('is never exceeded by what is spent and reserved, and owes nothing once all tasks have ended', () => {
    fc.assert(
      fc.property(limits, steps, (most, run) => {
        let budget: Budget = { limits: most, ...FRESH };
        const open: Amounts[] = [];
        const end = (at: number, by: Amounts) => {
          for (const held of open.splice(at, 1)) budget = settle(budget, held, by);
        };
        for (const step of run) {
          if ('used' in step) end(step.pick % Math.max(1, open.length), step.used);
          else {
            const need = needOf(budget, step.cost);
            if (shortOf(budget, need) !== null) continue;
            budget = reserve(budget, need);
            open.push(need);
          }
          for (const kind of BUDGET_KINDS) {
            expect(Math.min(budget.spent[kind], budget.reserved[kind])).toBeGreaterThanOrEqual(0);
            expect(budgetLeft(budget)[kind] ?? 0).toBeGreaterThanOrEqual(0);
          }
        }
        while (open.length > 0) end(0, { tokens: 1, timeMs: 1, costMicros: 1 });
        expect(budget.reserved).toEqual({ tokens: 0, timeMs: 0, costMicros: 0 });
      }),
    );
  });

  it('counts only what has a limit, takes time in slices, and rounds a cost up', () => {
    const budget: Budget = { limits: { tokens: null, timeMs: 7_000, costMicros: 10 }, ...FRESH };
    const need = needOf(budget, { promptTokens: 3, maxTokens: 4, priceMicros: 100 });
    expect(need).toEqual({ tokens: 0, timeMs: TIME_SLICE_MS, costMicros: 1 });
    const rest = needOf(reserve(budget, need), { promptTokens: 3, maxTokens: 4, priceMicros: 100 });
    expect(rest.timeMs).toBe(2_000);
    expect(costMicros(1_000, 250_000)).toBe(250_000);
  });
});

describe('a refusal', () => {
  const short = { kind: 'tokens', limit: 100, spent: 40, reserved: 50, need: 60 } as const;

  it('is for now where tasks under way may give back enough, else for good, and names the fix', () => {
    expect(refusedByBudget('s', short)).toMatchObject({
      ...{ family: 'backpressure', code: 'ADMISSION_REJECT', policyLabel: 'session-budget', retriable: true },
      message: expect.stringContaining('has 10 tokens of its token budget of 100 tokens left, and 50 tokens reserved'),
    });
    expect(refusedByBudget('s', { ...short, need: 61 })).toMatchObject({
      ...{ family: 'invalid', code: 'INVALID_PARAMS', field: 'max_tokens', retriable: false },
      message: expect.stringContaining('setSessionBudget'),
    });
    const time = { kind: 'timeMs', limit: 100, spent: 100, reserved: 0, need: 1 } as const;
    expect(refusedByBudget('s', time)).toMatchObject({ family: 'invalid', field: 'session_id' });
    expect(refusedByTurns('s', 8)).toMatchObject({ family: 'invalid', field: 'session_id' });
  });
});

describe('the prompt cache', () => {
  it('is used where nothing speaks against it; strict determinism does, whatever is hinted', () => {
    const used = (determinism: 'strict' | 'best_effort', kvHint: 'reuse' | 'cold' | null) =>
      promptCache({ determinism, kvHint }).used;
    expect([used('best_effort', 'reuse'), used('best_effort', null), used('best_effort', 'cold')]).toEqual([
      true,
      true,
      false,
    ]);
    expect([used('strict', 'reuse'), used('strict', null), used('strict', 'cold')]).toEqual([false, false, false]);
    expect(promptCache({ determinism: 'strict', kvHint: 'reuse' }).because).toContain('gives way');
  });
});
