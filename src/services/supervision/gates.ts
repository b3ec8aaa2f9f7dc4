/** What stands between a started engine process and Ready, in order. Each gate says what is wrong, or nothing. */
import { randomUUID } from 'node:crypto';
import { verdictOf } from '../../core/exit.js';
import type { Reason } from '../../core/pool.js';
import type { Workload } from '../../core/workload.js';
import type { EngineAdapter, EngineProps } from '../../engines/adapter.js';
import { type LogPattern, readFault } from '../../engines/launch.js';
import { OomKills } from '../../host/oomKills.js';
import { delay, within } from '../../runtime/wait.js';

const HEALTH_EVERY_MS = 25;
const MAX_LOG_LINES = 1_000;
/** What an engine says about its GPU comes first, and a verbose load writes a lot after it. */
const CPU_SCAN_BYTES = 4 * 1024 * 1024;
/** Of the machine or our control group, not of one engine: one count for all. */
const oomKills = new OomKills();

export interface EngineLog {
  readonly file: string;
  readonly patterns: readonly LogPattern[];
  /** Last lines of this process, oldest first; secrets taken out, as some engines log their own key. */
  readonly tail: (lines: number, maxBytes?: number) => Promise<readonly string[]>;
}

/** Waits until the engine reports ready; `onAnswer` hears that it has begun to answer. Null when the stop came first. */
export async function readyGate(
  adapter: EngineAdapter,
  limits: { readonly deadlineMs: number; readonly logFile: string; readonly onAnswer: () => void },
  stop: AbortSignal,
): Promise<Reason | null> {
  // What came before is not this engine's.
  oomKills.lately();
  using deadline = within(limits.deadlineMs, stop);
  const { signal } = deadline;
  for (;;) {
    const health = await adapter.health(signal).catch((error: unknown) => {
      if (signal.aborted) return null;
      throw error;
    });
    if (stop.aborted) return null;
    if (health?.live === true) limits.onAnswer();
    if (health?.ready === true) return null;
    if (signal.aborted) {
      return {
        code: 'START_TIMEOUT',
        message: `not ready after ${limits.deadlineMs} ms: ${health?.detail ?? 'no answer'}`,
        fix: `Look at ${limits.logFile}.`,
      };
    }
    await delay(HEALTH_EVERY_MS, signal);
  }
}

/** An engine that was meant for a GPU and runs on the CPU answers all the same; only its log gives it away. */
export async function cpuGate({ patterns, tail }: EngineLog): Promise<Reason | null> {
  const telltale = patterns.filter(({ fault }) => fault === 'CPU_FALLBACK');
  if (telltale.length === 0) return null;
  const found = readFault(telltale, await tail(Number.POSITIVE_INFINITY, CPU_SCAN_BYTES));
  if (found === null) return null;
  return { code: found.pattern.fault, message: `the engine runs on the CPU: ${found.line}`, fix: found.pattern.fix };
}

export function propsGate(
  props: EngineProps,
  wanted: { readonly slots: number; readonly modelId: string | null },
): Reason | null {
  if (props.slotsTotal !== null && props.slotsTotal < wanted.slots) {
    return {
      code: 'TOO_FEW_SLOTS',
      message: `the engine has ${props.slotsTotal} slots, the pool wants ${wanted.slots}`,
      fix: 'Give the engine more slots, or the pool fewer.',
    };
  }
  if (wanted.modelId !== null && props.modelId !== wanted.modelId) {
    return {
      code: 'WRONG_MODEL',
      message: `the engine serves '${props.modelId}', not '${wanted.modelId}'`,
      fix: 'Look for another engine on its port, or for a flag of the pool that names another model.',
    };
  }
  return null;
}

/** Decodes one token to its end. Throws EngineError when that fails, or the reason of the signal. */
async function decodeGate(adapter: EngineAdapter, signal: AbortSignal): Promise<void> {
  const requestId = `self-test-${randomUUID()}`;
  const request = { requestId, prompt: 'self-test', maxTokens: 1, seed: 1n, strict: true, slot: 0 };
  for await (const frames of adapter.stream(request, signal)) {
    if (frames.at(-1)?.kind === 'end') return;
  }
}

