/** What a test has started ends with the test file at the latest: a test that times out never cleans up after itself. */
import { afterAll } from 'vitest';

interface Living {
  /** Ends it, and waits for that; rejects rather than wait for ever. */
  readonly end: () => Promise<void>;
  /** Ends it without waiting, when this process goes before the end of the file. */
  readonly kill: () => void;
}

const living = new Set<Living>();

// Registered first in a file that imports this, so run last. What came last may need what came before it.
afterAll(async () => {
  const failures: unknown[] = [];
  for (const one of [...living].reverse()) {
    await one.end().catch((error: unknown) => failures.push(error));
    living.delete(one);
  }
  if (failures.length > 0) throw new AggregateError(failures, 'what tests left behind did not end');
});

const killAll = (): void => {
  for (const { kill } of living) kill();
};
process.once('exit', killAll);
// By default a signal ends a process without `exit`; a runner is ended by one, as is everything by Ctrl-C.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    killAll();
    process.kill(process.pid, signal); // now as by default
  });
}

/** Returns what a caller tells that it has ended the thing by itself. */
export function endsWithFile(one: Living): () => void {
  living.add(one);
  return () => void living.delete(one);
}

/** The same, but rejects after `ms` with what `missing` says then. */
export async function inTime<T>(promise: Promise<T>, ms: number, missing: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(missing())), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
