import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { EndEvent, StreamEvent } from '../../src/core/frame.js';
import { type Cursor, StreamLog } from '../../src/services/streams/log.js';
import { eventsPast, storedEvent } from '../../src/services/streams/stored.js';
import type { StoredChunk } from '../../src/store/tasks.js';

const started = {
  kind: 'started' as const,
  seq: 0 as const,
  atMs: 1,
  queuePosition: 0,
  predictedStartMs: 0,
  replicaId: 'r',
  seed: '1',
};

function endAt(seq: number): EndEvent {
  return { kind: 'end', seq, atMs: 9, tokensOut: seq - 1, decodeMs: 1, canceled: false, finishReason: 'stop' };
}

function tokensOf(events: readonly StreamEvent[]): string[] {
  return events.flatMap((event) => (event.kind === 'tokens' ? event.tokens : []));
}

type Step = { do: 'append'; texts: string[] } | { do: 'read'; reader: number } | { do: 'metrics' } | { do: 'flush' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      texts: fc.array(fc.string(), { minLength: 1, maxLength: 5 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('read' as const), reader: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'metrics' as const }) },
  { weight: 2, arbitrary: fc.constant({ do: 'flush' as const }) },
);

/** Runs the steps on one log with three readers; returns what each saw and what was handed over to be stored. */
function play(steps: readonly Step[]) {
  const log = new StreamLog('t');
  const readers = [0, 1, 2].map(() => ({
    cursor: { seq: -1, seamAttempt: 0, marksPassed: null } as Cursor,
    seen: [] as StreamEvent[],
  }));
  const stored: StoredChunk[] = [];
  const flush = () => {
    for (const chunk of log.takeUnwritten())
      stored.push({ ...chunk, payload: JSON.parse(JSON.stringify(chunk.payload)), ord: stored.length });
  };
  const read = (index: number) => {
    const reader = readers[index];
    if (reader !== undefined) reader.seen.push(...log.read(reader.cursor));
  };
  log.start(started);
  for (const action of steps) {
    if (action.do === 'append') log.append(action.texts, 5);
    else if (action.do === 'read') read(action.reader);
    else if (action.do === 'flush') flush();
    else log.mark({ kind: 'metrics', seq: log.tokens.length, atMs: 2, queueDepth: 0, kvWarmth: false });
  }
  expect(log.seal()).toBe(true);
  flush();
  log.end(endAt(log.tokens.length + 1));
  for (const index of [0, 1, 2]) read(index);
  return { log, readers, stored };
}

describe('StreamLog', () => {
  it('gives every reader every token once and in order, however it reads, and the end last', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { log, readers } = play(steps);
        for (const { seen } of readers) {
          expect(seen[0]?.kind).toBe('started');
          expect(tokensOf(seen)).toEqual(log.tokens);
          expect(seen.filter((event) => event.kind === 'end')).toHaveLength(1);
          expect(seen.at(-1)?.kind).toBe('end');
          let next = 0;
          for (const event of seen) {
            if (event.kind !== 'tokens') continue;
            expect(event.firstIndex).toBe(next);
            next += event.tokens.length;
            expect(event.seq).toBe(next);
          }
          expect(seen.filter((event) => event.kind === 'metrics')).toHaveLength(
            steps.filter((action) => action.do === 'metrics').length,
          );
        }
      }),
    );
  });

  it('stores what it shows: a reader of the stored log from any index has exactly the rest', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.nat(60), (steps, after) => {
        const { log, stored } = play(steps);
        expect(tokensOf(stored.map(storedEvent))).toEqual(log.tokens);
        expect(tokensOf(eventsPast(stored, after))).toEqual(log.tokens.slice(after));
        const live = log.read({ seq: after, seamAttempt: 0, marksPassed: null });
        expect(tokensOf(live)).toEqual(log.tokens.slice(after));
        expect(live.at(-1)?.kind).toBe('end');
      }),
    );
  });

  it('is closed once: what comes after the seal is nobody’s', () => {
    const log = new StreamLog('t');
    log.start(started);
    expect(log.append(['a'], 1)).toBe(true);
    expect(log.seal()).toBe(true);
    expect(log.seal()).toBe(false);
    expect(log.append(['b'], 1)).toBe(false);
    expect(log.tokens).toEqual(['a']);
  });

  it('wakes a reader once per change, and forgets one that left', () => {
    const log = new StreamLog('t');
    let wakes = 0;
    log.onChange(() => {
      wakes += 1;
    });
    const leave = log.onChange(() => {
      wakes += 10;
    });
    leave();
    log.start(started);
    log.append(['a'], 1);
    expect(wakes).toBe(1);
  });

  it('shows metrics that come while a reader stands at their place (fast-check seed -1472552909)', () => {
    const log = new StreamLog('t');
    log.start(started);
    const cursor: Cursor = { seq: -1, seamAttempt: 0, marksPassed: null };
    expect(log.read(cursor).map((event) => event.kind)).toEqual(['started']);
    log.mark({ kind: 'metrics', seq: 0, atMs: 2, queueDepth: 0, kvWarmth: false });
    expect(log.read(cursor).map((event) => event.kind)).toEqual(['metrics']);
    expect(log.read(cursor)).toEqual([]);
  });

  it('never lets the place of a reader fall back to a seam it is past', () => {
    const log = new StreamLog('t');
    log.restore([started, { kind: 'tokens', seq: 2, atMs: 1, firstIndex: 0, tokens: ['a', 'b'] }]);
    const ahead: Cursor = { seq: 3, seamAttempt: 0, marksPassed: null };
    expect(log.read(ahead)).toEqual([]);
    log.mark({ kind: 'seam', seq: 2, atMs: 1, index: 2, cause: 'engine_lost', attempt: 2 });
    log.append(['c', 'd'], 1);
    expect(log.read(ahead)).toMatchObject([
      { kind: 'seam', seq: 3 },
      { kind: 'tokens', seq: 4, firstIndex: 3, tokens: ['d'] },
    ]);
  });

  it('shows a seam to a reader that stands where it is, once', () => {
    const log = new StreamLog('t');
    log.restore([started, { kind: 'tokens', seq: 2, atMs: 1, firstIndex: 0, tokens: ['a', 'b'] }]);
    log.mark({ kind: 'seam', seq: 2, atMs: 1, index: 2, cause: 'engine_lost', attempt: 2 });
    const cursor: Cursor = { seq: 2, seamAttempt: 0, marksPassed: null };
    expect(log.read(cursor).map((event) => event.kind)).toEqual(['seam']);
    expect(log.read(cursor)).toEqual([]);
    expect(log.read({ seq: 1, seamAttempt: 0, marksPassed: null }).map((event) => event.kind)).toEqual([
      'tokens',
      'seam',
    ]);
  });
});
