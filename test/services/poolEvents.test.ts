/** The journal under load: several pools, several writers, two nodes, readers that begin anywhere. */
import { randomUUID } from 'node:crypto';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PoolEvents } from '../../src/services/poolEvents.js';
import type { StoredPoolEvent } from '../../src/store/journal.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { openDatabase } from '../support/database.js';
import { seedPool } from '../support/tasks.js';

const POOLS = ['a', 'b', 'c'];
const EACH = 120;
let opened: Awaited<ReturnType<typeof openDatabase>>;
let node: PoolEvents;
let otherNode: PoolEvents;

beforeAll(async () => {
  opened = await openDatabase();
  for (const id of POOLS) await seedPool(opened.db, { id });
  const telemetry = new Telemetry(pino({ level: 'silent' }), createMetrics());
  node = new PoolEvents(opened.db, telemetry);
  otherNode = new PoolEvents(opened.db, telemetry);
});
afterAll(() => opened[Symbol.asyncDispose]());

/** Every pool has two writers, of two nodes; each numbers what it writes. */
function writeAll(round: string, count: number): Promise<unknown> {
  const writers = POOLS.flatMap((poolId) => [node, otherNode].map((journal, which) => ({ poolId, journal, which })));
  return Promise.all(
    writers.map(async ({ poolId, journal, which }) => {
      for (let number = 0; number < count; number += 1) {
        const detail = { round, writer: `${poolId}${which}`, number };
        await journal.record({ poolId, replicaId: null, kind: 'test', message: round, detail });
      }
    }),
  );
}

async function read(journal: PoolEvents, poolId: string | null, after: string | null, count: number) {
  const reader = await journal.open(poolId, after);
  const events: StoredPoolEvent[] = [];
  try {
    while (events.length < count) {
      const batch = await reader.next();
      if (batch === null) throw new Error('the reader ended early');
      events.push(...batch);
    }
    return events;
  } finally {
    reader.close();
  }
}

function gapless(events: readonly StoredPoolEvent[], from: bigint): void {
  expect(events.map(({ seq }) => BigInt(seq))).toEqual(events.map((_, index) => from + BigInt(index) + 1n));
}

describe('pool events', () => {
  it('are read from the beginning and from the middle while they are written, then live: no gap, no repeat', async () => {
    const total = POOLS.length * 2 * EACH;
    const fromStart = read(node, null, '0', total);
    const elsewhere = read(otherNode, null, '0', total);
    const onePool = read(node, 'b', '0', total / POOLS.length);
    // Begins when a third has been written, where that third ends.
    const third = read(node, null, '0', total / 3).then((events) => events.at(-1)?.seq ?? '0');
    const fromMiddle = third.then(async (after) => ({ after, events: await read(node, null, after, total / 2) }));
    await writeAll('first', EACH);

    const all = await fromStart;
    expect(all).toHaveLength(total);
    gapless(all, 0n);
    // Page by page, each full.
    gapless(await read(node, null, '0', total), 0n);
    expect((await elsewhere).map(({ seq }) => seq)).toEqual(all.map(({ seq }) => seq));
    expect((await onePool).map(({ seq }) => seq)).toEqual(
      all.filter(({ poolId }) => poolId === 'b').map(({ seq }) => seq),
    );
    const { after, events: middle } = await fromMiddle;
    gapless(middle, BigInt(after));

    // What one writer wrote comes in its order, all of it.
    for (const writer of POOLS.flatMap((pool) => [`${pool}0`, `${pool}1`])) {
      const own = all.filter(({ detail }) => detail?.writer === writer).map(({ detail }) => detail?.number);
      expect(own).toEqual(Array.from({ length: EACH }, (_, number) => number));
    }

    const live = read(node, null, String(total), POOLS.length * 2);
    await writeAll('second', 1);
    gapless(await live, BigInt(total));
    expect((await live).every(({ message }) => message === 'second')).toBe(true);
  });

  it('that come after a reader without a cursor are all that it sees; closing ends a read that waits', async () => {
    const reader = await node.open(null, null);
    const next = reader.next();
    await node.record({ poolId: 'c', replicaId: null, kind: 'test', message: 'third', detail: null });
    expect((await next)?.map(({ message }) => message)).toEqual(['third']);
    const parked = reader.next();
    reader.close();
    expect(await parked).toBeNull();
  });

  it('that are told twice, as after an answer that was lost, are written once and leave no number unused', async () => {
    const { head } = await opened.query('SELECT last_seq::text AS head FROM journal').then(([row]) => row ?? {});
    const event = { id: randomUUID(), poolId: 'a', replicaId: null, kind: 'test', message: 'twice', detail: null };
    await node.append(event);
    await node.append(event);
    await node.append({ ...event, id: randomUUID(), message: 'next' });
    const events = await read(node, null, String(head), 2);
    expect(events.map(({ message }) => message)).toEqual(['twice', 'next']);
    gapless(events, BigInt(String(head)));
  });
});
