import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { GpuEvent } from '../../src/core/gpu.js';
import { GpuMonitor, type GpuMonitorOptions, type GpuSource } from '../../src/host/gpu/monitor.js';
import { simulatedGpus } from '../../src/host/gpus.js';
import { LONG } from '../support/long.js';
import { type FakeNvidiaSmi, fakeGpu, fakeNvidiaSmi, fakeNvml, hasCompiler, MIB } from './gpuSupport.js';
import { cleanUp, later } from './support.js';

afterEach(cleanUp);

const helperFile = join('dist', 'host', 'gpu', 'nvmlHelper.js');
const restart = { baseMs: 20, capMs: 100, stableMs: 60_000, maxFailures: Number.POSITIVE_INFINITY };
const noLibrary = { helperFile, restart, libraryPath: '/nonexistent/libnvidia-ml.so.1' };

function monitorOf(source: GpuSource, options: Partial<GpuMonitorOptions> = {}) {
  const events: GpuEvent[] = [];
  const monitor = new GpuMonitor({
    source,
    intervalMs: 50,
    staleAfterMs: 1500,
    onEvent: (event) => events.push(event),
    ...options,
  });
  later(() => monitor.close());
  const has = (want: Partial<GpuEvent>): Promise<void> =>
    expect.poll(() => events).toContainEqual(expect.objectContaining(want));
  return { monitor, events, has, first: () => monitor.readings()[0] };
}

function smiMonitor(fake: FakeNvidiaSmi, options: Partial<GpuMonitorOptions> = {}) {
  return monitorOf({ kind: 'nvidia', nvml: noLibrary, nvidiaSmi: { file: fake.file, timeoutMs: 1000 } }, options);
}

describe('GPUs without NVML', () => {
  it('are read by nvidia-smi; one that is lost is kept and told, and so is its return', async () => {
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0), fakeGpu(1)] });
    let told = 0;
    const { monitor, has } = smiMonitor(fake, { staleAfterMs: 10_000, onReadings: () => (told += 1) });
    expect(await monitor.start()).toMatchObject({ ok: true, gpus: [{ index: 0 }, { index: 1 }] });
    await expect.poll(() => told).toBeGreaterThan(0);
    expect(monitor.status()).toMatchObject({
      source: 'nvidia-smi',
      xidsUnavailable: expect.stringContaining('cannot be loaded'),
    });
    expect(monitor.readings()).toMatchObject([
      { gpu: { index: 0 }, memoryFreeBytes: 20_000 * MIB, utilizationPercent: 37, stale: false, health: 'ok' },
      { gpu: { index: 1 }, memoryUsedBytes: 4200 * MIB, temperatureC: 55, eccUncorrected: 0, lastXid: null },
    ]);
    const uuid = 'GPU-00000001-fake';
    await fake.set({ gpus: [fakeGpu(0), { index: '1', uuid: '[GPU is lost]' }] });
    await has({ type: 'lost', uuid });
    expect(monitor.readings()).toMatchObject([{ health: 'ok' }, { gpu: { uuid }, health: 'lost' }]);
    await fake.set({ gpus: [fakeGpu(0), fakeGpu(1)] });
    await has({ type: 'recovered', uuid, from: 'lost' });
  });

  it('turn stale when nvidia-smi hangs, and recover', async () => {
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0)] });
    const { monitor, events, has, first } = smiMonitor(fake);
    await monitor.start();
    await fake.set({ hang: true });
    await expect.poll(() => first()?.stale).toBe(true);
    await has({ type: 'stale', uuid: 'GPU-00000000-fake' });
    expect(first()).toMatchObject({ memoryFreeBytes: 20_000 * MIB, health: 'ok' });
    await expect.poll(() => monitor.status().reason).toContain('did not answer');
    await fake.set({ gpus: [{ ...fakeGpu(0), 'memory.free': '1' }] });
    await has({ type: 'recovered', from: 'stale' });
    await expect.poll(() => first()).toMatchObject({ stale: false, memoryFreeBytes: MIB });
    expect(events.filter((event) => event.type === 'lost')).toEqual([]);
  });

  it('are asked for by one process at a time, however slow it is', async () => {
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0)], waitFor: 'never' });
    const { monitor } = smiMonitor(fake, { intervalMs: 10 });
    const started = monitor.start();
    await expect.poll(() => fake.calls()).toHaveLength(1);
    // The deadline of this run answers `start`; until then a hundred ticks went by.
    expect(await started).toMatchObject({ ok: false, message: expect.stringContaining('did not answer') });
    expect((await fake.calls()).length).toBeLessThanOrEqual(2);
  });

  it('are an obstacle with a fix where there are none, and seen when they come', async () => {
    const fake = await fakeNvidiaSmi({ print: 'No devices were found\n', exitCode: 6 });
    const { monitor } = smiMonitor(fake);
    expect(await monitor.start()).toEqual({
      ok: false,
      message: expect.stringContaining('no usable GPU'),
      fix: expect.stringContaining('simulated'),
    });
    await fake.set({ gpus: [fakeGpu(0)] });
    await expect.poll(() => monitor.readings()).toHaveLength(1);
  });

  it('are told anew after the driver was away', async () => {
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0)] });
    const { monitor, has } = smiMonitor(fake);
    await monitor.start();
    await fake.set({ print: "it couldn't communicate with the NVIDIA driver\n", exitCode: 9 });
    await expect.poll(() => monitor.status().source).toBeNull();
    await fake.set({ gpus: [fakeGpu(0)] });
    await has({ type: 'driver_reset', uuids: ['GPU-00000000-fake'] });
  });
});

