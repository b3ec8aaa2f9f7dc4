import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  freeMemory,
  leastCapability,
  type RegistryEntry,
  type RegistryReplica,
  registryEntry,
} from '../../src/core/registry.js';
import { REPLICA_STATES } from '../../src/core/replica.js';

const ids = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const number = fc.option(fc.double({ min: 0, max: 1e6, noNaN: true }));
const replica: fc.Arbitrary<RegistryReplica> = fc.record({
  id: ids,
  state: fc.constantFrom(...REPLICA_STATES),
  slotsTotal: fc.nat(16),
  engineVersion: fc.option(fc.string()),
  lastError: fc.option(fc.record({ code: fc.string(), message: fc.string(), fix: fc.constant(null) })),
  lastHeartbeatMs: number,
  tokensPerSecond: number,
  firstTokenMs: number,
});
const replicas = fc.uniqueArray(replica, { selector: ({ id }) => id, maxLength: 5 });
/** Also counts that cannot be: below zero, above the slots, of replicas of others. */
const held = fc
  .array(fc.tuple(fc.oneof(ids, fc.constant('other')), fc.integer({ min: -4, max: 40 })))
  .map((entries) => new Map<string, number>(entries));

const NOTHING: RegistryEntry = {
  slotsTotal: 0,
  slotsFree: 0,
  activeLeases: 0,
  engineVersion: null,
  lastError: null,
  lastHeartbeatMs: null,
  tokensPerSecond: null,
  firstTokenMs: null,
};

describe('the entry of a pool', () => {
  it('never counts below zero, above its slots, or what is not its own', () => {
    fc.assert(
      fc.property(fc.boolean(), replicas, held, (draining, all, leases) => {
        const entry = registryEntry({ draining }, all, leases);
        const own = all.map(({ id }) => Math.max(0, leases.get(id) ?? 0));
        expect(entry.activeLeases).toBe(own.reduce((sum, count) => sum + count, 0));
        expect(entry.slotsFree).toBeGreaterThanOrEqual(0);
        expect(entry.slotsFree).toBeLessThanOrEqual(entry.slotsTotal);
        const ready = all.filter(({ state }) => state === 'READY');
        if (draining || ready.length === 0) expect(entry.slotsFree).toBe(0);
        const idle = registryEntry({ draining }, all, new Map());
        expect(idle.activeLeases).toBe(0);
        if (!draining) expect(idle.slotsFree).toBe(ready.reduce((sum, { slotsTotal }) => sum + slotsTotal, 0));
      }),
    );
  });

  it('has one free slot less for each that is taken of a ready replica', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 16 }), fc.nat(16), (slotsTotal, taken) => {
        const one = { ...NOTHING, id: 'a', state: 'READY' as const, slotsTotal };
        const { slotsFree, activeLeases } = registryEntry({ draining: false }, [one], new Map([['a', taken]]));
        expect({ slotsFree, activeLeases }).toEqual({
          slotsFree: Math.max(0, slotsTotal - taken),
          activeLeases: taken,
        });
      }),
    );
  });

  it('is empty for a pool that nobody knows, whatever is held elsewhere', () => {
    expect(registryEntry({ draining: true }, [], new Map([['other', 3]]))).toEqual(NOTHING);
  });

  it('takes hints from the replicas that have some', () => {
    const reason = { code: 'X', message: 'broken', fix: null };
    const of = (facts: Partial<RegistryReplica>): RegistryReplica => ({
      ...{ ...NOTHING, id: 'a', state: 'READY', slotsTotal: 1 },
      ...facts,
    });
    const all = [
      of({ id: 'a', lastHeartbeatMs: 10, tokensPerSecond: 20 }),
      of({ id: 'b', state: 'BACKING_OFF', lastError: reason, engineVersion: 'b1', lastHeartbeatMs: 5 }),
      of({ id: 'c', tokensPerSecond: 40, firstTokenMs: 7, engineVersion: 'b2' }),
    ];
    expect(registryEntry({ draining: false }, all, new Map([['c', 1]]))).toEqual({
      ...{ slotsTotal: 3, slotsFree: 1, activeLeases: 1, engineVersion: 'b1', lastError: reason },
      ...{ lastHeartbeatMs: 10, tokensPerSecond: 30, firstTokenMs: 7 },
    });
  });
});

describe('a device', () => {
  it('has free what is neither booked nor used by others, and never less than nothing', () => {
    expect(freeMemory(100, 30, null)).toBe(70);
    expect(freeMemory(100, 30, 50)).toBe(50);
    expect(freeMemory(100, 30, 90)).toBe(70);
    expect(freeMemory(100, 130, null)).toBe(0);
  });

  it('among several decides by the least that it can do, read as a number', () => {
    expect(leastCapability(['9.0', null, '8.6'])).toBe('8.6');
    expect(leastCapability(['12.0', '8.9'])).toBe('8.9');
    expect(leastCapability([null])).toBeNull();
  });
});
