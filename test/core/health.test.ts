import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { breakerOf } from '../../src/core/breaker.js';
import { healthOf, isStalled, NO_SPEED, speedAfter, type Vitals } from '../../src/core/health.js';
import { REPLICA_STATES } from '../../src/core/replica.js';

const idle: Vitals = { silentForMs: null, idleTimeoutMs: 30_000, canaryMs: null, speed: NO_SPEED };

describe('health by progress', () => {
  it.each([
    ['idle, nothing known', {}, 'READY'],
    ['tokens come', { silentForMs: 100 }, 'READY'],
    ['a long prompt is read', { silentForMs: 7_000 }, 'READY'],
    ['a quarter of the idle timeout without a token', { silentForMs: 7_500 }, 'SLOW'],
    ['half of it', { silentForMs: 15_000 }, 'STALLED'],
    ['a quick canary', { canaryMs: 200 }, 'READY'],
    ['a slow canary', { canaryMs: 5_000 }, 'SLOW'],
    ['a slow canary before the work that is under way', { canaryMs: 5_000, silentForMs: 10 }, 'READY'],
    ['half of its usual speed', { speed: { recent: 20, usual: 40 } }, 'READY'],
    ['a tenth of its usual speed', { speed: { recent: 4, usual: 40 } }, 'SLOW'],
    ['short silences, a short idle timeout', { silentForMs: 400, idleTimeoutMs: 1_000 }, 'READY'],
    ['a stall, a short idle timeout', { silentForMs: 500, idleTimeoutMs: 1_000 }, 'STALLED'],
  ] as const)('%s: %o is %s', (_name, over, expected) => {
    expect(healthOf('READY', { ...idle, ...over })).toBe(expected);
  });

  it('is not judged by vitals before Ready, nor after', () => {
    const stalled = { ...idle, silentForMs: 60_000 };
    const told = Object.fromEntries(REPLICA_STATES.map((state) => [state, healthOf(state, stalled)]));
    expect(told).toEqual({
      ...{ ABSENT: 'LOADING', PROVISIONING: 'LOADING', STARTING: 'LOADING', PRELOADING: 'LOADING' },
      ...{ SELF_TESTING: 'LOADING', READY: 'STALLED', DRAINING: 'STALLED' },
      ...{ STOPPING: 'DEAD', BACKING_OFF: 'DEAD', QUARANTINED: 'DEAD', FAILED: 'DEAD' },
    });
  });

  it('calls a stall before the streams are given up, and slow before stalled', () => {
    fc.assert(
      fc.property(fc.integer({ min: 100, max: 3_600_000 }), fc.nat(3_600_000), (idleTimeoutMs, silentForMs) => {
        const health = healthOf('READY', { ...idle, idleTimeoutMs, silentForMs });
        if (silentForMs >= idleTimeoutMs) expect(health).toBe('STALLED');
        expect(health === 'STALLED').toBe(isStalled({ silentForMs, idleTimeoutMs }));
        if (health === 'SLOW') expect(silentForMs).toBeGreaterThanOrEqual(1_000);
      }),
    );
  });

  it('follows the speed of the last tasks, and remembers the usual one', () => {
    let speed = speedAfter(NO_SPEED, null);
    expect(speed).toEqual(NO_SPEED);
    for (let task = 0; task < 50; task += 1) speed = speedAfter(speed, 40);
    expect(speed).toEqual({ recent: 40, usual: 40 });
    for (let task = 0; task < 8; task += 1) speed = speedAfter(speed, 2);
    expect(healthOf('READY', { ...idle, speed })).toBe('SLOW');
    for (let task = 0; task < 8; task += 1) speed = speedAfter(speed, 40);
    expect(healthOf('READY', { ...idle, speed })).toBe('READY');
  });
});

describe('the circuit breaker', () => {
  it('is open where no work may go, half open on trial, closed where nothing failed', () => {
    const at = (failures: number, suspect = false) =>
      Object.fromEntries(REPLICA_STATES.map((state) => [state, breakerOf({ state, failures, suspect })]));
    const open = { BACKING_OFF: 'OPEN', QUARANTINED: 'OPEN', FAILED: 'OPEN' };
    const all = (state: string) => Object.fromEntries(REPLICA_STATES.map((name) => [name, state]));
    expect(at(0)).toEqual({ ...all('CLOSED'), ...open });
    expect(at(1)).toEqual({ ...all('HALF_OPEN'), ...open });
    expect(at(0, true)).toEqual({ ...all('CLOSED'), ...open, READY: 'OPEN', DRAINING: 'OPEN' });
  });
});
