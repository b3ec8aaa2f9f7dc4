/**
 * `node dist/host/gpu/nvmlHelper.js INTERVAL_MS`, forked by nvmlClient: polls NVML and waits for XIDs, and tells both by
 * IPC. It stays free to notice that its parent is gone, since calls into the driver run on another thread.
 */
import { messageOf } from '../startupError.js';
import type { Nvml } from './nvml.js';
import type { NvmlMessage } from './nvmlMessages.js';

const DEFAULT_LIBRARY = 'libnvidia-ml.so.1';
/** After an error of the wait, so that one which fails at once does not spin. */
const RETRY_WAIT_MS = 1000;

/** Resolves when it is on its way; never rejects. */
function tell(message: NvmlMessage): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected || process.send === undefined) return resolve();
    process.send(message, undefined, undefined, () => resolve());
  });
}

async function load(): Promise<Nvml | null> {
  const path = process.env.LLAMA_ORCH_NVML_LIBRARY ?? DEFAULT_LIBRARY;
  try {
    // Imported late: koffi has no binary for some platforms, which is a reason to tell, not to crash.
    const { Nvml } = await import('./nvml.js');
    return new Nvml(path);
  } catch (error) {
    const reason = `the library ${path} cannot be loaded: ${messageOf(error)}`;
    await tell({ type: 'unavailable', reason: reason.slice(0, 500) });
    return null;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits for XIDs until the next poll is due. */
async function listen(nvml: Nvml, untilMs: number): Promise<void> {
  for (let restMs = untilMs - performance.now(); restMs > 0; restMs = untilMs - performance.now()) {
    if (!nvml.watchesXids) {
      await sleep(restMs);
      continue;
    }
    try {
      const event = await nvml.nextXid(restMs);
      if (event !== null) await tell({ type: 'xid', ...event });
    } catch (error) {
      await tell({ type: 'xids_unavailable', reason: messageOf(error) });
      await sleep(Math.min(restMs, RETRY_WAIT_MS));
    }
  }
}

/** Returns when going on makes no sense: without the library, or in need of a new process. */
async function main(intervalMs: number): Promise<void> {
  const nvml = await load();
  if (nvml === null) return;
  let polls = 0;
  while (process.connected) {
    const dueAtMs = performance.now() + intervalMs;
    const poll = polls === 0 ? await nvml.open() : await nvml.poll();
    polls += 1;
    await tell({ type: 'poll', poll });
    // NVML does not recover from this within a process.
    if (!poll.ok) return;
    if (polls === 1) {
      const refusal = await nvml.watchXids();
      if (refusal !== null) await tell({ type: 'xids_unavailable', reason: refusal });
    }
    await listen(nvml, dueAtMs);
  }
}

// Not process.exit: it would wait for a thread that hangs in the driver.
process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
const wantedMs = Number(process.argv[2]);
await main(Number.isFinite(wantedMs) && wantedMs >= 10 ? wantedMs : 2000);
process.exit();
