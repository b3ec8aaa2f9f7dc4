/** How an engine process is started, recognised as ready, understood when it goes, and stopped: data, no effects. */

/** What a dialect is told to launch. */
export interface EngineLaunch {
  readonly binaryPath: string;
  /** A file or folder, or a name the engine itself resolves. */
  readonly model: string;
  /** The name under which the engine shall serve it. */
  readonly servedName: string;
  /** As many as the dialect's `portCount`; the first is the one that completions go to. */
  readonly ports: readonly number[];
  /** Context of one slot, tokens. */
  readonly contextPerSlot: number;
  readonly slots: number;
  /** GPUs the process may see, by NVML UUID; empty means none at all, never "all of them". */
  readonly gpuUuids: readonly string[];
  /** The same GPUs by their place on the bus, for engines that cannot read UUIDs. */
  readonly gpuIndices: readonly number[];
  /** Shares of the GPUs, one per GPU. */
  readonly tensorSplit?: readonly number[];
  readonly apiKey?: string;
  /** Policy lets it fetch what it does not have from the model hub; else it is told to stay away from there. */
  readonly mayReachHub?: boolean;
  readonly extraArgs?: readonly string[];
  readonly extraEnv?: Readonly<Record<string, string>>;
}

export interface LaunchSpec {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly ready: {
    /** What its port does until the model is loaded. */
    readonly whileLoading: 'answers_503' | 'refuses';
    /** Longest time from start to ready, ms. */
    readonly deadlineMs: number;
  };
  /** What its log lines give away, most telling first. */
  readonly logPatterns: readonly LogPattern[];
  /** Connections of ours are closed before: Triton waits for them. */
  readonly stop: {
    /** After SIGTERM, how long the engine may take before its process group is killed, ms. */
    readonly drainWindowMs: number;
  };
}

/** What a log line says has happened to the engine. */
export type EngineFault =
  | 'VRAM_OOM_LOAD'
  | 'VRAM_OOM_RUNTIME'
  | 'KV_OOM'
  | 'CUDA_ERROR'
  | 'CPU_FALLBACK'
  | 'NO_GPU'
  | 'MODEL_UNREADABLE'
  | 'PORT_TAKEN'
  | 'BAD_ARGUMENTS'
  | 'ENGINE_CORE_DEAD';

export interface LogPattern {
  readonly fault: EngineFault;
  readonly pattern: RegExp;
  readonly fix: string;
}

export const GIVE_MORE_VRAM = 'Use a smaller model or context, fewer slots, or a GPU with more free memory.';

/** The first pattern that some line matches, with that line. */
export function readFault(
  patterns: readonly LogPattern[],
  lines: readonly string[],
): { readonly pattern: LogPattern; readonly line: string } | null {
  for (const pattern of patterns) {
    const line = lines.find((text) => pattern.pattern.test(text));
    if (line !== undefined) return { pattern, line };
  }
  return null;
}

/** `-1` hides all GPUs, as an empty value would, which reads like a mistake. */
export function gpuEnvironment(gpus: readonly (string | number)[]): Readonly<Record<string, string>> {
  return {
    CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
    CUDA_VISIBLE_DEVICES: gpus.length === 0 ? '-1' : gpus.join(','),
  };
}

/** By these the libraries that fetch from huggingface.co are kept to what is on this machine. */
export function hubEnvironment({
  mayReachHub = false,
}: Pick<EngineLaunch, 'mayReachHub'>): Readonly<Record<string, string>> {
  return mayReachHub ? {} : { HF_HUB_OFFLINE: '1', TRANSFORMERS_OFFLINE: '1' };
}

/** What such a library says of a model that it would have to fetch. */
export const HUB_NOT_ALLOWED: LogPattern = {
  fault: 'MODEL_UNREADABLE',
  pattern: /outgoing traffic has been disabled|offline mode is enabled|OfflineModeIsEnabled|LocalEntryNotFoundError/,
  fix: 'Stage the model, or list huggingface.co in network.allow_hosts if engines may fetch from it.',
};

/**
 * Whether the same request gives the same bytes again. Claimed only where the engine can keep it in the way it was
 * started; `because` says on what the claim rests, or what stands in its way.
 */
export interface DeterminismClaim {
  readonly claim: 'byte_exact' | 'none';
  readonly because: string;
}

/** How an engine was started, as far as a claim depends on it; null: somebody else started it. */
export type LaunchedAs = Pick<EngineLaunch, 'slots' | 'extraArgs' | 'extraEnv'> | null;

/** Whether one of these flags stands among the arguments, as `--flag`, `--flag=value` or `--flag value`. */
export function hasFlag(args: readonly string[], flags: readonly string[], values?: readonly string[]): boolean {
  return args.some((arg, at) => {
    const [flag = '', value = args[at + 1]] = arg.split('=', 2);
    return flags.includes(flag) && (values === undefined || values.includes(value ?? ''));
  });
}

export const NOT_LAUNCHED_BY_US: DeterminismClaim = {
  claim: 'none',
  because: 'somebody else started the engine: its flags are not known',
};
