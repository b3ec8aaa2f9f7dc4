/**
 * What each fault of an engine becomes, for every engine: the code of the taxonomy, in bounded time, with nothing left
 * behind. The table is the documentation; docs/engines.md shows it to operators.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EngineAdapter } from '../../src/engines/adapter.js';
import { DIALECTS } from '../../src/engines/dialects.js';
import { readFault } from '../../src/engines/launch.js';
import { spawnEngineProcess } from '../../src/host/process.js';
import { groupMembers } from '../../src/host/procfs.js';
import {
  adapterFor,
  ask,
  deadline,
  failure,
  MODEL,
  PROTOCOLS,
  type Protocol,
  run,
  startRun,
  withSim,
} from '../support/adapters.js';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';
import { LONG } from '../support/long.js';

const IDLE_TIMEOUT_MS = 400;
/** No fault may take longer than this to be told, the idle timeout included. */
const BOUND_MS = 5_000;

const FAILED = 'INTERNAL streaming lost=false';
const FAILED_FIRST = 'INTERNAL before_first_token lost=false';
const LOST = 'WORKER_RESET streaming lost=true';
const LOST_FIRST = 'WORKER_RESET before_first_token lost=true';
const HUNG = 'DECODE_TIMEOUT streaming lost=true';
const HUNG_FIRST = 'DECODE_TIMEOUT before_first_token lost=true';

type Row = readonly [
  fault: string,
  expected: string | (Partial<Record<Protocol, string>> & { else: string }),
  tokens: number,
];

/**
 * Fault, how the stream ends, and the tokens that come before. `none`: the engine's protocol tells neither token ids nor
 * counts, so that nobody behind it can see the difference; the stream ends normally with what came.
 */
const OF_A_STREAM: readonly Row[] = [
  ['hang-at-token:3', HUNG, 3],
  ['hang-at-token:0', HUNG_FIRST, 0],
  ['hang-after-headers', HUNG_FIRST, 0],
  ['error-frame-at-token:3', FAILED, 3],
  ['error-frame-at-token:0', FAILED_FIRST, 0],
  ['eof-at-token:3', LOST, 3],
  ['eof-at-token:0', LOST_FIRST, 0],
  ['bad-utf8-at-token:3', FAILED, 3],
  ['bad-json-at-token:3', FAILED, 3],
  ['bad-sse-at-token:3', FAILED, 3],
  ['long-line-at-token:3', FAILED, 3],
  ['duplicate-at-token:3', { triton: 'none', else: FAILED }, 4],
  // llama-server counts several tokens decoded at once in each of their frames, so a gap shows only one frame later.
  ['missing-at-token:3', { triton: 'none', else: FAILED }, 3],
  ['other-model', { tgi: 'none', llamacpp: FAILED, else: FAILED_FIRST }, 0],
];

const left = (expected: Row[1], protocol: Protocol): string =>
  typeof expected === 'string' ? expected : (expected[protocol] ?? expected.else);

/** The adapters of the others have tests of their own of what they read. */
const STREAMS = LONG ? PROTOCOLS : PROTOCOLS.slice(0, 2);

