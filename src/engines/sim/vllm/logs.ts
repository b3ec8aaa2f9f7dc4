/**
 * vLLM's log lines and the ways its process ends. Two processes write into one log, each under its name and number:
 * the API server, and the engine that it has as a child.
 */
import type { Deaths } from '../deaths.js';
import type { SimLogs } from '../protocol.js';
import { VERSION } from './bodies.js';
import { ENGINE_DEAD } from './errors.js';

const BYTES_PER_GIB = 1024 ** 3;
const PID_BY_PROCESS: ReadonlyMap<string, number> = new Map([
  ['APIServer', process.pid],
  ['EngineCore_DP0', process.pid + 1],
]);

const api = (file: string, text: string): string => `APIServer INFO [${file}] ${text}`;
const core = (file: string, text: string): string => `EngineCore_DP0 INFO [${file}] ${text}`;
const coreError = (file: string, text: string): string => `EngineCore_DP0 ERROR [${file}] ${text}`;
const uvicorn = (text: string): string => `APIServer INFO:     ${text}`;

/** `(Process pid=N) LEVEL MM-DD HH:MM:SS [file:line] text`; uvicorn's own lines have no time, Python's no prefix. */
function format(line: string): string {
  const [, name = '', rest = ''] = /^(\w+) (.*)$/s.exec(line) ?? [];
  const pid = PID_BY_PROCESS.get(name);
  if (pid === undefined) return line;
  return `(${name} pid=${pid}) ${rest.replace(/^(INFO|WARNING|ERROR) \[/, (_match, level) => `${level} ${clock()} [`)}`;
}

function clock(): string {
  const [date = '', time = ''] = new Date().toISOString().split('T', 2);
  return `${date.slice(5)} ${time.slice(0, 8)}`;
}

const gib = (bytes: number): string => `${(bytes / BYTES_PER_GIB).toFixed(2)} GiB`;
const START_FAILED = [
  coreError('core.py:700', 'EngineCore failed to start.'),
  "APIServer RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}",
] as const;

export const logs: SimLogs = {
  format,
  loading: ({ model, contextTokens, slots }) => [
    api('api_server.py:1839', `vLLM API server version ${VERSION}`),
    api(
      'utils.py:253',
      `non-default args: {'model': '${model}', 'max_model_len': ${contextTokens}, 'max_num_seqs': ${slots}}`,
    ),
    core('gpu_model_runner.py:2602', `Starting to load model ${model}...`),
  ],
  loaded: ({ vramBytes }) => [
    core('gpu_model_runner.py:2653', `Model loading took ${gib(vramBytes)} and 0.494173 seconds`),
    core('core.py:210', 'init engine (profile, create kv cache, warmup model) took 1.44 seconds'),
  ],
  listening: (_config, url) => [
    api('api_server.py:1912', `Starting vLLM server on ${url}`),
    api('launcher.py:34', 'Available routes are:'),
    api('launcher.py:42', 'Route: /health, Methods: GET'),
    api('launcher.py:42', 'Route: /v1/completions, Methods: POST'),
    uvicorn(`Started server process [${process.pid}]`),
    uvicorn('Waiting for application startup.'),
    uvicorn('Application startup complete.'),
  ],
  stopping: (_signal, drainMs) => [
    api('launcher.py:100', '[shutdown] API server: shutdown triggered'),
    api(
      'launcher.py:116',
      `[shutdown] API server: stopping engine client mode=${drainMs === 0 ? 'abort' : 'drain'} timeout=${drainMs / 1000}s`,
    ),
    uvicorn('Shutting down'),
    uvicorn('Waiting for application shutdown.'),
    uvicorn('Application shutdown complete.'),
    uvicorn(`Finished server process [${process.pid}]`),
  ],
  loadOom: ({ vramBytes, vramFreeBytes }) => {
    const free = Number.isFinite(vramFreeBytes) ? ` GPU 0 has ${gib(vramFreeBytes)} free.` : '';
    const cause = `CUDA out of memory. Tried to allocate ${gib(vramBytes)}.${free}`;
    return [
      coreError(
        'gpu_model_runner.py:4818',
        `Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for weights, increasing --tensor-parallel-size, or using --quantization. (original error: ${cause})`,
      ),
      ...START_FAILED.slice(0, 1),
      coreError('core.py:700', `torch.OutOfMemoryError: ${cause}`),
      ...START_FAILED.slice(1),
    ];
  },
  // Refused while the arguments are read, before there is an engine.
  noGpu: () => [
    'Traceback (most recent call last):',
    'RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue.',
  ],
};

/**
 * Whatever goes wrong on the GPU ends the engine, not the API server: that one tells its clients, answers 503 on
 * /health, and ends when its watchdog looks. Some builds end with 0 then, as if they had been told to.
 */
const engineDies = (...cause: readonly string[]) =>
  ({
    lines: [
      coreError('core.py:710', 'EngineCore encountered a fatal error.'),
      coreError('core.py:710', 'Traceback (most recent call last):'),
      ...cause.map((line) => coreError('core.py:710', line)),
      'APIServer ERROR [async_llm.py:480] AsyncLLM output_handler failed.',
      `APIServer ERROR [async_llm.py:480] vllm.v1.engine.exceptions.EngineDeadError: ${ENGINE_DEAD}`,
    ],
    toldError: ENGINE_DEAD,
    end: { exitCode: 1 },
  }) as const;

export const deaths: Deaths = {
  crash: engineDies('    assert num_scheduled_tokens > 0', 'AssertionError'),
  cudaError: engineDies('torch.AcceleratorError: CUDA error: an illegal memory access was encountered'),
  runtimeOom: engineDies('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.'),
};
