/** The gates between a started engine and Ready, with an engine that is only what a gate asks of it. */
import { describe, expect, it } from 'vitest';
import type { EngineAdapter, EngineHealth, EngineProps } from '../../src/engines/adapter.js';
import { cpuGate, exitReason, propsGate, readyGate } from '../../src/services/supervision/gates.js';

const health = (over: Partial<EngineHealth>): EngineHealth => ({
  ...{ state: 'loading', live: true, ready: false, progressing: null, silentForMs: null, frameAgoMs: null, ...over },
});
const engine = (answers: () => Promise<EngineHealth>): EngineAdapter =>
  new Proxy({} as EngineAdapter, { get: (_target, key) => (key === 'health' ? answers : undefined) });
const never = new AbortController().signal;

describe('ready', () => {
  const limits = { deadlineMs: 60, logFile: '/log', onAnswer: () => {} };

  it('is waited for no longer than its deadline', async () => {
    const reason = await readyGate(
      engine(async () => health({ detail: 'loading weights' })),
      limits,
      never,
    );
    expect(reason).toMatchObject({ code: 'START_TIMEOUT', message: expect.stringContaining('loading weights') });
  });

  it('ends with its deadline also when the engine does not answer at all', async () => {
    const silent = engine(() => new Promise(() => {}));
    const hanging = {
      ...silent,
      health: (signal: AbortSignal) =>
        new Promise<never>((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    };
    expect(await readyGate(hanging, limits, never)).toMatchObject({ code: 'START_TIMEOUT' });
  });

  it('hears of the first answer, and passes', async () => {
    const states = [health({ live: false, state: 'unreachable' }), health({}), health({ state: 'ready', ready: true })];
    let heard = 0;
    const reason = await readyGate(
      engine(async () => states.shift() ?? health({ ready: true })),
      { ...limits, deadlineMs: 5_000, onAnswer: () => (heard += 1) },
      never,
    );
    expect([reason, heard]).toEqual([null, 2]);
  });
});

describe('properties', () => {
  const props: EngineProps = {
    ...{ version: '1', modelId: 'm', modelDigest: null, contextLength: null, slotsTotal: 2, slotsBusy: null },
  };

  it('must have the slots and the model that are wanted, as far as the engine tells', () => {
    expect(propsGate(props, { slots: 2, modelId: 'm' })).toBeNull();
    expect(propsGate(props, { slots: 3, modelId: 'm' })).toMatchObject({ code: 'TOO_FEW_SLOTS' });
    expect(propsGate(props, { slots: 2, modelId: 'n' })).toMatchObject({ code: 'WRONG_MODEL' });
    expect(propsGate({ ...props, slotsTotal: null }, { slots: 9, modelId: null })).toBeNull();
  });
});

describe('a log', () => {
  const patterns = [
    { fault: 'CPU_FALLBACK', pattern: /no usable GPU/, fix: 'driver' },
    { fault: 'CUDA_ERROR', pattern: /CUDA error/, fix: 'dmesg' },
  ] as const;
  const log = (lines: readonly string[]) => ({ file: '/log', patterns, tail: async () => lines });

  it('gives away an engine on the CPU, and nothing else does at this gate', async () => {
    expect(await cpuGate(log(['warning: no usable GPU found']))).toMatchObject({ code: 'CPU_FALLBACK', fix: 'driver' });
    expect(await cpuGate(log(['CUDA error: x']))).toBeNull();
  });

  it('says why a process ended, or at least how', async () => {
    const aborted = { code: null, signal: 'SIGABRT' } as const;
    expect(await exitReason(aborted, log(['a', 'CUDA error: x', 'b']), 2)).toMatchObject({
      ...{ code: 'CUDA_ERROR', message: 'the engine process ended by SIGABRT: CUDA error: x', fix: 'dmesg' },
    });
    expect(await exitReason({ code: 3, signal: null }, log(['a', 'b', 'c']), 2)).toMatchObject({
      ...{ code: 'ENGINE_EXITED', message: 'the engine process ended with code 3. Last lines: b | c' },
    });
    expect(await exitReason({ code: null, signal: null }, log([]), 2, false)).toMatchObject({
      message: 'the engine process ended in a way that is not known.',
    });
    const killed = { code: null, signal: 'SIGKILL' } as const;
    expect(await exitReason(killed, log(['a']), 2, true)).toMatchObject({
      ...{ code: 'HOST_OOM', message: expect.stringContaining('by SIGKILL: the kernel killed it') },
    });
    expect(await exitReason(killed, log(['a']), 2, false)).toMatchObject({ code: 'ENGINE_EXITED' });
  });
});