describe.each(STREAMS)('%s: a stream', (protocol) => {
  let sim: RunningSim;
  let adapter: EngineAdapter;
  beforeAll(async () => {
    sim = await startEngineSim({ protocol, args: ['--tokens-per-second', '0', '--model', MODEL, '--slots', '2'] });
    adapter = adapterFor(protocol, sim, { idleTimeoutMs: IDLE_TIMEOUT_MS });
  });
  afterAll(async () => {
    // Either may be missing, where the other could not be had.
    try {
      await adapter?.close();
    } finally {
      await sim?.[Symbol.asyncDispose]();
    }
  });

  it.each(OF_A_STREAM)('%s', async (fault, expected, tokens) => {
    await sim.control(fault);
    const startedMs = performance.now();
    const outcome = await run(adapter, ask());
    const tookMs = performance.now() - startedMs;
    const ending = left(expected, protocol);
    expect(failure(outcome)).toBe(ending);
    if (ending === 'none') expect(outcome.end).not.toBeNull();
    else if (fault !== 'other-model')
      expect(outcome.tokens).toBe(tokens + (fault === 'missing-at-token:3' && protocol === 'llamacpp' ? 1 : 0));
    expect(tookMs).toBeLessThan(BOUND_MS);
    // The engine, told that nothing ails it any more, serves the next, and has let go of this one.
    await sim.control('none');
    expect(await run(adapter, ask())).toMatchObject({ tokens: 8, error: null });
    await expect.poll(() => sim.inspect()).toMatchObject({ busySlots: 0, deferred: 0 });
  });

  it('wrong-usage: ends with our own count, and says what it did not believe', async () => {
    await sim.control('wrong-usage');
    const { end, error } = await run(adapter, ask());
    await sim.control('none');
    expect(error).toBeNull();
    expect(end).toMatchObject({ tokensOut: 8 });
    expect(end?.disbelieved ?? null).toEqual(protocol === 'triton' ? null : expect.stringContaining('23 generated'));
  });

  // The streams of the others tell no durations.
  it.runIf(protocol === 'llamacpp').each(['clock-skew:3600000', 'clock-skew:-3600000'])(
    '%s: measures the time by our own clock, and says what it did not believe',
    async (fault) => {
      await sim.control(fault);
      const startedMs = performance.now();
      const { end, error } = await run(adapter, ask());
      const tookMs = performance.now() - startedMs;
      await sim.control('none');
      expect(error).toBeNull();
      expect(end?.decodeMs).toBeGreaterThanOrEqual(0);
      expect(end?.decodeMs).toBeLessThanOrEqual(tookMs);
      expect(end?.disbelieved).toMatch(/ -?3\d{6} ms of decoding/);
    },
  );

  it('other-model: its properties tell', async () => {
    await sim.control('other-model');
    const told = await adapter.props(deadline()).then(
      ({ modelId }) => modelId,
      (error: unknown) => failure({ error }),
    );
    await sim.control('none');
    expect(told).toBe(`not-${MODEL}`);
  });

  it('ignore-cancel: is not called free while it decodes on', async () => {
    await sim.control(['ignore-cancel', 'hang-at-token:2']);
    const request = ask();
    const { over } = await startRun(adapter, request, 2);
    const startedMs = performance.now();
    const { outcome } = await adapter.cancel({ requestId: request.requestId, slot: 0 }, AbortSignal.timeout(1_500));
    expect(performance.now() - startedMs).toBeLessThan(BOUND_MS);
    expect((await over).error).toBeInstanceOf(Error);
    expect(outcome).toBe('unknown');
    expect(await sim.inspect()).toMatchObject({ busySlots: 1 });
    await sim.control('none'); // it decodes to its end and lets go
    await expect.poll(() => sim.inspect()).toMatchObject({ busySlots: 0 });
  });

  it('is not called progressing while it hangs with a healthy health', async () => {
    await sim.control('hang-at-token:2');
    const { over } = await startRun(adapter, ask(), 2);
    await expect.poll(async () => (await adapter.health(deadline())).progressing, { interval: 20 }).toBe(false);
    expect(await adapter.health(deadline())).toMatchObject({ state: 'ready', ready: true });
    expect(failure(await over)).toBe(HUNG);
    await sim.control('none');
  });

  it('leaves no connection, timer or request behind', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const other = adapterFor(protocol, sim, { idleTimeoutMs: IDLE_TIMEOUT_MS });
    await adapter.close();
    const before = timers();
    for (const [fault] of OF_A_STREAM) {
      await sim.control(fault);
      await run(other, ask());
    }
    await sim.control('none');
    await other.close();
    adapter = adapterFor(protocol, sim, { idleTimeoutMs: IDLE_TIMEOUT_MS });
    await expect.poll(() => sim.inspect()).toMatchObject({ connections: 0, busySlots: 0, deferred: 0 });
    await expect.poll(timers).toBeLessThanOrEqual(before + 1); // the poll's own
  });
});

interface Death {
  readonly stream: string;
  readonly exit: { code: number | null; signal: string | null } | 'serves on';
  readonly log: string;
}

const aborted = { code: null, signal: 'SIGABRT' };
const exited = { code: 1, signal: null };

/** How the process goes in mid-stream, what the stream then is, and what its log is read as. */
const DEATHS: Readonly<Record<Protocol, Readonly<Record<string, Death>>>> = {
  llamacpp: {
    'crash-at-token:3': { stream: LOST, exit: aborted, log: 'none' },
    'cuda-error-at-token:3': { stream: LOST, exit: aborted, log: 'CUDA_ERROR' },
    'oom-at-token:3': { stream: LOST, exit: aborted, log: 'VRAM_OOM_RUNTIME' },
  },
  vllm: {
    'crash-at-token:3': { stream: LOST, exit: exited, log: 'ENGINE_CORE_DEAD' },
    'cuda-error-at-token:3': { stream: LOST, exit: exited, log: 'CUDA_ERROR' },
    'oom-at-token:3': { stream: LOST, exit: exited, log: 'VRAM_OOM_RUNTIME' },
  },
  tgi: {
    'crash-at-token:3': { stream: LOST, exit: exited, log: 'ENGINE_CORE_DEAD' },
    'cuda-error-at-token:3': { stream: LOST, exit: exited, log: 'CUDA_ERROR' },
    'oom-at-token:3': { stream: LOST, exit: exited, log: 'VRAM_OOM_RUNTIME' },
  },
  triton: {
    'crash-at-token:3': { stream: LOST, exit: { code: null, signal: 'SIGSEGV' }, log: 'ENGINE_CORE_DEAD' },
    'cuda-error-at-token:3': { stream: LOST, exit: aborted, log: 'CUDA_ERROR' },
    'oom-at-token:3': { stream: FAILED, exit: 'serves on', log: 'VRAM_OOM_RUNTIME' },
  },
};

