/** What befalls a GPU: who is told, what is counted, which engines are ended. */
import pino from 'pino';
import { describe, expect, it } from 'vitest';
import { classifyXid, type GpuEvent, type GpuReading, NO_GAUGES } from '../../src/core/gpu.js';
import { type EngineOnGpu, Gpus } from '../../src/services/gpus.js';
import { PoolEvents } from '../../src/services/poolEvents.js';
import { readPoolEvents } from '../../src/store/journal.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { openDatabase } from '../support/database.js';
import { parseMetrics } from '../support/metrics.js';
import { seedPool } from '../support/tasks.js';

const engine = (id: string, poolId: string): EngineOnGpu => ({
  ...{ id, poolId, engine: 'vllm', engineVersion: '1', heldBytes: 10 },
});
/** `split-0` spans both. */
const ENGINES: Readonly<Record<string, readonly EngineOnGpu[]>> = {
  'GPU-0': [engine('one-0', 'one'), engine('split-0', 'split')],
  'GPU-1': [engine('split-0', 'split')],
};

const reading = (index: number, more: Partial<GpuReading> = {}): GpuReading => ({
  ...NO_GAUGES,
  gpu: { uuid: `GPU-${index}`, index, name: 'G', memoryTotalBytes: 100, simulated: false },
  ...{ stale: false, ageMs: 0, lastXid: null, health: 'ok', reason: null },
  ...more,
});

async function house(readings: readonly GpuReading[] = []) {
  const opened = await openDatabase();
  for (const id of ['one', 'split']) await seedPool(opened.db, { id });
  const telemetry = new Telemetry(pino({ level: 'silent' }), createMetrics());
  const ended: string[] = [];
  const gpus = new Gpus({
    readings: () => readings,
    engines: {
      poolIds: () => ['one', 'split'],
      replicasOn: (uuid) => ENGINES[uuid] ?? [],
      recycle: async (replicaId) => void ended.push(replicaId),
    },
    events: new PoolEvents(opened.db, telemetry),
    telemetry,
  });
  const told = async () =>
    (await readPoolEvents(opened.db, { after: '0', poolId: null, limit: 100 })).map(
      ({ kind, poolId, replicaId }) => `${kind} ${poolId} ${replicaId}`,
    );
  return { gpus, telemetry, ended, told, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() };
}

const xid = (uuid: string | null, number: number): GpuEvent => ({ type: 'xid', uuid, ...classifyXid(number) });

describe('what befalls a GPU', () => {
  it.each<[string, GpuEvent, string[]]>([
    ['a driver reset', { type: 'driver_reset', uuids: ['GPU-0', 'GPU-1'], reason: 'r' }, ['one-0', 'split-0']],
    ['a loss', { type: 'lost', uuid: 'GPU-1', reason: 'r' }, ['split-0']],
    ['a fatal XID', xid('GPU-0', 79), ['one-0', 'split-0']],
  ])('ends each engine on it once, and tells its pool once: %s', async (_name, event, replicas) => {
    await using home = await house();
    home.gpus.handle(event);
    const expected = replicas.map((id) => `gpu_${event.type} ${id.replace('-0', '')} ${id}`);
    await expect.poll(async () => (await home.told()).sort()).toEqual(expected);
    expect(home.ended).toEqual(replicas);
  });

  it.each([
    [13, 'app_fault'],
    [94, 'contained'],
  ])('is told, and no engine ended, where the process alone is concerned: XID %i', async (number, xidClass) => {
    await using home = await house();
    home.gpus.handle(xid('GPU-1', number));
    await expect.poll(home.told).toEqual(['gpu_xid split split-0']);
    expect(home.ended).toEqual([]);
    const counted = parseMetrics(await home.telemetry.scrape()).get('gpu_xid_total');
    expect(counted).toEqual([{ labels: { class: xidClass }, value: 1 }]);
  });

  it('is told to every pool when the driver does not say which GPU it was', async () => {
    await using home = await house();
    home.gpus.handle(xid(null, 79));
    await expect.poll(async () => (await home.told()).sort()).toEqual(['gpu_xid one null', 'gpu_xid split null']);
    expect(home.ended).toEqual([]);
  });
});

describe('a device', () => {
  it('is told with what is booked on it; what is too old is not told as if it were now', async () => {
    const gauges = { memoryUsedBytes: 35, memoryFreeBytes: 60, utilizationPercent: 50, computeCapability: '8.6' };
    await using home = await house([reading(0, gauges), reading(1, { ...gauges, stale: true })]);
    expect(home.gpus.device('GPU-0')).toEqual({ totalBytes: 100, freeBytes: 60, computeCapability: '8.6' });
    expect(home.gpus.device('GPU-9')).toBeNull();
    const samples = parseMetrics(await home.telemetry.scrape());
    const told = (name: string) =>
      (samples.get(name) ?? []).map(({ labels, value }) => `${labels.device} ${labels.replica_id} ${value}`);
    expect(told('gpu_utilization')).toEqual(['0 one-0 50', '0 split-0 50']);
    expect(told('vram_used_bytes')).toEqual(['0  15', '0 one-0 10', '0 split-0 10', '1 split-0 10']);
  });
});
