import { describe, expect, it } from 'vitest';
import { readFault } from '../../src/engines/launch.js';
import { tritonDeterminism, tritonLaunch } from '../../src/engines/triton/launch.js';

const facts = {
  ...{ binaryPath: '/b/tritonserver', model: '/repo', servedName: 'ensemble', ports: [9000, 9002] },
  ...{ contextPerSlot: 1024, slots: 4, gpuUuids: [], gpuIndices: [] },
};

describe('launch', () => {
  it('serves the repository on two ports of this machine alone', () => {
    const spec = tritonLaunch({
      ...facts,
      gpuUuids: ['GPU-a', 'GPU-b'],
      apiKey: 'secret',
      extraArgs: ['--log-verbose=1'],
    });
    expect([spec.file, ...spec.args].join(' ')).toBe(
      '/b/tritonserver --model-repository=/repo --model-control-mode=none --exit-on-error=true --strict-readiness=true' +
        ' --http-address=127.0.0.1 --http-port=9000 --metrics-address=127.0.0.1 --metrics-port=9002' +
        ' --allow-grpc=false --exit-timeout-secs=30 --log-verbose=1',
    );
    expect(spec.env).toEqual({ CUDA_DEVICE_ORDER: 'PCI_BUS_ID', CUDA_VISIBLE_DEVICES: 'GPU-a,GPU-b' });
    expect(spec.ready).toEqual({ whileLoading: 'refuses', deadlineMs: 30 * 60_000 });
  });

  it('shows no GPU where none is given, and lets the environment of the pool have the last word', () => {
    expect(tritonLaunch(facts).env).toMatchObject({ CUDA_VISIBLE_DEVICES: '-1' });
    const extraEnv = { CUDA_VISIBLE_DEVICES: '0' };
    expect(tritonLaunch({ ...facts, gpuUuids: ['GPU-a'], extraEnv }).env).toMatchObject(extraEnv);
  });

  it('gives the exit more time than the server gives itself', () => {
    const { args, stop } = tritonLaunch(facts);
    const exitTimeoutSeconds = Number(/--exit-timeout-secs=(\d+)/.exec(args.join(' '))?.[1]);
    expect(stop.drainWindowMs).toBeGreaterThan(exitTimeoutSeconds * 1_000);
  });
});

describe('determinism', () => {
  it('is never claimed', () => {
    expect(tritonDeterminism({ slots: 1 })).toMatchObject({
      ...{ claim: 'none', because: expect.stringContaining('batching') },
    });
    expect(tritonDeterminism(null)).toMatchObject({ claim: 'none', because: expect.stringContaining('somebody else') });
  });
});

describe('log', () => {
  const { logPatterns } = tritonLaunch(facts);
  const E = 'E1121 12:20:01.000001 41 model_lifecycle.cc:654]';
  const NOT_LOADED = 'error: creating server: Internal - failed to load all models';
  const CRASHED = [' 0# 0x000055E1 in tritonserver', ' 1# 0x00007F in /lib/libc.so.6'];

  it.each([
    ['NO_GPU', ['[TensorRT-LLM][ERROR] x: no CUDA-capable device is detected', NOT_LOADED]],
    [
      'VRAM_OOM_LOAD',
      [`${E} "failed to load 'tensorrt_llm' version 1: Internal: CUDA runtime error in x: out of memory"`, NOT_LOADED],
    ],
    ['VRAM_OOM_LOAD', ['Requested amount of GPU memory (17179869184 bytes) could not be allocated.', NOT_LOADED]],
    [
      'VRAM_OOM_RUNTIME',
      ['[TensorRT-LLM][ERROR] Encountered an error in forwardAsync function: CUDA runtime error in x: out of memory'],
    ],
    ['KV_OOM', ["[TensorRT-LLM][ERROR] Assertion failed: Can't allocate new blocks. No free blocks left."]],
    [
      'CUDA_ERROR',
      [
        '[TensorRT-LLM][ERROR] Encountered an error in forwardAsync function: CUDA runtime error in x: an illegal memory access was encountered',
        ...['Signal (6) received.', ...CRASHED],
      ],
    ],
    ['PORT_TAKEN', ["failed to start HTTP service: Unavailable - Socket '127.0.0.1:9000' already in use "]],
    ['MODEL_UNREADABLE', [`${E} "failed to load 'ensemble' version 1: Invalid argument: x"`, NOT_LOADED]],
    ['MODEL_UNREADABLE', [NOT_LOADED]],
    ['BAD_ARGUMENTS', ["tritonserver: unrecognized option '--nope'", 'Usage: tritonserver [options]']],
    ['ENGINE_CORE_DEAD', ['Signal (11) received.', ...CRASHED]],
  ] as const)('%s is read from %j', (fault, lines) => {
    expect(readFault(logPatterns, lines)?.pattern.fault).toBe(fault);
  });

  it.each([
    'Signal (15) received.',
    `I1121 12:20:01.000001 41 http_server.cc:5000] "Started HTTPService at 127.0.0.1:9000"`,
    `I1121 12:20:01.000001 41 model_lifecycle.cc:473] "loading: ensemble:1"`,
  ])('nothing is read from %j', (line) => {
    expect(readFault(logPatterns, [line])).toBeNull();
  });
});
