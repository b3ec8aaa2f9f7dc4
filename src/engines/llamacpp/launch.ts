/** How a real llama-server is started, understood and stopped. Pure. */
import { type Offers, WORKLOADS, type Workload } from '../../core/workload.js';
import {
  type DeterminismClaim,
  type EngineLaunch,
  GIVE_MORE_VRAM,
  gpuEnvironment,
  hasFlag,
  type LaunchedAs,
  type LaunchSpec,
  type LogPattern,
  NOT_LAUNCHED_BY_US,
} from '../launch.js';

/** llama-server drops its work on SIGTERM and normally ends in under a second; what is longer is a hang. */
const DRAIN_WINDOW_MS = 10_000;
const READY_DEADLINE_MS = 600_000;

/** Alone in its batch and with no cached prefix, a request gives the same text each time. */
const STRICT_ARGS = ['-nocb', '--no-cache-prompt'] as const;

/** One failure writes several of these lines; the first pattern that matches names its cause. */
const LOG_PATTERNS: readonly LogPattern[] = [
  {
    fault: 'CPU_FALLBACK',
    pattern: /failed to initialize CUDA|no usable GPU found/,
    fix: 'Check the NVIDIA driver (nvidia-smi) and that this build of llama-server has CUDA. It is not used on the CPU.',
  },
  {
    fault: 'VRAM_OOM_LOAD',
    pattern: /cudaMalloc failed: out of memory|unable to allocate CUDA\d+ buffer|failed to allocate CUDA\d+ buffer/,
    fix: GIVE_MORE_VRAM,
  },
  { fault: 'VRAM_OOM_RUNTIME', pattern: /CUDA error: out of memory/, fix: GIVE_MORE_VRAM },
  {
    fault: 'CUDA_ERROR',
    pattern: /CUDA error/,
    fix: 'Look for an Xid in the kernel log (dmesg); a GPU that repeats it needs a reset.',
  },
  {
    fault: 'PORT_TAKEN',
    pattern: /couldn't bind HTTP server socket/,
    fix: 'Another program has the port; the next start takes another one.',
  },
  {
    fault: 'MODEL_UNREADABLE',
    pattern: /failed to load model|error loading model/,
    fix: 'Check that the file is a complete GGUF model that this build of llama-server knows.',
  },
  {
    fault: 'BAD_ARGUMENTS',
    pattern: /error: (?:invalid argument|unknown argument|.*requires? )/,
    fix: 'Correct provisioning.flags of the pool.',
  },
];

export function llamaCppLaunch(launch: EngineLaunch): LaunchSpec {
  const [port = 0] = launch.ports;
  return {
    file: launch.binaryPath,
    args: [
      ...['-m', launch.model, '--alias', launch.servedName],
      ...['--host', '127.0.0.1', '--port', String(port)],
      // -c is the context of all slots together.
      ...['-c', String(launch.contextPerSlot * launch.slots), '-np', String(launch.slots)],
      ...(launch.tensorSplit === undefined ? [] : ['--tensor-split', launch.tensorSplit.join(',')]),
      ...(launch.slots === 1 ? STRICT_ARGS : []),
      ...['--metrics', '--slots', '--log-colors', 'off'],
      ...(launch.extraArgs ?? []),
    ],
    env: {
      // Options that some builds lack go by the environment: a build that does not know a name ignores it, whereas
      // an unknown flag stops it. Without this one the server silently shrinks what does not fit into GPU memory.
      LLAMA_ARG_FIT: 'off',
      ...gpuEnvironment(launch.gpuUuids),
      // Not by --api-key: every user of the machine can read another process's arguments.
      ...(launch.apiKey !== undefined && { LLAMA_API_KEY: launch.apiKey }),
      ...launch.extraEnv,
    },
    ready: { whileLoading: 'answers_503', deadlineMs: READY_DEADLINE_MS },
    logPatterns: LOG_PATTERNS,
    stop: { drainWindowMs: DRAIN_WINDOW_MS },
  };
}

/** Requests of a strict task also turn the prompt cache off; on several slots the shapes of the batch still vary. */
export function llamaCppDeterminism(launched: LaunchedAs): DeterminismClaim {
  if (launched === null) return NOT_LAUNCHED_BY_US;
  if (launched.slots > 1) {
    return { claim: 'none', because: `${launched.slots} slots share one batch, and its shape changes the arithmetic` };
  }
  return { claim: 'byte_exact', because: `one slot, ${STRICT_ARGS.join(' ')}; same build, GPU and batch size` };
}

const RANKS = { flags: ['--reranking', '--rerank'], variable: 'LLAMA_ARG_RERANKING' };
const EMBEDS = { flags: ['--embedding', '--embeddings'], variable: 'LLAMA_ARG_EMBEDDINGS' };

/**
 * By its own words a server that embeds is for nothing else, and one that ranks pools every text into a score. Where
 * somebody else started it, it is asked.
 */
export function llamaCppWorkloads(launched: LaunchedAs): readonly Workload[] {
  if (launched === null) return WORKLOADS;
  const { extraArgs = [], extraEnv = {} } = launched;
  const isOn = ({ flags, variable }: typeof RANKS) =>
    hasFlag(extraArgs, flags) || /^(?:1|true|on|enabled)$/i.test(extraEnv[variable] ?? '');
  if (isOn(RANKS)) return ['rerank'];
  return isOn(EMBEDS) ? ['embedding'] : ['completion'];
}

export const LLAMACPP_WORKLOAD_FIXES: Offers = {
  completion: 'take --embedding and --reranking out of provisioning.flags',
  embedding: 'put --embedding into provisioning.flags, and serve a model made for it',
  rerank: 'put --reranking into provisioning.flags, and serve a model made for it',
};
