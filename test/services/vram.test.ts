/** The ledger of GPU memory over a real database and real processes; only what the GPUs read is given. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import { type GpuReading, NO_GAUGES } from '../../src/core/gpu.js';
import type { Reason } from '../../src/core/pool.js';
import { freeMemory } from '../../src/core/registry.js';
import { markVariable } from '../../src/host/process.js';
import { systemClock } from '../../src/runtime/clock.js';
import { PoolEvents } from '../../src/services/poolEvents.js';
import { recipeFor } from '../../src/services/supervision/recipe.js';
import { type VramClaim, VramLedger, type VramStart } from '../../src/services/supervision/vram.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createLogger } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { cleanUp, later, temporaryFolder } from '../host/support.js';
import { openDatabase } from '../support/database.js';
import { seedPool } from '../support/tasks.js';
import { tinyModelBytes } from '../support/tinyModel.js';

const GIB = 1024 ** 3;
const NODE = randomUUID();
const UUID = 'GPU-0';
const PEAK = Math.round(6.1 * GIB);

let opened: Awaited<ReturnType<typeof openDatabase>>;
beforeAll(async () => {
  opened = await openDatabase();
  await seedPool(opened.db);
});
afterAll(() => opened[Symbol.asyncDispose]());
beforeEach(() => opened.query('DELETE FROM vram_peaks'));
afterEach(cleanUp);

interface Rig {
  readonly ledger: VramLedger;
  /** What the GPU reads from now on, GiB. */
  reads(usedGib: number, processes?: GpuReading['processes'], over?: Partial<GpuReading>): void;
  start(over?: Partial<VramStart>, pool?: PoolOver): VramStart;
  /** Claims memory and becomes ready at once. */
  ready(over?: Partial<VramStart>, pool?: PoolOver): Promise<VramClaim>;
}

interface PoolOver {
  readonly flags?: readonly string[];
  readonly vramGib?: number;
  readonly provisioning?: unknown;
  readonly model?: string;
}

function rig(totalGib = 24, simulated = false, freeDeadlineMs = 10_000): Rig {
  const gpu = { uuid: UUID, index: 0, name: 'RTX 3090', memoryTotalBytes: totalGib * GIB, simulated };
  let reading: GpuReading = {
    ...{ ...NO_GAUGES, gpu, stale: false, ageMs: 0, lastXid: null, health: 'ok', reason: null },
    ...{ memoryUsedBytes: 0, memoryFreeBytes: gpu.memoryTotalBytes, processes: [] },
  };
  const telemetry = new Telemetry(createLogger({ write: () => {} }), createMetrics());
  const ledger = new VramLedger({
    ...{ db: opened.db, clock: systemClock, telemetry, nodeId: NODE, freeDeadlineMs },
    events: new PoolEvents(opened.db, telemetry),
    readings: () => [reading],
    hash: (text) => createHash('sha256').update(text).digest('hex'),
  });
  const reads: Rig['reads'] = (usedGib, processes = [], over = {}) => {
    const memoryUsedBytes = Math.round(usedGib * GIB);
    const memoryFreeBytes = gpu.memoryTotalBytes - memoryUsedBytes;
    reading = { ...reading, memoryUsedBytes, memoryFreeBytes, processes, ...over };
    ledger.look();
  };
  const devices = () => [
    {
      ...{ uuid: UUID, label: 'GPU 0 (RTX 3090)', obstacle: reading.stale ? 'its reading is old' : null },
      freeBytes: freeMemory(
        gpu.memoryTotalBytes,
        ledger.heldOn(UUID),
        (reading.memoryFreeBytes ?? 0) - ledger.notTakenOn(UUID),
      ),
    },
  ];
  const start: Rig['start'] = (over = {}, pool = {}) => ({
    ...{ recipe: recipeOf(pool), modelRef: pool.model ?? 'm', contextLength: 4096, slots: 1, devices },
    ...{ replicaId: 'p-0', poolId: 'p', gpuUuids: [UUID], gpuIndices: [0], inherited: false },
    ...{ isReady: () => true, pid: () => null, ...over },
  });
  const ready: Rig['ready'] = async (over, pool) => claimed(await ledger.claim(start(over, pool), never));
  return { ledger, reads, start, ready };
}

