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

/** Asks `check` every `everyMs` until it says true; false when the deadline or the abort came first. */
export async function pollUntil(
  check: (signal: AbortSignal) => Promise<boolean>,
  options: { readonly everyMs: number; readonly deadlineMs: number; readonly signal?: AbortSignal },
): Promise<boolean> {
  const timeout = AbortSignal.timeout(options.deadlineMs);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
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
