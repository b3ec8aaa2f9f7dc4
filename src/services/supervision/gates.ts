/** What stands between a started engine process and Ready, in order. Each gate says what is wrong, or nothing. */
import { randomUUID } from 'node:crypto';
import type { Reason } from '../../core/pool.js';
import type { EngineAdapter, EngineProps } from '../../engines/adapter.js';
import { type LogPattern, readFault } from '../../engines/launch.js';
import { delay, within } from '../../runtime/wait.js';

const HEALTH_EVERY_MS = 25;
const MAX_LOG_LINES = 1_000;
/** What an engine says about its GPU comes first, and a verbose load writes a lot after it. */
const CPU_SCAN_BYTES = 4 * 1024 * 1024;

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
export async function decodeGate(adapter: EngineAdapter, signal: AbortSignal): Promise<void> {
  const requestId = `self-test-${randomUUID()}`;
  const request = { requestId, prompt: 'self-test', maxTokens: 1, seed: 1n, strict: true, slot: 0 };
  for await (const frames of adapter.stream(request, signal)) {
    if (frames.at(-1)?.kind === 'end') return;
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

/** Why an engine process ended: what its log gives away, else how it went. */
export async function exitReason(exit: Exit, log: EngineLog, shownLines: number): Promise<Reason> {
  const lines = await log.tail(MAX_LOG_LINES);
  const how = howItEnded(exit);
  const found = readFault(log.patterns, lines);
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