const never = new AbortController().signal;

function recipeOf({ flags = [], vramGib = 4, provisioning, model = 'm' }: PoolOver) {
  const simulated = { mode: 'simulated', flags, simulated: { vram_bytes: vramGib * GIB } };
  const pool = { id: 'p', engine: 'llamacpp', model, devices: [0], provisioning: provisioning ?? simulated };
  const [config] = parseConfig(JSON.stringify({ pools: [pool] }), 'test.yaml').pools;
  if (config === undefined) throw new Error('no pool');
  return recipeFor(config, {
    ...{ simEntry: '/sim.js', nodeBinary: process.execPath, configDir: '/', simulatedGpus: false, homeDir: '/' },
    ...{ allowHosts: [], searchPath: '', containerEnv: {}, fileExists: () => true },
  });
}

function claimed(outcome: VramClaim | Reason): VramClaim {
  if ('code' in outcome) throw new Error(`${outcome.code}: ${outcome.message}`);
  return outcome;
}

/** A process that carries a replica's mark. */
async function engineOf(replicaId: string): Promise<ChildProcess & { readonly pid: number }> {
  const child = spawn('sleep', ['600'], { env: { PATH: process.env.PATH, [markVariable]: `${NODE}/${replicaId}/x` } });
  later(() => child.kill('SIGKILL'));
  await new Promise((resolve) => child.once('spawn', resolve));
  return child as ChildProcess & { readonly pid: number };
}

const peaks = async (): Promise<{ peak: number; runs: number; gpu: string }[]> =>
  opened.query(`SELECT peak_bytes::float8 AS peak, samples AS runs, gpu_uuid AS gpu FROM vram_peaks`);