/** As little as can be asked of a workload. Throws as `decodeGate` does. */
export async function workloadGate(adapter: EngineAdapter, workload: Workload, signal: AbortSignal): Promise<void> {
  const requestId = `self-test-${randomUUID()}`;
  if (workload === 'embedding') await adapter.embed({ requestId, inputs: ['self-test'] }, signal);
  else if (workload === 'rerank') await adapter.rerank({ requestId, query: 'self', documents: ['test'] }, signal);
  else await decodeGate(adapter, signal);
}

/** Enough that an engine that goes on is still at it when the deadline has passed; half of a short context. */
const MAX_CANCEL_TEST_TOKENS = 256;
const LEAST_CONTEXT_TOKENS = 128;
const CANCEL_DEADLINE_MS = 3_000;

interface Asked {
  readonly say: (detail: string) => void;
  /** False: somebody else runs the engine, perhaps for others too: it need not promise us anything. */
  readonly ours: boolean;
}

/** Begins a longer decode, ends it after its first token, and has the engine show that it let go. */
export async function cancelGate(
  adapter: EngineAdapter,
  { say, ours, contextLength }: Asked & { readonly contextLength: number | null },
  signal: AbortSignal,
): Promise<Reason | null> {
  const requestId = `self-test-${randomUUID()}`;
  const maxTokens = Math.min(MAX_CANCEL_TEST_TOKENS, Math.floor((contextLength ?? LEAST_CONTEXT_TOKENS) / 2));
  const request = { requestId, prompt: 'self-test', maxTokens, seed: 1n, strict: true, slot: 0 };
  for await (const frames of adapter.stream(request, signal)) {
    if (frames.at(-1)?.kind === 'end') say('it ended before it could be cancelled');
    break;
  }
  using deadline = within(CANCEL_DEADLINE_MS, signal);
  const { outcome, verifiedBy } = await adapter.cancel({ requestId, slot: 0 }, deadline.signal);
  say(`${outcome}: ${verifiedBy}`);
  if (outcome !== 'unknown' || !ours) return null;
  return {
    code: 'CANCEL_IGNORED',
    message: `the engine seems to go on with a completion that was cancelled (${verifiedBy})`,
    fix: 'Use a version of the engine that stops when its client goes; a cancelled task would go on using the GPU.',
  };
}

/** Reads the engine's counters once: what they show later is not to be found missing then. */
export async function metricsGate(
  adapter: EngineAdapter,
  { say, ours }: Asked,
  signal: AbortSignal,
): Promise<Reason | null> {
  try {
    const { running, kvUsage } = await adapter.metrics(signal);
    say(
      `running ${running ?? 'not told'}, KV cache ${kvUsage === null ? 'not told' : `${Math.round(kvUsage * 100)} % used`}`,
    );
    return null;
  } catch (error) {
    if (ours || signal.aborted) throw error;
    say(`none: ${error instanceof Error ? error.message : String(error)}`);
    return null;
  }
}

interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

function howItEnded({ code, signal }: Exit): string {
  if (signal !== null) return `by ${signal}`;
  // An adopted process has another parent, and only that is told.
  return code === null ? 'in a way that is not known' : `with code ${code}`;
}

/** Why an engine process ended: what the kernel says, else what its log gives away, else how it went. */
export async function exitReason(
  exit: Exit,
  log: EngineLog,
  shownLines: number,
  // Asked at once: the log may take its time.
  oomKilled: boolean | null = oomKills.lately(),
): Promise<Reason> {
  const lines = await log.tail(MAX_LOG_LINES);
  const how = howItEnded(exit);
  const found = readFault(log.patterns, lines);
  if (verdictOf({ ...exit, oomKilled }, found?.pattern.fault ?? null) === 'HOST_OOM') {
    return {
      code: 'HOST_OOM',
      message: `the engine process ended ${how}: the kernel killed it, or a helper of it, because host memory was short`,
      fix: 'Give the host or the control group more memory, end other programs, or use a smaller model, context or fewer replicas.',
    };
  }
  if (found !== null) {
    const { fault, fix } = found.pattern;
    return { code: fault, message: `the engine process ended ${how}: ${found.line.trim()}`, fix };
  }
  const last = lines.slice(-shownLines);
  return {
    code: 'ENGINE_EXITED',
    message: `the engine process ended ${how}.${last.length === 0 ? '' : ` Last lines: ${last.join(' | ')}`}`,
    fix: `Look at ${log.file}.`,
  };
}
