/** Lines of tritonserver and of the TensorRT-LLM backend in it, and the ways the process ends. */
import { constants } from 'node:os';
import type { Death, Deaths } from '../deaths.js';
import type { SimLogs } from '../protocol.js';
import { INNER_MODEL } from './request.js';

/** A level and the place in the source: what Triton's logger writes. Anything else is printed as it is. */
const LOGGED = /^([IWE]) (\w+\.cc:\d+\] .*)$/s;
const SOURCES = '/workspace/tensorrt_llm/cpp/tensorrt_llm';

const addressOf = (url: string): string => new URL(url).host;
const trtLlmError = (text: string): string => `[TensorRT-LLM][ERROR] ${text}`;

/** Of start-up only: it fails as a whole when one model does. */
function loadFailed(model: string, cause: string): readonly string[] {
  return [
    `E model_lifecycle.cc:654] "failed to load '${INNER_MODEL}' version 1: Internal: unexpected error when creating modelInstanceState: ${cause}"`,
    `E model_repository_manager.cc:703] "Invalid argument: ensemble '${model}' depends on '${INNER_MODEL}' which has no loaded version. Model '${INNER_MODEL}' loading failed with error: version 1 is at UNAVAILABLE state: Internal: unexpected error when creating modelInstanceState: ${cause};"`,
    'error: creating server: Internal - failed to load all models',
  ];
}

export const logs: SimLogs = {
  /** `I1121 12:20:01.000001 41 http_server.cc:4961] "…"`: level, date, UTC time, process, place. */
  format(line) {
    const [, level, rest] = LOGGED.exec(line) ?? [];
    if (level === undefined) return line;
    const [date = '', time = ''] = new Date().toISOString().split(/[TZ]/);
    return `${level}${date.slice(5).replace('-', '')} ${time}000 ${process.pid} ${rest}`;
  },
  loading: ({ model }) => [
    'I pinned_memory_manager.cc:277] "Pinned memory pool is created at \'0x7f2000000000\' with size 268435456"',
    'I cuda_memory_manager.cc:107] "CUDA memory pool is created on device 0 with size 67108864"',
    `I model_lifecycle.cc:473] "loading: ${INNER_MODEL}:1"`,
    `I model_lifecycle.cc:473] "loading: ${model}:1"`,
  ],
  loaded: ({ model }) => [
    ...[INNER_MODEL, model].map((name) => `I model_lifecycle.cc:849] "successfully loaded '${name}'"`),
    'I server.cc:681] ',
    ...table([
      ['Model', 'Version', 'Status'],
      [model, '1', 'READY'],
      [INNER_MODEL, '1', 'READY'],
    ]),
  ],
  listening: (_config, url, metricsUrl) => [
    `I http_server.cc:4961] "Started HTTPService at ${addressOf(url)}"`,
    ...(metricsUrl === null ? [] : [`I http_server.cc:400] "Started Metrics Service at ${addressOf(metricsUrl)}"`]),
  ],
  stopping: (signal) => [`Signal (${constants.signals[signal]}) received.`],
  loadOom: ({ model, vramBytes }) => [
    trtLlmError(`Requested amount of GPU memory (${vramBytes} bytes) could not be allocated.`),
    ...loadFailed(model, trtLlmError(`CUDA runtime error in ::cudaMalloc(ptr, n): out of memory`)),
  ],
  noGpu: ({ model }) => [
    'W pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory pool will not be available: no CUDA-capable device is detected"',
    'I cuda_memory_manager.cc:117] "CUDA memory pool disabled"',
    ...loadFailed(
      model,
      trtLlmError('CUDA runtime error in cudaGetDeviceCount(&count): no CUDA-capable device is detected'),
    ),
  ],
};

function table(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const rule = `+${widths.map((width) => '-'.repeat(width + 2)).join('+')}+`;
  const [heading = '', ...body] = rows.map(
    (row) => `|${row.map((cell, column) => ` ${cell.padEnd(widths[column] ?? 0)} `).join('|')}|`,
  );
  return [rule, heading, rule, ...body, rule];
}

/** Triton's own handler prints the stack and lets the signal kill the process. */
function killedBy(signal: 'SIGSEGV' | 'SIGABRT', before: readonly string[]): Death {
  const lines = [
    ...before,
    `Signal (${constants.signals[signal]}) received.`,
    ' 0# 0x000055D0C6D3D1F4 in tritonserver',
    ' 1# 0x00007F8C1E642520 in /usr/lib/x86_64-linux-gnu/libc.so.6',
    ' 2# 0x00007F8B3A1C9E10 in /opt/tritonserver/backends/tensorrtllm/libtriton_tensorrtllm.so',
    '',
  ];
  return { lines, toldError: null, end: { signal } };
}

const illegalAccess = trtLlmError(
  `CUDA runtime error in cudaEventSynchronize(get()): an illegal memory access was encountered (${SOURCES}/runtime/cudaEvent.h:66)`,
);
const outOfMemory = `Encountered an error in forwardAsync function: ${trtLlmError(
  `CUDA runtime error in ::cudaMallocAsync(ptr, n, mMemPool->getPool(), mCudaStream->get()): out of memory (${SOURCES}/runtime/tensorBuffers.h:120)`,
)}`;

export const deaths: Deaths = {
  crash: killedBy('SIGSEGV', []),
  cudaError: killedBy('SIGABRT', [
    trtLlmError(`Encountered an error in forwardAsync function: ${illegalAccess}`),
    "terminate called after throwing an instance of 'tensorrt_llm::common::TllmException'",
    `  what():  ${illegalAccess}`,
  ]),
  // The batch fails, the process stays.
  runtimeOom: { lines: [trtLlmError(outOfMemory)], toldError: outOfMemory, end: 'serves on' },
};
