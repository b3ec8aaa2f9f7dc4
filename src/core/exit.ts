/** What the end of an engine process means, from the three that can tell: the kernel, its log, and its exit. Pure. */

export interface ExitFacts {
  readonly code: number | null;
  readonly signal: string | null;
  /** Whether the kernel killed a process of ours for lack of host memory at that moment; null: it does not tell. */
  readonly oomKilled: boolean | null;
}

/** `log`: the fault that its log names; `exited`: nobody says more than how it went. */
export type ExitVerdict = 'HOST_OOM' | 'log' | 'exited';

/** 128 + 9: what shells and container runtimes make of a SIGKILL. */
const KILLED_CODE = 137;
/** Faults of a log that only say that a helper process is gone. */
const HELPER_GONE: ReadonlySet<string> = new Set(['ENGINE_CORE_DEAD']);

/** @param logFault what the log gives away, as a fault's name; null: nothing. */
export function verdictOf({ code, signal, oomKilled }: ExitFacts, logFault: string | null): ExitVerdict {
  const killed = signal === 'SIGKILL' || code === KILLED_CODE;
  // Only a parent is told how a process went; a kill by the kernel at that moment is then the likelier end.
  const untold = code === null && signal === null && logFault === null;
  const helperGone = logFault !== null && HELPER_GONE.has(logFault);
  if (oomKilled === true && (killed || untold || helperGone)) return 'HOST_OOM';
  return logFault === null ? 'exited' : 'log';
}