describe('an observed peak', () => {
  it('is the most that the processes of a replica were seen to take, and the need of its next start', async () => {
    const { ledger, reads, ready, start } = rig();
    const first = await ready();
    const engine = await engineOf('p-0');
    const stranger = await engineOf('other-0');
    const with3 = (gib: number) => [
      { pid: engine.pid, usedBytes: Math.round(gib * GIB) },
      { pid: stranger.pid, usedBytes: 2 * GIB },
    ];
    reads(7, with3(5));
    reads(8.1, with3(6.1));
    reads(6, with3(4));
    first.release(null);
    reads(2, with3(0).slice(1));
    await ledger.settled();
    expect(await peaks()).toEqual([{ peak: PEAK, runs: 1, gpu: UUID }]);

    const second = await ready();
    expect(second.held.get(UUID)).toBe(Math.ceil(PEAK * 1.05));
    reads(6, with3(4));
    second.release(null);
    reads(2);
    await ledger.settled();
    expect(await peaks()).toMatchObject([{ peak: PEAK, runs: 2 }]);

    // 6.4 GiB are needed.
    reads(18);
    expect(await ledger.claim(start(), never)).toMatchObject({
      code: 'VRAM_INSUFFICIENT',
      message: expect.stringContaining('observed peak 6.1 GiB on GPU 0 (RTX 3090), seen 2 times, plus 5 % margin'),
    });
  });

  it('belongs to the flags, the context and the model it was seen with', async () => {
    const { ledger, reads, ready } = rig();
    const first = await ready();
    const engine = await engineOf('p-0');
    reads(6, [{ pid: engine.pid, usedBytes: 6 * GIB }]);
    first.release(null);
    reads(0);
    await ledger.settled();
    for (const other of [
      await ready({ modelRef: 'n' }),
      await ready({ contextLength: 8192 }),
      await ready({}, { flags: ['--embedding'] }),
    ]) {
      expect(other.held.get(UUID)).toBe(4 * GIB);
      other.release(null);
    }
    expect((await ready()).held.get(UUID)).toBeGreaterThan(6 * GIB);
  });

  it('is not taken from an engine that never became ready, nor written for every little rise', async () => {
    const { ledger, reads, ready } = rig();
    const loading = await ready({ isReady: () => false });
    const engine = await engineOf('p-0');
    const held = (gib: number) => [{ pid: engine.pid, usedBytes: Math.round(gib * GIB) }];
    reads(3, held(3));
    loading.release(null);
    reads(0);
    await ledger.settled();
    expect(await peaks()).toEqual([]);
    const claim = await ready();
    const written: number[] = [];
    for (const gib of [4, 4.01, 4.03, 4.06]) {
      reads(gib, held(gib));
      await ledger.settled();
      written.push(((await peaks())[0]?.peak ?? 0) / GIB);
    }
    expect(written.map((gib) => gib.toFixed(2))).toEqual(['4.00', '4.00', '4.00', '4.06']);
    reads(4.08, held(4.08));
    claim.release(null);
    await ledger.settled();
    expect(((await peaks())[0]?.peak ?? 0) / GIB).toBeCloseTo(4.08);
  });

  it('is the rise of what the GPU uses where no process is told, if no other engine came or went', async () => {
    const { ledger, reads, ready } = rig();
    reads(1);
    let isReady = false;
    const alone = await ready({ isReady: () => isReady });
    reads(3);
    isReady = true;
    reads(6);
    reads(11);
    alone.release(null);
    reads(1);
    await ledger.settled();
    expect(await peaks()).toMatchObject([{ peak: 5 * GIB }]);

    await opened.query('DELETE FROM vram_peaks');
    let bothReady = false;
    const one = await ready({ isReady: () => bothReady });
    const other = await ready({ replicaId: 'p-1', isReady: () => bothReady });
    bothReady = true;
    reads(9);
    one.release(null);
    other.release(null);
    await ledger.settled();
    expect(await peaks()).toEqual([]);
  });

  it('of less than the weights of its model is not believed', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'tiny.gguf');
    await writeFile(path, tinyModelBytes());
    const model = `file:${path}`;
    const pool = { model, provisioning: { mode: 'binary', binary: { url: `file://${process.execPath}` } } };
    const { ledger, reads, ready } = rig();
    const first = await ready({ modelRef: model }, pool);
    const estimated = first.held.get(UUID);
    const engine = await engineOf('p-0');
    reads(0.001, [{ pid: engine.pid, usedBytes: 1000 }]);
    first.release(null);
    reads(0);
    await ledger.settled();
    expect(await peaks()).toHaveLength(1);
    expect((await ready({ modelRef: model }, pool)).held.get(UUID)).toBe(estimated);
  });
});

