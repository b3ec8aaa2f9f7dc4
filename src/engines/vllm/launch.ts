/** How a real vLLM server is started, understood and stopped. Pure. */
import { type Offers, WORKLOADS, type Workload } from '../../core/workload.js';
import {
  type DeterminismClaim,
  type EngineLaunch,
  GIVE_MORE_VRAM,
  gpuEnvironment,
  HUB_NOT_ALLOWED,
  hasFlag,
  hubEnvironment,
  type LaunchedAs,
  type LaunchSpec,
  type LogPattern,
  NOT_LAUNCHED_BY_US,
} from '../launch.js';

/**
 * SIGTERM aborts what runs, but then the API server waits for its engine and worker processes to let go of their GPUs,
 * which takes seconds each.
 */
const DRAIN_WINDOW_MS = 30_000;
/** Loading, compiling and capturing graphs; a model of a hub is downloaded before that. */
const READY_DEADLINE_MS = 1_800_000;

/** Alone in its batch, with no cached prefix and no graphs padded to other shapes, the arithmetic varies least. */
const STRICT_ARGS = ['--no-enable-prefix-caching', '--enforce-eager'] as const;
/** Kernels whose results do not depend on the batch; what they need is a GPU of compute capability 8.0 or more. */
const BATCH_INVARIANT = 'VLLM_BATCH_INVARIANT';

/**
 * One failure writes two tracebacks, the cause in the first; the first pattern that matches names it. The line of an
 * allocation that failed is the same at load and at run time, so only what else is said at load tells them apart.
 */
const LOG_PATTERNS: readonly LogPattern[] = [
  {
    fault: 'NO_GPU',
    pattern: /Failed to infer device type|No CUDA GPUs are available|no CUDA-capable device is detected/,
    fix: 'Check the NVIDIA driver (nvidia-smi) and that this build of vLLM has CUDA.',
  },
  {
    fault: 'KV_OOM',
    pattern: /No available memory for the cache blocks|larger than the available KV cache memory/,
    fix: 'Lower the context length or the slots, or raise --gpu-memory-utilization in provisioning.flags.',
  },
  {
    fault: 'VRAM_OOM_LOAD',
    pattern:
      /not enough GPU memory|Free memory on device .* is less than desired|out of memory occurred when warming up/,
    fix: GIVE_MORE_VRAM,
  },
  { fault: 'VRAM_OOM_RUNTIME', pattern: /CUDA out of memory|CUDA error: out of memory/, fix: GIVE_MORE_VRAM },
  {
    fault: 'CUDA_ERROR',
    pattern: /CUDA error|CUDA driver error/,
    fix: 'Look for an Xid in the kernel log (dmesg); a GPU that repeats it needs a reset.',
  },
  {
    fault: 'PORT_TAKEN',
    pattern: /[Aa]ddress already in use/,
    fix: 'Another program has the port; the next start takes another one.',
  },
  HUB_NOT_ALLOWED,
  {
    fault: 'MODEL_UNREADABLE',
    pattern:
      /Invalid repository ID or local directory|is not a valid model identifier|Cannot find any model weights|does not appear to have a file named|Model architectures .* are not supported/,
    fix: 'Check that the model is a complete Hugging Face folder or hub name that this build of vLLM knows.',
  },
  {
    fault: 'BAD_ARGUMENTS',
    pattern: /error: (?:unrecognized arguments|argument |the following arguments)|User-specified max_model_len/,
    fix: 'Correct provisioning.flags of the pool, or its context length.',
  },
  {
    fault: 'ENGINE_CORE_DEAD',
    pattern: /EngineCore encountered a fatal error|EngineDeadError|Engine core initialization failed|died unexpectedly/,
    fix: 'Read the first traceback in its log: it names the cause.',
  },
];

/** `model` may be a name in a hub. */
export function vllmLaunch(launch: EngineLaunch): LaunchSpec {
  const [port = 0] = launch.ports;
  return {
    file: launch.binaryPath,
    args: [
      ...['serve', launch.model, '--host', '127.0.0.1', '--port', String(port)],
      ...['--served-model-name', launch.servedName],
      ...['--max-model-len', String(launch.contextPerSlot), '--max-num-seqs', String(launch.slots)],
      // Otherwise it uses the first of them alone.
      ...(launch.gpuIndices.length > 1 ? ['--tensor-parallel-size', String(launch.gpuIndices.length)] : []),
      ...(launch.slots === 1 ? STRICT_ARGS : []),
      ...(launch.extraArgs ?? []),
    ],
    env: {
      VLLM_NO_USAGE_STATS: '1',
      DO_NOT_TRACK: '1',
      ...hubEnvironment(launch),
      // It takes the entries for numbers, and ends when one is a UUID.
      ...gpuEnvironment(launch.gpuIndices),
      // Not by --api-key: every user of the machine can read another process's arguments.
      ...(launch.apiKey !== undefined && { VLLM_API_KEY: launch.apiKey }),
      ...launch.extraEnv,
    },
    ready: { whileLoading: 'refuses', deadlineMs: READY_DEADLINE_MS },
    logPatterns: LOG_PATTERNS,
    stop: { drainWindowMs: DRAIN_WINDOW_MS },
  };
}

/** One slot alone is no claim: vLLM gives no word for it, and its kernels choose by shapes that prefill chunks vary. */
export function vllmDeterminism(launched: LaunchedAs): DeterminismClaim {
  if (launched === null) return NOT_LAUNCHED_BY_US;
  if (launched.extraEnv?.[BATCH_INVARIANT] === '1') {
    return { claim: 'byte_exact', because: `${BATCH_INVARIANT}=1; same build, GPU type and parallelism` };
  }
  return { claim: 'none', because: `vLLM repeats itself only with ${BATCH_INVARIANT}=1 in its environment` };
}

const POOLING_TASKS = ['embed', 'embedding', 'score', 'classify', 'reward'];

/** Without a flag for it the model decides, so the engine is asked when it is up. */
export function vllmWorkloads(launched: LaunchedAs): readonly Workload[] {
  const args = launched?.extraArgs ?? [];
  if (hasFlag(args, ['--runner'], ['generate']) || hasFlag(args, ['--task'], ['generate'])) return ['completion'];
  const pools = hasFlag(args, ['--runner'], ['pooling']) || hasFlag(args, ['--task'], POOLING_TASKS);
  return pools || hasFlag(args, ['--convert'], ['embed', 'classify']) ? ['embedding', 'rerank'] : WORKLOADS;
}

export const VLLM_WORKLOAD_FIXES: Offers = {
  completion: 'serve a model that generates, without --runner pooling in provisioning.flags',
  embedding: 'serve a model made for it, with --runner pooling in provisioning.flags',
  rerank: 'serve a model made for it, with --runner pooling in provisioning.flags',
};
