import { describe, expect, it } from 'vitest';
import { verdictOf } from '../../src/core/exit.js';

const killed = { code: null, signal: 'SIGKILL', oomKilled: true };

describe('the end of an engine process', () => {
  it.each([
    ['killed while the kernel counted a kill', killed, null, 'HOST_OOM'],
    ['killed, whatever its log says', killed, 'CUDA_ERROR', 'HOST_OOM'],
    ['killed inside a container or a shell', { ...killed, code: 137, signal: null }, null, 'HOST_OOM'],
    ['ended because its helper was killed', { ...killed, code: 1, signal: null }, 'ENGINE_CORE_DEAD', 'HOST_OOM'],
    ['gone, and only its parent knows how', { ...killed, signal: null }, null, 'HOST_OOM'],
    ['killed by somebody else', { ...killed, oomKilled: false }, null, 'exited'],
    ['killed where the kernel tells nothing', { ...killed, oomKilled: null }, null, 'exited'],
    ['a crash in a bad moment', { ...killed, signal: 'SIGABRT' }, null, 'exited'],
    ['out of GPU memory in a bad moment', { ...killed, code: 1, signal: null }, 'VRAM_OOM_LOAD', 'log'],
    ['out of GPU memory', { code: 1, signal: null, oomKilled: false }, 'KV_OOM', 'log'],
    ['nothing known', { code: null, signal: null, oomKilled: false }, null, 'exited'],
  ])('%s', (_name, exit, logFault, verdict) => {
    expect(verdictOf(exit, logFault)).toBe(verdict);
  });
});