describe('running out of memory', () => {
  it('refuses the same start while no more is free, with its own code and the reason', async () => {
    const { ledger, reads, ready, start } = rig(24);
    reads(10);
    const first = await ready({ isReady: () => false });
    first.release('VRAM_OOM_LOAD');
    expect(await ledger.claim(start(), never)).toMatchObject({
      code: 'VRAM_OOM_LOAD',
      message: expect.stringMatching(/has 14.0 GiB .* more than the 14.0 GiB .* ran out of memory \(VRAM_OOM_LOAD\)/),
    });
    // Other flags are another start; more free memory is another chance.
    (await ready({}, { flags: ['--embedding'] })).release(null);
    reads(9);
    expect((await ready()).held.get(UUID)).toBe(14 * GIB + 1);
  });

  it('counts what the engine could have had when others took the rest meanwhile', async () => {
    const { reads, ready } = rig(24);
    const loading = await ready({ isReady: () => false });
    const engine = await engineOf('p-0');
    reads(22, [{ pid: engine.pid, usedBytes: 5 * GIB }]);
    loading.release('KV_OOM');
    reads(0);
    // 5 GiB of its own and 2 that were free: 24 free ones are more.
    expect((await ready()).held.get(UUID)).toBe(7 * GIB + 1);
  });

  it('of an engine that was ready is held against the start when the next one fares alike', async () => {
    const { ledger, ready, start } = rig();
    (await ready()).release('VRAM_OOM_RUNTIME');
    (await ready()).release('VRAM_OOM_RUNTIME');
    expect(await ledger.claim(start(), never)).toMatchObject({ code: 'VRAM_OOM_RUNTIME' });
    ledger.forgive('p-0');
    (await ready()).release('VRAM_OOM_RUNTIME');
    (await ready()).release(null);
    (await ready()).release('VRAM_OOM_RUNTIME');
    expect((await ready()).held.get(UUID)).toBe(4 * GIB);
  });

  it('is no reason to keep from others what the next engine is seen not to take', async () => {
    const { ledger, reads, ready } = rig(24);
    reads(10);
    (await ready({ isReady: () => false })).release('VRAM_OOM_LOAD');
    reads(9);
    let isReady = false;
    await ready({ isReady: () => isReady });
    const engine = await engineOf('p-0');
    reads(12, [{ pid: engine.pid, usedBytes: 3 * GIB }]);
    expect(ledger.heldOn(UUID)).toBe(14 * GIB + 1);
    isReady = true;
    expect(ledger.heldOn(UUID)).toBe(4 * GIB);
  });

  it('does not make a simulated engine take more than it claims, nor is that learned', async () => {
    const { ledger, reads, ready } = rig(24, true);
    reads(10);
    (await ready({ isReady: () => false })).release('VRAM_OOM_LOAD');
    reads(9);
    const engine = await engineOf('p-0');
    await ready({ pid: () => engine.pid });
    const { usedBytes, processes } = ledger.simulatedUse(UUID);
    expect(usedBytes).toBe(4 * GIB);
    reads(13, processes);
    await ledger.settled();
    expect(await peaks()).toMatchObject([{ peak: 4 * GIB }]);
  });

  it('is nothing that other faults cause', async () => {
    const { ready } = rig();
    (await ready({ isReady: () => false })).release('CUDA_ERROR');
    expect((await ready()).held.get(UUID)).toBe(4 * GIB);
  });
});

describe('memory of an engine that ended', () => {
  it('is waited for before the next start, and booked as long', async () => {
    const { ledger, reads, ready, start } = rig(10);
    const first = await ready();
    const engine = await engineOf('p-0');
    const still = [{ pid: engine.pid, usedBytes: 6 * GIB }];
    reads(7, still);
    first.release(null);
    expect(ledger.heldOn(UUID)).toBe(6 * GIB);
    let answer: VramClaim | Reason | null = null;
    const next = ledger.claim(start(), never).then((outcome) => {
      answer = outcome;
    });
    reads(7, still);
    await expect.poll(() => ledger.heldOn(UUID)).toBe(6 * GIB);
    expect(answer).toBeNull();
    reads(1);
    await next;
    expect(answer).toHaveProperty('held');
  });

  it('that does not come back is told with its holders, stays booked, and is given out once it reads free', async () => {
    const { ledger, reads, ready, start } = rig(24, false, 100);
    const first = await ready();
    const engine = await engineOf('p-0');
    const still = [{ pid: engine.pid, usedBytes: 6 * GIB }];
    reads(6, still);
    first.release(null);
    await ledger.settled();
    const refused = await ledger.claim(start(), never);
    expect(refused).toMatchObject({
      code: 'VRAM_NOT_FREED',
      message: `GPU 0 (RTX 3090) still misses 6.0 GiB of an engine that has ended; held by process ${engine.pid}`,
      fix: expect.stringContaining(`kill -9 ${engine.pid}`),
    });
    reads(6, still);
    const kinds = async () =>
      (await opened.query<{ kind: string }>(`SELECT kind FROM pool_events WHERE kind LIKE 'vram%' ORDER BY seq`)).map(
        ({ kind }) => kind,
      );
    await expect.poll(kinds).toEqual(['vram_not_freed']);
    // Others go on beside it.
    (await ready({ replicaId: 'p-1' })).release(null);
    expect(ledger.heldOn(UUID)).toBe(6 * GIB);
    reads(0.1);
    expect(ledger.heldOn(UUID)).toBe(0);
    (await ready()).release(null);
    await expect.poll(kinds).toEqual(['vram_not_freed', 'vram_freed']);
  });

  it('that nobody is known to hold is an obstacle only where there is no room beside it', async () => {
    const { ledger, reads, ready, start } = rig(12, false, 50);
    reads(1);
    const first = await ready();
    reads(6);
    first.release(null);
    reads(6);
    await expect.poll(() => ledger.claim(start(), never)).toHaveProperty('held');
    claimed(await ledger.claim(start(), never)).release(null);
    expect(await ledger.claim(start({ replicaId: 'p-0' }, { vramGib: 7 }), never)).toMatchObject({
      code: 'VRAM_NOT_FREED',
      message: expect.stringContaining('no process that is listed holds it'),
    });
    expect(ledger.heldOn(UUID)).toBe(5 * GIB);
  });

  it('is not waited for where nothing was seen, nothing can be read, or nothing is real', async () => {
    const unseen = rig();
    (await unseen.ready()).release(null);
    expect(unseen.ledger.heldOn(UUID)).toBe(0);

    const simulated = rig(24, true);
    const claim = await simulated.ready();
    const engine = await engineOf('p-0');
    simulated.reads(4, [{ pid: engine.pid, usedBytes: 4 * GIB }]);
    claim.release(null);
    expect(simulated.ledger.heldOn(UUID)).toBe(0);

    const blind = rig();
    const held = await blind.ready();
    blind.reads(4, [{ pid: engine.pid, usedBytes: 4 * GIB }]);
    held.release(null);
    blind.reads(4, null, { stale: true });
    expect(await blind.ledger.claim(blind.start(), never)).toMatchObject({ code: 'GPU_UNUSABLE' });
  });

  it('is not waited for beyond a stop', async () => {
    const { ledger, reads, ready, start } = rig();
    const first = await ready();
    const engine = await engineOf('p-0');
    reads(6, [{ pid: engine.pid, usedBytes: 6 * GIB }]);
    first.release(null);
    const asked = new AbortController();
    const next = ledger.claim(start(), asked.signal);
    asked.abort();
    expect(await next).toMatchObject({ code: 'VRAM_NOT_FREED' });
  });
});

