/** Preloaded into measured processes (--expose-gc --import): answers `memory` with what is left after a full collection. */
import { setTimeout as sleep } from 'node:timers/promises';

const SETTLE_MS = 50;

process.on('message', async (message) => {
  if (message !== 'memory') return;
  // Twice: finalizers of the first collection free what the second then finds.
  globalThis.gc?.();
  await sleep(SETTLE_MS);
  globalThis.gc?.();
  process.send?.(process.memoryUsage());
});
// The channel must not keep alive a process that wants to end.
process.channel?.unref();
