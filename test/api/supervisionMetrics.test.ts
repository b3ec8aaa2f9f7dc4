/** What supervision counts and measures: on a whole control plane, and event by event. */
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Telemetry } from '../../src/telemetry/events.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { parseMetrics, type Sample, scrape } from '../support/metrics.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const GIB = 1024 ** 3;
const REPLICA = ['engine', 'pool_id', 'replica_id'];
const ENGINE = ['engine', 'engine_version', 'pool_id', 'replica_id'];
/** A contract with dashboards. */
const LABELS: Readonly<Record<string, readonly string[]>> = {
  replica_restarts_total: REPLICA,
  replica_preload_total: [...REPLICA, 'outcome'],
  replica_readiness_transitions_total: [...REPLICA, 'state'],
  replica_ready: REPLICA,
  replica_breaker_state: REPLICA,
  kv_cache_usage_ratio: ENGINE,
  gpu_utilization: [...ENGINE, 'device'],
  vram_used_bytes: [...ENGINE, 'device'],
  vram_total_bytes: ['device'],
  gpu_driver_resets_total: [],
  gpu_xid_total: ['class'],
  host_memory_total_bytes: [],
  host_memory_available_bytes: [],
};

describe('a control plane', () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ config: simConfig() });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  const of = async (name: string, labels: Readonly<Record<string, string>> = {}): Promise<number[]> => {
    const samples = (await scrape(world.url)).get(name) ?? [];
    const wanted = Object.entries(labels);
    return samples.filter((sample) => wanted.every(([key, value]) => sample.labels[key] === value)).map(valueIn);
  };
  const first = { engine: 'llamacpp', pool_id: 'sim', replica_id: 'sim-0' };

  it('tells of memory as it is at the scrape: of each replica on its device, of the device, of the host', async () => {
    await expect.poll(() => of('replica_ready')).toEqual([1, 1]);
    const samples = await scrape(world.url);
    const used = (samples.get('vram_used_bytes') ?? []).map(({ labels, value }) => [
      labels.device,
      labels.replica_id,
      labels.engine_version === '' ? 'no version' : 'version',
      value,
    ]);
    expect(used.sort()).toEqual([
      ['0', '', 'no version', 0],
      ['0', 'sim-0', 'version', GIB],
      ['1', '', 'no version', 0],
      ['1', 'sim-1', 'version', GIB],
    ]);
    expect((samples.get('vram_total_bytes') ?? []).map(valueIn)).toEqual([24 * GIB, 12 * GIB]);
    // A simulated GPU has no utilization to tell.
    expect(samples.get('gpu_utilization')).toBeUndefined();
    const [total = 0] = (samples.get('host_memory_total_bytes') ?? []).map(valueIn);
    const [available = 0] = (samples.get('host_memory_available_bytes') ?? []).map(valueIn);
    expect(available).toBeGreaterThan(0);
    expect(total).toBeGreaterThan(available);
    expect([...samples.keys()]).toContain('nodejs_eventloop_lag_seconds');
  });

  it('counts a restart and both ways of readiness when an engine is killed', async () => {
    await expect.poll(() => of('replica_ready')).toEqual([1, 1]);
    expect(await of('replica_breaker_state', first)).toEqual([0]);
    const [row] = await world.database.query(`SELECT pid FROM replicas WHERE id = 'sim-0'`);
    process.kill(Number(row?.pid), 'SIGKILL');
    await expect.poll(() => of('replica_restarts_total', first)).toEqual([1]);
    await expect.poll(() => of('replica_ready', first)).toEqual([1]);
    const transitions = 'replica_readiness_transitions_total';
    expect(await of(transitions, { ...first, state: 'ready' })).toEqual([2]);
    expect(await of(transitions, { ...first, state: 'unready' })).toEqual([1]);
    expect(await of(transitions, { replica_id: 'sim-1', state: 'unready' })).toEqual([]);
  });

  it('has every change of a replica and every preload in the journal, in order, none left out', async () => {
    const rows = await world.database.query<{ kind: string; replica: string; detail: Record<string, unknown> }>(
      'SELECT kind, replica_id AS replica, detail FROM pool_events ORDER BY seq',
    );
    for (const replica of ['sim-0', 'sim-1']) {
      const own = rows.filter((row) => row.replica === replica);
      const changes = own.filter(({ kind }) => kind === 'replica_state').map(({ detail }) => detail);
      expect(changes.map(({ from }) => from)).toEqual(['ABSENT', ...changes.slice(0, -1).map(({ to }) => to)]);
      expect(changes.at(-1)?.to).toBe('READY');
      const preloads = own.filter(({ kind }) => kind === 'replica_preload').map(({ detail }) => detail);
      const passed = { outcome: 'passed', duration_ms: expect.any(Number) };
      // One of them was killed, which is no preload that failed.
      expect(preloads).toMatchObject(replica === 'sim-0' ? [passed, passed] : [passed]);
      expect(await of('replica_preload_total', { replica_id: replica, outcome: 'passed' })).toEqual([preloads.length]);
    }
  });

  it('has its own names and labels alone', async () => {
    for (const [name, samples] of await scrape(world.url)) {
      const labels = LABELS[name];
      if (labels === undefined) continue;
      for (const sample of samples) expect(Object.keys(sample.labels).sort(), name).toEqual([...labels].sort());
    }
  });
});

function valueIn({ value }: Sample): number {
  return value;
}

