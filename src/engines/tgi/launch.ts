/**
 * How a real text-generation-launcher is started, understood and stopped. Pure.
 *
 * The launcher runs one Python shard per GPU and the router, which serves HTTP, each in a process group of its own.
 */
import {
  type DeterminismClaim,
  type EngineLaunch,
  GIVE_MORE_VRAM,
  gpuEnvironment,
  HUB_NOT_ALLOWED,
  hubEnvironment,
  type LaunchedAs,
  type LaunchSpec,
  type LogPattern,
  NOT_LAUNCHED_BY_US,
} from '../launch.js';

/** Weights may have to be downloaded and converted first; nothing listens before the warm-up is over. */
const READY_DEADLINE_MS = 1_800_000;
/** What --graceful-termination-timeout gives the router to finish what runs, and then the shards to go. */
const TERMINATION_TIMEOUT_SECONDS = 30;
const DRAIN_MARGIN_MS = 10_000;
const DRAIN_WINDOW_MS = 2 * TERMINATION_TIMEOUT_SECONDS * 1_000 + DRAIN_MARGIN_MS;
/** A request of ours may come before the server has noticed that the one before it is gone. */
const REQUEST_HEADROOM = 4;

/** Without graphs, whose padding changes with the batch, and without cached prefixes. */
const STRICT_ARGS = ['--cuda-graphs', '0'] as const;
const STRICT_ENV = { PREFIX_CACHING: '0' } as const;

/** One failure writes several of these lines; the first pattern that matches names its cause. */
const LOG_PATTERNS: readonly LogPattern[] = [
  {
    fault: 'CPU_FALLBACK',
    pattern: /Detected system (?:cpu|ipex)/,
    fix: 'Check the NVIDIA driver (nvidia-smi) and that this is a CUDA build of TGI. It is not used on the CPU.',
  },
  {
    fault: 'NO_GPU',
    pattern: /NotEnoughCUDADevices|No CUDA GPUs are available|no CUDA-capable device is detected/,
    fix: 'Check the NVIDIA driver (nvidia-smi) and that the GPUs of the pool exist.',
  },
  {
    fault: 'VRAM_OOM_LOAD',
    pattern: /Not enough memory to handle|NotEnoughMemory\(|Warmup\(Generation\(".*out of memory/,
    fix: `${GIVE_MORE_VRAM} The warm-up alone needs less with a smaller --max-batch-prefill-tokens.`,
  },
  {
    fault: 'VRAM_OOM_RUNTIME',
    pattern: /(?:Server error|Request failed during generation): .*out of memory/,
    fix: GIVE_MORE_VRAM,
  },
  // Left over is the traceback of a shard that did not get as far as serving.
  { fault: 'VRAM_OOM_LOAD', pattern: /OutOfMemoryError|CUDA out of memory/, fix: GIVE_MORE_VRAM },
  {
    fault: 'CUDA_ERROR',
    pattern: /CUDA error|NCCL error|CUBLAS_STATUS/,
    fix: 'Look for an Xid in the kernel log (dmesg); a GPU that repeats it needs a reset.',
  },
  {
    fault: 'PORT_TAKEN',
    pattern: /Failed to bind to|EADDRINUSE|[Aa]ddress already in use/,
    fix: 'Another program has one of the ports; the next start takes others.',
  },
  HUB_NOT_ALLOWED,
  {
    fault: 'MODEL_UNREADABLE',
    pattern: /Download encountered an error|Error: DownloadError|Error when initializing model|SafetensorError/,
    fix: 'Check the name or folder of the model, HF_TOKEN where it is gated, and that this version of TGI knows it.',
  },
  {
    fault: 'BAD_ARGUMENTS',
    pattern: /^error: |Error: ArgumentValidation/,
    fix: 'Correct provisioning.flags of the pool.',
  },
  {
    fault: 'ENGINE_CORE_DEAD',
    pattern: /Shard \d+ crashed|Shard process was signaled|Webserver Crashed/,
    fix: 'A process of the engine died; the lines before this one may say why.',
  },
];

export function tgiLaunch(launch: EngineLaunch): LaunchSpec {
  const [port = 0, masterPort = 0, prometheusPort = 0] = launch.ports;
  const isAlone = launch.slots === 1;
  return {
    file: launch.binaryPath,
    args: [
      // It serves a model under the name it loads it by, and knows no other.
      ...['--model-id', launch.model],
      ...['--hostname', '127.0.0.1', '--port', String(port)],
      ...['--max-total-tokens', String(launch.contextPerSlot), '--max-input-tokens', String(launch.contextPerSlot - 1)],
      ...['--max-concurrent-requests', String(launch.slots + REQUEST_HEADROOM)],
      ...['--max-batch-size', String(launch.slots)],
      // Otherwise one per entry of CUDA_VISIBLE_DEVICES, which counts the -1 that hides all GPUs as one.
      ...['--num-shard', String(Math.max(launch.gpuUuids.length, 1))],
      // Two launchers on one machine must differ in these.
      ...['--master-port', String(masterPort), '--shard-uds-path', `/tmp/tgi-${port}`],
      ...['--prometheus-port', String(prometheusPort)],
      ...['--graceful-termination-timeout', String(TERMINATION_TIMEOUT_SECONDS), '--usage-stats', 'off'],
      ...(isAlone ? STRICT_ARGS : []),
      ...(launch.extraArgs ?? []),
    ],
    env: {
      // Colours are off in the launcher by the first, and in the router by the second, which it reads the wrong way.
      NO_COLOR: '1',
      LOG_COLORIZE: '1',
      ...(isAlone && STRICT_ENV),
      ...hubEnvironment(launch),
      ...gpuEnvironment(launch.gpuUuids),
      ...(launch.apiKey !== undefined && { API_KEY: launch.apiKey }),
      ...launch.extraEnv,
    },
    ready: { whileLoading: 'refuses', deadlineMs: READY_DEADLINE_MS },
    logPatterns: LOG_PATTERNS,
    stop: { drainWindowMs: DRAIN_WINDOW_MS },
  };
}

export function tgiDeterminism(launched: LaunchedAs): DeterminismClaim {
  if (launched === null) return NOT_LAUNCHED_BY_US;
  if (launched.slots > 1) {
    return { claim: 'none', because: `${launched.slots} slots share one batch, and its shape changes the arithmetic` };
  }
  return {
    claim: 'none',
    because: 'TGI does not promise equal bytes; one slot, --cuda-graphs 0 and PREFIX_CACHING=0 only reduce what varies',
  };
}
