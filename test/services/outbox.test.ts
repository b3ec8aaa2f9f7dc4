/** Writes that nobody waits for: in order, tried again, bounded, and told when they are lost. */
import { Writable } from 'node:stream';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { RefusalError, unavailable } from '../../src/core/errors.js';
import { Outbox } from '../../src/services/outbox.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createLogger } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';

const away = () => Promise.reject(new RefusalError(unavailable('POOL_UNAVAILABLE', 'away', 1)));
let outbox: Outbox;
beforeEach(() => {
  const nowhere = new Writable({ write: (_line, _encoding, done) => done() });
  outbox = new Outbox(new Telemetry(createLogger(nowhere), createMetrics()), 3);
  outbox.start();
});
afterEach(() => outbox.stop());

it('keeps the order, and tries the first again before the others', async () => {
  const written: string[] = [];
  let tries = 0;
  outbox.push('first', async () => {
    tries += 1;
    if (tries === 1) return away();
    written.push('first');
  });
  outbox.push('second', async () => void written.push('second'));
  expect(await outbox.settled(10_000)).toBe(true);
  expect(written).toEqual(['first', 'second']);
});

it('does not spend its tries on the pushes of others', async () => {
  const triedMs: number[] = [];
  outbox.push('stubborn', async () => {
    triedMs.push(performance.now());
    if (triedMs.length < 3) throw new Error('not now');
  });
  const pushing = setInterval(() => outbox.push('other', async () => {}), 20);
  await expect.poll(() => triedMs.length, { timeout: 20_000 }).toBe(3);
  clearInterval(pushing);
  // About a second each, whoever pushes meanwhile.
  expect((triedMs[2] ?? 0) - (triedMs[0] ?? 0)).toBeGreaterThan(1_000);
});

it('tells of what it loses: more than it holds, and what is never taken', async () => {
  const lost: string[] = [];
  const push = (name: string, write: () => Promise<void>) => outbox.push(name, write, () => lost.push(name));
  push('under way', away);
  for (const name of ['a', 'b', 'c', 'd']) push(name, away);
  expect(lost).toEqual(['a', 'b']);
  const settled = outbox.settled(10_000);
  await outbox.stop();
  expect(lost).toEqual(['a', 'b', 'under way', 'c', 'd']);
  expect(await settled).toBe(false);
});

it('says so when it takes too long', async () => {
  outbox.push('away', away);
  expect(await outbox.settled(50)).toBe(false);
});
