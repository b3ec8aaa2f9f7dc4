import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AUTO_PLACEMENT, choosePool, type PoolCandidate } from '../../src/core/placement.js';
import { groupsOf, MAX_INPUTS, offersOf, textsOf, WORKLOADS } from '../../src/core/workload.js';

describe('the texts of a task', () => {
  const texts = fc.record({
    prompt: fc.option(fc.string(), { nil: null }),
    inputs: fc.option(fc.array(fc.string()), { nil: null }),
  });

  it('are what a caller gave: one prompt for a completion, every input for the others', () => {
    fc.assert(
      fc.property(texts, (given) => {
        const { prompt, inputs } = given;
        const joined = prompt ?? inputs?.join('\n') ?? '';
        expect(textsOf('completion', given)).toEqual({ prompt: joined, inputs: [] });
        expect(textsOf('rerank', given)).toEqual({ prompt: prompt ?? '', inputs: inputs ?? [] });
        const alone = prompt !== null && (inputs === null || inputs.length === 0);
        const embedded = alone ? { prompt: '', inputs: [prompt] } : { prompt: prompt ?? '', inputs: inputs ?? [] };
        expect(textsOf('embedding', given)).toEqual(embedded);
      }),
    );
  });

  it('go to an engine in their order, in groups of some', () => {
    const long = fc.nat(5).map((size) => 'k'.repeat(size * 30_000));
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.string(), long), { maxLength: 100 }), (inputs) => {
        const groups = groupsOf(inputs);
        expect(groups.flatMap((group) => group.inputs)).toEqual(inputs);
        for (const { first, inputs: own } of groups) {
          expect(own).toEqual(inputs.slice(first, first + own.length));
          expect(own.length).toBeGreaterThan(0);
          expect(own.length).toBeLessThanOrEqual(32);
          if (own.length > 1) expect(own.join('').length).toBeLessThanOrEqual(128 * 1024);
        }
      }),
    );
    expect(groupsOf(Array(MAX_INPUTS).fill(''))).toHaveLength(MAX_INPUTS / 32);
  });
});

describe('a pool that does not take a workload', () => {
  const FIXES = { completion: 'fix c', embedding: 'fix e', rerank: 'fix r' };
  const pool = (id: string, taken: readonly (typeof WORKLOADS)[number][]): PoolCandidate => ({
    ...{ id, engine: 'llamacpp', modelRef: 'm', contextLength: 64, deviceMask: '0', draining: false, ready: true },
    ...{ recoverable: true, slotsFree: 1, queueDepth: 0, offers: offersOf(taken, FIXES) },
  });
  const plain = { engine: 'llamacpp', modelRef: 'm', ctx: 64, deadlineMs: 1, placement: AUTO_PLACEMENT } as const;

  it('is passed over for one that does, and names the fix where there is none', () => {
    for (const workload of WORKLOADS) {
      const others = WORKLOADS.filter((other) => other !== workload);
      const both = [pool('a', others), pool('b', [workload])];
      const { explanation } = choosePool({ ...plain, workload }, both);
      expect(explanation).toMatchObject({
        chosen: 'b',
        candidates: [{ broken: [{ rule: 'WORKLOAD' }] }, { broken: [] }],
      });
      expect(choosePool({ ...plain, workload }, [pool('a', others)])).toMatchObject({
        refusal: { family: 'invalid', field: 'workload', message: expect.stringContaining(FIXES[workload]) },
      });
      const pinned = { ...plain, workload, placement: { ...AUTO_PLACEMENT, mode: 'pin' as const, pinPoolId: 'a' } };
      expect(choosePool(pinned, both)).toMatchObject({
        refusal: { field: 'placement', message: expect.stringContaining(FIXES[workload]) },
      });
    }
  });

  it('takes completions alone where nothing else is known', () => {
    const { offers: _unknown, ...candidate } = pool('a', []);
    expect(choosePool({ ...plain, workload: 'completion' }, [candidate]).ok).toBe(true);
    expect(choosePool({ ...plain, workload: 'rerank' }, [candidate]).ok).toBe(false);
  });
});