describe('memory that is booked', () => {
  it('is not counted on twice, and counts beside what strangers use', async () => {
    const { ledger, reads, start, ready } = rig(10);
    const both = await Promise.all([
      ledger.claim(start({ isReady: () => false }, { vramGib: 6 }), never),
      ledger.claim(start({ replicaId: 'p-1' }, { vramGib: 6 }), never),
    ]);
    const winners = both.filter((outcome) => 'held' in outcome);
    expect(winners).toHaveLength(1);
    for (const winner of winners) winner.release(null);
    claimed(await ledger.claim(start({ isReady: () => false }, { vramGib: 6 }), never));
    const engine = await engineOf('p-0');
    // A stranger has 3; of its 6 GiB the engine has taken 1 so far.
    reads(4, [{ pid: engine.pid, usedBytes: GIB }]);
    expect(await ledger.claim(start({ replicaId: 'p-1' }, { vramGib: 2 }), never)).toMatchObject({
      code: 'VRAM_INSUFFICIENT',
      message: expect.stringContaining('has 1.0 GiB of memory free'),
    });
    (await ready({ replicaId: 'p-1' }, { vramGib: 1 })).release(null);
  });

  it('is given back when its replica is started anew without having been released', async () => {
    const { ledger, ready } = rig(24, true);
    await ready({}, { vramGib: 6 });
    await ready({}, { vramGib: 6 });
    expect(ledger.heldOn(UUID)).toBe(6 * GIB);
  });

  it('on a simulated GPU is what its engines say of themselves, and learned without a margin', async () => {
    const { ledger, reads, ready } = rig(24, true);
    const engine = await engineOf('p-0');
    const flags = ['--vram-bytes', String(6 * GIB)];
    const claim = await ready({ pid: () => engine.pid }, { flags });
    const use = ledger.simulatedUse(UUID);
    expect(use).toEqual({ usedBytes: 6 * GIB, processes: [{ pid: engine.pid, usedBytes: 6 * GIB }] });
    reads(6, use.processes);
    claim.release(null);
    await ledger.settled();
    expect((await ready({}, { flags })).held.get(UUID)).toBe(6 * GIB);
  });
});
