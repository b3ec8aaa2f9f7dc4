import { describe, expect, it } from 'vitest';
import { type GpuEvent, type GpuPoll, type GpuSample, NO_GAUGES } from '../../src/core/gpu.js';
import { GpuTracker } from '../../src/host/gpu/tracker.js';

function sample(index: number, change: Partial<GpuSample> = {}): GpuSample {
  return {
    ...NO_GAUGES,
    uuid: `GPU-${index}`,
    index,
    name: 'A',
    memoryTotalBytes: 100,
    memoryFreeBytes: 50,
    ...change,
  };
}

function listing(...samples: readonly GpuSample[]): GpuPoll {
  return { ok: true, samples, lost: [], complete: true };
}

const unloaded: GpuPoll = { ok: false, message: 'driver not loaded', fix: 'load it', driverGone: true };

function setup() {
  let nowMs = 0;
  const events: GpuEvent[] = [];
  const clock = { nowMs: () => 1_000_000 + nowMs, monotonicMs: () => nowMs };
  const tracker = new GpuTracker({ clock, staleAfterMs: 10_000, emit: (event) => events.push(event) });
  const pass = (ms: number): void => {
    nowMs += ms;
  };
  return { tracker, events, pass, health: () => tracker.readings().map((reading) => reading.health) };
}

describe('what is known of GPUs', () => {
  it('goes stale once, with the reason, keeps its last numbers and recovers', () => {
    const { tracker, events, pass } = setup();
    tracker.apply(listing(sample(0)));
    pass(10_000);
    tracker.check();
    expect(tracker.readings()[0]).toMatchObject({ stale: false, ageMs: 10_000, memoryFreeBytes: 50 });
    tracker.fail('the driver hangs');
    pass(1);
    tracker.check();
    tracker.check();
    expect(tracker.readings()[0]).toMatchObject({ stale: true, ageMs: 10_001, memoryFreeBytes: 50, health: 'ok' });
    expect(tracker.readings()[0]?.reason).toBe('the driver hangs');
    tracker.apply(listing(sample(0, { memoryFreeBytes: 10 })));
    expect(tracker.readings()[0]).toMatchObject({ stale: false, ageMs: 0, memoryFreeBytes: 10, reason: null });
    expect(events).toEqual([
      { type: 'stale', uuid: 'GPU-0', ageMs: 10_001, reason: 'the driver hangs' },
      { type: 'recovered', uuid: 'GPU-0', from: 'stale' },
    ]);
  });

  it('keeps a GPU that vanished as lost until it is back', () => {
    const { tracker, events, health } = setup();
    tracker.apply(listing(sample(0), sample(1)));
    tracker.apply(listing(sample(0)));
    tracker.apply(listing(sample(0)));
    expect(health()).toEqual(['ok', 'lost']);
    expect(tracker.anyLost).toBe(true);
    tracker.apply(listing(sample(0), sample(1)));
    expect(health()).toEqual(['ok', 'ok']);
    expect(events).toEqual([
      { type: 'lost', uuid: 'GPU-1', reason: expect.stringContaining('does not list') },
      { type: 'recovered', uuid: 'GPU-1', from: 'lost' },
    ]);
  });

  it('calls nobody lost on an incomplete list, except whom the list names, by uuid or by index', () => {
    const { tracker, events, health } = setup();
    tracker.apply(listing(sample(0), sample(1), sample(2)));
    tracker.apply({ ok: true, samples: [sample(0)], lost: [], complete: false });
    expect(health()).toEqual(['ok', 'ok', 'ok']);
    const lost = [
      { uuid: 'GPU-1', index: 1, reason: 'fell off' },
      { uuid: null, index: 2, reason: 'unreadable' },
    ];
    tracker.apply({ ok: true, samples: [sample(0)], lost, complete: false });
    expect(health()).toEqual(['ok', 'lost', 'lost']);
    expect(events.map((event) => 'reason' in event && event.reason)).toEqual(['fell off', 'unreadable']);
  });

  it('stays degraded after a fatal XID, whatever harmless one follows, until the GPU was reset', () => {
    const { tracker, events, health } = setup();
    tracker.apply(listing(sample(0), sample(1)));
    tracker.xid('GPU-0', 95);
    tracker.xid('GPU-0', 45);
    tracker.apply(listing(sample(0), sample(1)));
    expect(health()).toEqual(['degraded', 'ok']);
    expect(tracker.readings()[0]).toMatchObject({
      lastXid: { xid: 45, class: 'companion', atMs: 1_000_000 },
      reason: expect.stringContaining('XID 95'),
    });
    tracker.apply(unloaded);
    tracker.apply(listing(sample(0), sample(1)));
    expect(health()).toEqual(['ok', 'ok']);
    expect(events.at(-1)).toMatchObject({ type: 'driver_reset', uuids: ['GPU-0', 'GPU-1'] });
    tracker.apply(listing(sample(0), sample(1)));
    expect(events.filter((event) => event.type === 'driver_reset')).toHaveLength(1);
  });

  it('knows a reset by the count of memory errors that began anew', () => {
    const { tracker, events, health } = setup();
    tracker.apply(listing(sample(0, { eccUncorrected: 3 })));
    tracker.xid('GPU-0', 95);
    expect(health()).toEqual(['degraded']);
    tracker.apply(listing(sample(0, { eccUncorrected: null })));
    tracker.apply(listing(sample(0, { eccUncorrected: 3 })));
    expect(events.some((event) => event.type === 'driver_reset')).toBe(false);
    tracker.apply(listing(sample(0, { eccUncorrected: 0 })));
    expect(health()).toEqual(['ok']);
    expect(events.at(-1)).toMatchObject({ type: 'driver_reset', uuids: ['GPU-0'] });
  });

  it('takes a repeated context switch timeout for fatal, but not one a day later', () => {
    const { tracker, pass, health } = setup();
    tracker.apply(listing(sample(0)));
    tracker.xid('GPU-0', 109);
    pass(86_400_000);
    tracker.xid('GPU-0', 109);
    expect(health()).toEqual(['ok']);
    pass(1000);
    tracker.xid('GPU-0', 109);
    expect(health()).toEqual(['degraded']);
  });

  it('tells XIDs of unknown GPUs, and keeps the memory size a GPU once had', () => {
    const { tracker, events } = setup();
    tracker.xid(null, 79);
    expect(events).toMatchObject([{ type: 'xid', uuid: null, xid: 79, class: 'fatal_reboot' }]);
    tracker.apply(listing(sample(0, { memoryTotalBytes: null })));
    expect(tracker.readings()).toEqual([]);
    tracker.apply(listing(sample(0)));
    tracker.apply(listing(sample(0, { memoryTotalBytes: null, memoryFreeBytes: null })));
    expect(tracker.readings()[0]).toMatchObject({ gpu: { memoryTotalBytes: 100 }, memoryFreeBytes: null });
  });
});
