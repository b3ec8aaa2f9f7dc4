/** llama-server's log lines and the ways its process ends. */
import { performance } from 'node:perf_hooks';
import type { Deaths } from '../deaths.js';
import type { SimLogs } from '../protocol.js';

const BYTES_PER_MIB = 1024 * 1024;

export const logs: SimLogs = {
  /** `minutes.seconds.milliseconds.microseconds level message`, since the process started. */
  format(line) {
    const totalMicros = Math.floor(performance.now() * 1000);
    const pad = (value: number, width: number): string => String(Math.floor(value)).padStart(width, '0');
    const [minutes, seconds] = [totalMicros / 60e6, (totalMicros / 1e6) % 60];
    const time = `${Math.floor(minutes)}.${pad(seconds, 2)}.${pad((totalMicros / 1000) % 1000, 3)}.${pad(totalMicros % 1000, 3)}`;
    return `${time} I ${line}`;
  },
  loading: ({ model }, url) => [`srv  llama_server: loading model '${model}', bound to ${url}`],
  loaded: () => ['srv  llama_server: model loaded'],
  listening: (_config, url) => [`srv  llama_server: listening on ${url}`],
  stopping: () => ['srv  llama_server: cleaning up before exit...'],
  loadOom: ({ model, vramBytes }) => [
    `ggml_backend_cuda_buffer_type_alloc_buffer: allocating ${(vramBytes / BYTES_PER_MIB).toFixed(2)} MiB on device 0: cudaMalloc failed: out of memory`,
    `alloc_tensor_range: failed to allocate CUDA0 buffer of size ${vramBytes}`,
    'llama_model_load: error loading model: unable to allocate CUDA0 buffer',
    'llama_model_load_from_file_impl: failed to load model',
    `srv    load_model: failed to load model, '${model}'`,
    'srv  llama_server: exiting due to model loading error',
  ],
  noGpu: () => [
    'ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected',
    'warning: no usable GPU found, --gpu-layers option will be ignored',
  ],
};

/** ggml aborts on whatever goes wrong on the GPU: streams just end, and there is no exit code. */
const abort = (...lines: readonly string[]) => ({ lines, toldError: null, end: { signal: 'SIGABRT' } }) as const;

export const deaths: Deaths = {
  crash: abort('ggml/src/ggml-backend.cpp:1266: GGML_ASSERT(cur_backend_id != -1) failed'),
  cudaError: abort(
    'CUDA error: an illegal memory access was encountered',
    '  current device: 0, in function ggml_backend_cuda_synchronize at ggml-cuda.cu:2981',
    '  cudaStreamSynchronize(cuda_ctx->stream())',
    'ggml-cuda.cu:103: CUDA error',
  ),
  runtimeOom: abort(
    'CUDA error: out of memory',
    '  current device: 0, in function alloc at ggml-cuda.cu:488',
    '  cuMemCreate(&handle, reserve_size, &prop, 0)',
    'ggml-cuda.cu:103: CUDA error',
  ),
};
