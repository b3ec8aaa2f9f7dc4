import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { freeSeats, seatsAtStart } from '../../src/core/seats.js';

const ordinals = (seats: readonly { ordinal: number }[]) => seats.map(({ ordinal }) => ordinal);
const engine = (ordinal: number, deviceMask: string, modelRef: string | null = 'm') => ({
  ordinal,
  deviceMask,
  modelRef,
});

describe('the seats of a pool', () => {
  it('are the smallest ordinals, where nothing runs', () => {
    expect(ordinals(seatsAtStart(['0', '1', '0'], 'm', []))).toEqual([0, 1, 2]);
    expect(ordinals(freeSeats(2, new Set([0, 1])))).toEqual([2, 3]);
    expect(ordinals(freeSeats(3, new Set([1, 3])))).toEqual([0, 2, 4]);
  });

  it('keep the engines that a reload left under other ordinals, each on its own devices', () => {
    expect(ordinals(seatsAtStart(['0', '1'], 'm', [engine(2, '0'), engine(3, '1')]))).toEqual([2, 3]);
    expect(ordinals(seatsAtStart(['0', '1'], 'm', [engine(3, '1')]))).toEqual([0, 3]);
    expect(ordinals(seatsAtStart(['0', '1'], 'm', [engine(0, '1')]))).toEqual([1, 0]);
  });

  it('never go to an engine of another model, or on other devices', () => {
    const left = [engine(0, '0', 'old'), engine(1, '1', 'old'), engine(2, '0'), engine(3, '1'), engine(4, '2')];
    expect(ordinals(seatsAtStart(['0', '1'], 'm', left))).toEqual([2, 3]);
    expect(ordinals(seatsAtStart(['0', '1'], 'old', left))).toEqual([0, 1]);
    expect(ordinals(seatsAtStart(['3'], 'm', [engine(5, '3', null)]))).toEqual([0]);
  });

  it('are all different, whatever runs, and waste no engine that fits', () => {
    const mask = fc.constantFrom('0', '1', '2');
    const running = fc.uniqueArray(fc.record({ ordinal: fc.nat(9), deviceMask: mask, modelRef: fc.constant('m') }), {
      selector: ({ ordinal }) => ordinal,
    });
    fc.assert(
      fc.property(fc.array(mask, { maxLength: 5 }), running, (masks, left) => {
        const seats = seatsAtStart(masks, 'm', left);
        expect(seats.map(({ place }) => place)).toEqual([...masks.keys()]);
        expect(new Set(ordinals(seats)).size).toBe(masks.length);
        for (const wanted of new Set(masks)) {
          const places = masks.filter((one) => one === wanted).length;
          const fitting = left.filter((one) => one.deviceMask === wanted).map((one) => one.ordinal);
          const kept = seats.filter((seat) => masks[seat.place] === wanted && fitting.includes(seat.ordinal));
          expect(kept.length).toBeGreaterThanOrEqual(Math.min(places, fitting.length));
        }
      }),
    );
  });
});
