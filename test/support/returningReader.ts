/** Clients that do not give up: a reader that comes back where it was cut off, a submission sent until it is taken. */
import { delay } from '../../src/runtime/wait.js';
import { post, readStream, type SseFrame } from './rest.js';

const AGAIN_MS = 50;

export class ReturningReader {
  readonly frames: SseFrame[] = [];
  readonly taskId: string;
  /** How often it was cut off after it had got something, and came back. */
  returns = 0;

  constructor(taskId: string) {
    this.taskId = taskId;
  }

  get ended(): boolean {
    const last = this.frames.at(-1)?.event;
    return last === 'end' || last === 'error';
  }

  /** Reads to the end, coming back with its index whenever it is cut off. Rejects when that takes longer, or is aborted. */
  async readToEnd(url: () => string, patienceMs: number, signal?: AbortSignal): Promise<void> {
    const deadline = performance.now() + patienceMs;
    const collect = (frame: SseFrame) => {
      this.frames.push(frame);
      return false;
    };
    while (performance.now() < deadline && signal?.aborted !== true) {
      const seen = this.frames.length;
      const last = this.frames.findLast((frame) => frame.id !== null)?.id;
      const after = last == null ? {} : { after: Number(last) };
      await readStream(url(), this.taskId, { ...after, until: collect }).catch(() => {});
      if (this.ended) return;
      if (this.frames.length > seen) this.returns += 1;
      await delay(AGAIN_MS);
    }
    throw new Error(`task ${this.taskId} did not end: ${JSON.stringify(this.frames.at(-1))}`);
  }
}

/**
 * Sends a task until it is acknowledged.
 * @param onRefusal told of every other answer, null where there was none.
 * @returns false when it was not in time.
 */
export async function submitUntilAcknowledged(
  url: () => string,
  body: unknown,
  patienceMs: number,
  onRefusal: (answer: Response | null) => void = () => {},
): Promise<boolean> {
  const deadline = performance.now() + patienceMs;
  while (performance.now() < deadline) {
    const answer = await post(url(), '/v1/tasks', body).catch(() => null);
    await answer?.arrayBuffer().catch(() => null);
    if (answer?.status === 202) return true;
    onRefusal(answer);
    await delay(AGAIN_MS);
  }
  return false;
}