describe('an event', () => {
  const replica = { id: 'p-0', poolId: 'p', engine: 'vllm' as const };
  const labels = { engine: 'vllm', pool_id: 'p', replica_id: 'p-0' };
  const start = () => {
    const lines: string[] = [];
    const telemetry = new Telemetry(pino({}, { write: (line) => lines.push(line) }), createMetrics());
    const read = async (name: string) => parseMetrics(await telemetry.scrape()).get(name) ?? [];
    return { telemetry, read, lines };
  };

  it('of a preload is counted by its outcome and logged with its duration', async () => {
    const { telemetry, read, lines } = start();
    telemetry.preloaded(replica, 'failed', 1234.5);
    telemetry.preloaded(replica, 'failed', 1);
    telemetry.preloaded(replica, 'passed', 2);
    telemetry.preloaded(replica, 'refused', 3);
    expect(await read('replica_preload_total')).toEqual([
      { labels: { ...labels, outcome: 'failed' }, value: 2 },
      { labels: { ...labels, outcome: 'passed' }, value: 1 },
      { labels: { ...labels, outcome: 'refused' }, value: 1 },
    ]);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ replica_id: 'p-0', outcome: 'failed', duration_ms: 1235 });
  });

  it('of the breaker is its state as a number', async () => {
    const { telemetry, read } = start();
    telemetry.replicaChanged(replica, { from: 'ABSENT', to: 'PROVISIONING', message: '' });
    const values = [(await read('replica_breaker_state'))[0]?.value];
    for (const state of ['OPEN', 'HALF_OPEN', 'CLOSED'] as const) {
      telemetry.breakerChanged(replica, state);
      telemetry.replicaChanged(replica, { from: 'ABSENT', to: 'PROVISIONING', message: '' });
      values.push((await read('replica_breaker_state'))[0]?.value);
    }
    expect(values).toEqual([0, 2, 1, 0]);
  });

  it('of the KV cache is told under one version, while the engine is up, and never out of its range', async () => {
    const { telemetry, read } = start();
    const values = async () =>
      (await read('kv_cache_usage_ratio')).map((one) => [one.labels.engine_version, one.value]);
    telemetry.kvUsage(replica, null, 0.25);
    expect(await values()).toEqual([['', 0.25]]);
    telemetry.kvUsage(replica, 'v1', 0.5);
    expect(await values()).toEqual([['v1', 0.5]]);
    telemetry.kvUsage(replica, 'v2', 1.7);
    expect(await values()).toEqual([['v2', 1]]);
    telemetry.kvUsage(replica, 'v2', Number.NaN);
    expect(await values()).toEqual([]);
    telemetry.kvUsage(replica, 'v2', 0.1);
    telemetry.replicaChanged(replica, { from: 'READY', to: 'BACKING_OFF', message: 'gone' });
    expect(await values()).toEqual([]);
  });

  it('of a replica that is gone leaves nothing that tells of its present', async () => {
    const { telemetry, read } = start();
    telemetry.replicaChanged(replica, { from: 'SELF_TESTING', to: 'READY', message: '' });
    telemetry.kvUsage(replica, 'v1', 0.5);
    telemetry.breakerChanged(replica, 'OPEN');
    telemetry.preloaded(replica, 'passed', 1);
    const other = { ...replica, id: 'p-1' };
    telemetry.replicaChanged(other, { from: 'SELF_TESTING', to: 'READY', message: '' });
    telemetry.replicaGone(replica);
    for (const name of ['replica_ready', 'replica_breaker_state']) {
      expect((await read(name)).map((one) => one.labels.replica_id)).toEqual(['p-1']);
    }
    expect(await read('kv_cache_usage_ratio')).toEqual([]);
    expect(await read('replica_preload_total')).toHaveLength(1);
  });

  it('of a GPU is counted by what it means', async () => {
    const { telemetry, read } = start();
    const xid = { type: 'xid', uuid: 'GPU-1', xid: 79, class: 'fatal_reboot', meaning: 'm', action: 'a' } as const;
    telemetry.gpuEvent({ ...xid, degrades: true }, 'm');
    telemetry.gpuEvent({ type: 'driver_reset', uuids: ['GPU-1', 'GPU-2'], reason: 'r' }, 'm');
    telemetry.gpuEvent({ type: 'lost', uuid: 'GPU-1', reason: 'r' }, 'm');
    expect(await read('gpu_xid_total')).toEqual([{ labels: { class: 'fatal_reboot' }, value: 1 }]);
    expect(await read('gpu_driver_resets_total')).toEqual([{ labels: {}, value: 1 }]);
  });
});

describe('a scrape', () => {
  it('forgets devices and replicas that are not told any more, and survives a measurement that fails', async () => {
    const telemetry = new Telemetry(pino({ level: 'silent' }), createMetrics());
    const replica = { id: 'p-0', poolId: 'p', engine: 'tgi' as const, engineVersion: '3', heldBytes: 7 };
    const device = { device: '0', totalBytes: 10, otherBytes: 1, utilizationPercent: 40, replicas: [replica] };
    let devices = [device, { ...device, device: '1', otherBytes: null, replicas: [] }];
    telemetry.measuredBy(() => {
      throw new Error('not now');
    });
    telemetry.measuredBy(() => telemetry.gpusRead(devices));
    const read = async (name: string) =>
      (parseMetrics(await telemetry.scrape()).get(name) ?? []).map(({ labels: { device, replica_id }, value }) => [
        device,
        replica_id,
        value,
      ]);
    expect(await read('gpu_utilization')).toEqual([
      ['0', 'p-0', 40],
      ['1', '', 40],
    ]);
    expect(await read('vram_used_bytes')).toEqual([
      ['0', '', 1],
      ['0', 'p-0', 7],
    ]);
    devices = [{ ...device, replicas: [] }];
    expect(await read('gpu_utilization')).toEqual([['0', '', 40]]);
    expect(await read('vram_used_bytes')).toEqual([['0', '', 1]]);
    expect(await read('vram_total_bytes')).toEqual([['0', undefined, 10]]);
  });
});
