/** How an engine's process goes when its GPU or its code fails at run time. */

export interface Death {
  readonly lines: readonly string[];
  /** The error that every request under way is told first; null when the process just goes. */
  readonly toldError: string | null;
  readonly end: { readonly signal: NodeJS.Signals } | { readonly exitCode: number } | 'serves on';
}

export interface Deaths {
  readonly crash: Death;
  readonly cudaError: Death;
  readonly runtimeOom: Death;
}

/** Ends every request under way; the message is what the client is told. */
export class EngineFailed extends Error {}

/** Does not return when the process ends. */
export async function endProcess(end: Death['end']): Promise<void> {
  if (end === 'serves on') return;
  if ('exitCode' in end) process.exit(end.exitCode);
  process.kill(process.pid, end.signal);
  await new Promise(() => {}); // the signal takes effect before anything else can happen
}
