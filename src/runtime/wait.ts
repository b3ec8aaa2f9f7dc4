/** Waits that end: by their event, by abort, or by a deadline. */

/** Resolves after `ms`, or at once when the signal is aborted; never rejects. */
export function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}

/** A signal with a deadline; give it back with `using`, or its timer and its place at the parents stay. */
export interface Deadline extends Disposable {
  readonly signal: AbortSignal;
}

/**
 * Aborts `ms` from now (null: never), or with any of its parents, with their reason. `AbortSignal.any` is no substitute:
 * it holds its sources weakly, so that an AbortSignal.timeout inside it is collected and never fires, and it leaves
 * something behind at a long-lived source with every call.
 */
export function within(ms: number | null, ...parents: readonly AbortSignal[]): Deadline {
  const controller = new AbortController();
  const onAbort = (event: Event): void => {
    if (event.target instanceof AbortSignal) controller.abort(event.target.reason);
  };
  const onTimeout = (): void => controller.abort(new DOMException('the deadline has passed', 'TimeoutError'));
  const timer = ms === null ? undefined : setTimeout(onTimeout, ms);
  for (const parent of parents) {
    if (parent.aborted) controller.abort(parent.reason);
    else parent.addEventListener('abort', onAbort, { once: true });
  }
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      for (const parent of parents) parent.removeEventListener('abort', onAbort);
    },
  };
}

/** Asks `check` every `everyMs` until it says true; false when the deadline or the abort came first. */
export async function pollUntil(
  check: (signal: AbortSignal) => Promise<boolean>,
  options: { readonly everyMs: number; readonly deadlineMs: number; readonly signal?: AbortSignal },
): Promise<boolean> {
  using deadline = within(options.deadlineMs, ...(options.signal === undefined ? [] : [options.signal]));
  const { signal } = deadline;
  while (!signal.aborted) {
    try {
      if (await check(signal)) return true;
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    await delay(options.everyMs, signal);
  }
  return false;
}