describe('simulated GPUs', () => {
  it('hold what they are said to hold, and are never stale', async () => {
    const gpus = simulatedGpus('node', [
      { name: 'A', memory_bytes: 100 },
      { name: 'B', memory_bytes: 50 },
    ]);
    let usedBytes = 30;
    let told = 0;
    const { monitor } = monitorOf(
      { kind: 'simulated', gpus, use: () => ({ usedBytes, processes: [{ pid: 41, usedBytes }] }) },
      { onReadings: () => (told += 1) },
    );
    expect(await monitor.start()).toEqual({ ok: true, gpus });
    expect(monitor.readings()).toMatchObject([
      { gpu: gpus[0], memoryUsedBytes: 30, memoryFreeBytes: 70, stale: false, ageMs: 0, health: 'ok' },
      { gpu: gpus[1], memoryUsedBytes: 30, memoryFreeBytes: 20 },
    ]);
    await expect.poll(() => told).toBeGreaterThan(1);
    expect(monitor.readings()[0]?.processes).toEqual([{ pid: 41, usedBytes: 30 }]);
    usedBytes = 80;
    expect(monitor.readings()[1]).toMatchObject({ memoryUsedBytes: 50, memoryFreeBytes: 0 });
  });
});

describe.skipIf(!hasCompiler)('GPUs by NVML (skipped where no C compiler can build the fake library)', () => {
  const unusedSmi = { file: '/nonexistent/nvidia-smi' };

  it('are read with every quantity, and their XIDs are told with class and action', async () => {
    const nvml = await fakeNvml(2);
    const source = {
      kind: 'nvidia',
      nvml: { helperFile, restart, libraryPath: nvml.library },
      nvidiaSmi: unusedSmi,
    } as const;
    const { monitor, events, has } = monitorOf(source, { staleAfterMs: 10_000 });
    expect(await monitor.start()).toMatchObject({ ok: true, gpus: [{ name: 'Fake GPU 0' }, { name: 'Fake GPU 1' }] });
    await expect.poll(() => monitor.status()).toEqual({ source: 'nvml', reason: null, xidsUnavailable: null });
    expect(monitor.readings()[1]).toMatchObject({
      gpu: { uuid: 'GPU-00000001-fake', index: 1, memoryTotalBytes: 24_576 * MIB, simulated: false },
      memoryFreeBytes: 20_000 * MIB,
      memoryUsedBytes: 4200 * MIB,
      utilizationPercent: 37,
      temperatureC: 55,
      eccUncorrected: 0,
      powerWatts: 61.5,
      computeCapability: '9.0',
      migEnabled: null,
      health: 'ok',
    });
    await nvml.xid(1, 94);
    await has({ type: 'xid', uuid: 'GPU-00000001-fake', xid: 94, class: 'contained' });
    expect(events[0]).toMatchObject({ action: expect.stringContaining('Restart the process') });
    expect(monitor.readings()).toMatchObject([
      { health: 'ok', lastXid: null },
      { health: 'degraded', lastXid: { xid: 94 } },
    ]);
    expect(monitor.readings()[0]?.processes).toEqual([]);
    await nvml.gpu(0, { freeMib: 5, processes: { 41: 300, 42: null } });
    await expect.poll(() => monitor.readings()[0]?.memoryFreeBytes).toBe(5 * MIB);
    expect(monitor.readings()[0]?.processes).toEqual([
      { pid: 41, usedBytes: 300 * MIB },
      { pid: 42, usedBytes: null },
    ]);
  });

  it('are read with the older memory call where the driver has no newer one', async () => {
    const nvml = await fakeNvml(1, { oldDriver: true });
    const source = {
      kind: 'nvidia',
      nvml: { helperFile, restart, libraryPath: nvml.library },
      nvidiaSmi: unusedSmi,
    } as const;
    const { monitor, first } = monitorOf(source);
    await monitor.start();
    expect(first()).toMatchObject({ memoryFreeBytes: 20_000 * MIB, memoryUsedBytes: 4200 * MIB, processes: null });
  });

  it('turn lost when NVML says so, and are seen again when a new helper sees them', async () => {
    const nvml = await fakeNvml(2);
    const source = {
      kind: 'nvidia',
      nvml: { helperFile, restart, libraryPath: nvml.library },
      nvidiaSmi: unusedSmi,
    } as const;
    const { monitor, has } = monitorOf(source, { reopenMs: 100, staleAfterMs: 10_000 });
    await monitor.start();
    await nvml.gpu(1, { code: 15 });
    await has({ type: 'lost', uuid: 'GPU-00000001-fake', reason: expect.stringContaining('fallen off the bus') });
    await nvml.gpu(1, {});
    await has({ type: 'recovered', uuid: 'GPU-00000001-fake', from: 'lost' });
  });

  it.runIf(LONG)('turn stale when a call hangs: the helper is killed and started again', async () => {
    const nvml = await fakeNvml(1);
    const settings = { helperFile, restart, libraryPath: nvml.library, silenceMs: 600, firstSilenceMs: 3000 };
    const { monitor, has, first } = monitorOf({ kind: 'nvidia', nvml: settings, nvidiaSmi: unusedSmi });
    await monitor.start();
    await nvml.hang(true);
    await has({ type: 'stale', uuid: 'GPU-00000000-fake' });
    expect(first()).toMatchObject({ stale: true, memoryFreeBytes: 20_000 * MIB });
    await expect.poll(() => monitor.status()).toMatchObject({ source: null, reason: expect.stringContaining('hangs') });
    await nvml.hang(false);
    await has({ type: 'recovered', from: 'stale' });
    await expect.poll(() => monitor.status().source).toBe('nvml');
  });

  it('are read by nvidia-smi while NVML does not work, and by NVML once it does', async () => {
    const nvml = await fakeNvml(1);
    await nvml.init(18);
    const smi = await fakeNvidiaSmi({ gpus: [fakeGpu(0)] });
    const settings = { helperFile, restart, libraryPath: nvml.library };
    const { monitor, events } = monitorOf({ kind: 'nvidia', nvml: settings, nvidiaSmi: { file: smi.file } });
    expect(await monitor.start()).toMatchObject({ ok: true, gpus: [{ name: 'NVIDIA RTX 3090, Fake' }] });
    expect(monitor.status()).toMatchObject({
      source: 'nvidia-smi',
      reason: expect.stringContaining('differ in version'),
    });
    await nvml.init(0);
    await expect.poll(() => monitor.readings()[0]?.gpu.name).toBe('Fake GPU 0');
    expect(monitor.status().source).toBe('nvml');
    // The driver itself was well all the time.
    expect(events.filter((event) => event.type === 'driver_reset')).toEqual([]);
  });
});
