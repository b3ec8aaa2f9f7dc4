/**
 * How a real tritonserver is started, understood and stopped. Pure.
 *
 * Batch size, context and tensor parallelism are compiled into the engine files and set in the repository's
 * config.pbtxt; no flag changes them. Engines for several GPUs need `binaryPath` to be a wrapper that runs tritonserver
 * under mpirun and passes its arguments on.
 */
import {
  type DeterminismClaim,
  type EngineLaunch,
  GIVE_MORE_VRAM,
  gpuEnvironment,
  type LaunchedAs,
  type LaunchSpec,
  type LogPattern,
  NOT_LAUNCHED_BY_US,
} from '../launch.js';

/** Nothing listens before every model of the repository is loaded. */
const READY_DEADLINE_MS = 1_800_000;
/** One budget: for connections to close, then for running requests, then for the models to unload. */
const EXIT_TIMEOUT_SECONDS = 30;
const EXIT_MARGIN_MS = 10_000;
const DRAIN_WINDOW_MS = EXIT_TIMEOUT_SECONDS * 1_000 + EXIT_MARGIN_MS;

/** One failure writes several of these lines; the first pattern that matches names its cause. */
const LOG_PATTERNS: readonly LogPattern[] = [
  {
    fault: 'NO_GPU',
    pattern: /no CUDA-capable device is detected|CUDA driver version is insufficient/,
    fix: 'Check the NVIDIA driver (nvidia-smi) and that the GPUs of the pool exist.',
  },
  { fault: 'KV_OOM', pattern: /No free blocks left/, fix: GIVE_MORE_VRAM },
  // The batch loop says what it met; whatever else is out of memory did not get as far as serving.
  { fault: 'VRAM_OOM_RUNTIME', pattern: /Encountered .*out of memory/, fix: GIVE_MORE_VRAM },
  {
    fault: 'VRAM_OOM_LOAD',
    pattern: /out of memory|GPU memory \(\d+ bytes\) could not be allocated/,
    fix: `${GIVE_MORE_VRAM} The KV cache alone takes kv_cache_free_gpu_mem_fraction of what is free.`,
  },
  {
    fault: 'CUDA_ERROR',
    pattern: /CUDA (?:runtime |driver )?error|\bcudaError|an illegal memory access|NCCL error/,
    fix: 'Look for an Xid in the kernel log (dmesg); a GPU that repeats it needs a reset.',
  },
  {
    fault: 'PORT_TAKEN',
    pattern: /Socket '[^']*' already in use/,
    fix: 'Another program has one of the ports; the next start takes others.',
  },
  {
    fault: 'MODEL_UNREADABLE',
    pattern: /failed to load all models|failed to load '|Poll failed for model directory/,
    fix: 'Check the model repository and that its engine files were built by this version of TensorRT-LLM for this GPU.',
  },
  {
    fault: 'BAD_ARGUMENTS',
    pattern: /^Usage: tritonserver|unrecognized option|^Failed to build Triton option/,
    fix: 'Correct provisioning.flags of the pool.',
  },
  {
    fault: 'ENGINE_CORE_DEAD',
    pattern: /^Signal \((?:6|11)\) received\./,
    fix: 'The process crashed; the lines before this one may say why, those after it say where.',
  },
];

export function tritonLaunch(launch: EngineLaunch): LaunchSpec {
  const [port = 0, metricsPort = 0] = launch.ports;
  return {
    file: launch.binaryPath,
    args: [
      `--model-repository=${launch.model}`,
      // All of the repository, and as a whole: what fails to load ends the process.
      ...['--model-control-mode=none', '--exit-on-error=true', '--strict-readiness=true'],
      ...['--http-address=127.0.0.1', `--http-port=${port}`],
      ...['--metrics-address=127.0.0.1', `--metrics-port=${metricsPort}`],
      ...['--allow-grpc=false', `--exit-timeout-secs=${EXIT_TIMEOUT_SECONDS}`],
      ...(launch.extraArgs ?? []),
    ],
    env: { ...gpuEnvironment(launch.gpuUuids), ...launch.extraEnv },
    ready: { whileLoading: 'refuses', deadlineMs: READY_DEADLINE_MS },
    logPatterns: LOG_PATTERNS,
    // Idle connections use it up to its last second, so ours are closed before.
    stop: { drainWindowMs: DRAIN_WINDOW_MS },
  };
}

export function tritonDeterminism(launched: LaunchedAs): DeterminismClaim {
  if (launched === null) return NOT_LAUNCHED_BY_US;
  return {
    claim: 'none',
    because:
      'in-flight batching and KV reuse change the arithmetic, and the model repository, not the launch, sets them',
  };
}