function faultIn(protocol: Protocol, lines: readonly string[]): string {
  const launch = { binaryPath: 'x', model: 'm', servedName: 'm', ports: [1, 2, 3], contextPerSlot: 1, slots: 1 };
  const { logPatterns } = DIALECTS[protocol].launch({ ...launch, gpuUuids: [], gpuIndices: [] });
  return readFault(logPatterns, lines)?.pattern.fault ?? 'none';
}

/** A process each. */
const PROCESSES = LONG ? PROTOCOLS : PROTOCOLS.slice(0, 1);

describe.each(PROCESSES)('%s: the process', (protocol) => {
  it.each(Object.entries(DEATHS[protocol]))('%s', async (fault, expected) => {
    await withSim(protocol, ['--fault', fault], async (sim, adapter) => {
      const outcome = await run(adapter, ask());
      expect(outcome.tokens).toBe(3);
      expect(failure(outcome)).toBe(expected.stream);
      if (expected.exit === 'serves on') {
        expect(await adapter.health(deadline())).toMatchObject({ state: 'ready' });
      } else {
        expect(await sim.exited).toEqual(expected.exit);
        expect(await adapter.health(deadline())).toMatchObject({ state: 'unreachable', live: false });
        expect(failure(await run(adapter, ask()))).toBe(LOST_FIRST);
      }
      expect(faultIn(protocol, sim.lines)).toBe(expected.log);
    });
  });

  it.each([
    ['oom-at-load', ['--fault', 'oom-at-load']],
    ['a model that needs more VRAM than there is', ['--vram-bytes', '8000000000', '--vram-free-bytes', '4000000000']],
  ])('%s: ends with code 1 and its own words for it', async (_name, args) => {
    await withSim(
      protocol,
      args,
      async (sim, adapter) => {
        expect(await sim.exited).toEqual(exited);
        expect(faultIn(protocol, sim.lines)).toBe('VRAM_OOM_LOAD');
        expect(await adapter.health(deadline())).toMatchObject({ state: 'unreachable' });
      },
      { until: 'control' },
    );
  });

  it('cpu-fallback: is told from its log, whether it serves or not', async () => {
    const serves = protocol === 'llamacpp' || protocol === 'tgi';
    await withSim(
      protocol,
      ['--fault', 'cpu-fallback'],
      async (sim, adapter) => {
        if (serves) expect(await run(adapter, ask())).toMatchObject({ tokens: 8, error: null });
        else expect(await sim.exited).toEqual(exited);
        expect(faultIn(protocol, sim.lines)).toBe(serves ? 'CPU_FALLBACK' : 'NO_GPU');
      },
      { until: serves ? 'ready' : 'control' },
    );
  });

  it('slow-load: becomes ready in its own time', async () => {
    await withSim(
      protocol,
      ['--fault', 'slow-load:300'],
      async (_sim, adapter) => {
        expect(await adapter.health(deadline())).toMatchObject({ ready: false });
        await expect.poll(() => adapter.health(deadline())).toMatchObject({ ready: true });
      },
      { until: 'control' },
    );
  });

  it('ignore-sigterm, orphan-child: the whole group is ended, by force and in time', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'llama-orch-group-'));
    const logFile = join(folder, 'engine.log');
    const engine = spawnEngineProcess({
      file: process.execPath,
      args: [
        fileURLToPath(new URL('../../dist/engines/sim/main.js', import.meta.url)),
        ...['--protocol', protocol, '--port', '0', '--metrics-port', '0'],
        ...['--fault', 'ignore-sigterm', '--fault', 'orphan-child'],
      ],
      ...{ env: {}, cwd: folder, logFile, mark: `test/${protocol}` },
    });
    try {
      await expect
        .poll(() => engine.tail(100), { timeout: BOUND_MS })
        .toContainEqual(expect.stringContaining('ready on'));
      expect(groupMembers(engine.pid)).toHaveLength(2);
      expect(await engine.stop({ graceMs: 100 })).toEqual({ forced: true });
      expect(groupMembers(engine.pid)).toEqual([]);
    } finally {
      await engine.stop({ graceMs: 0 });
      await rm(folder, { recursive: true, force: true });
    }
  });

  it('SIGTERM: ends an idle one with code 0', async () => {
    await withSim(protocol, [], async (sim, adapter) => {
      expect(await run(adapter, ask())).toMatchObject({ tokens: 8 });
      await adapter.close();
      sim.kill('SIGTERM');
      expect(await sim.exited).toEqual({ code: 0, signal: null });
    });
  });

  it('SIGTERM: kills one that is loading', async () => {
    await using sim = await startEngineSim({ protocol, args: ['--fault', 'never-ready'], until: 'control' });
    sim.kill('SIGTERM');
    expect(await sim.exited).toEqual({ code: null, signal: 'SIGTERM' });
  });
});
