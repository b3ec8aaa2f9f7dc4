/**
 * Makes the live logs of a node durable, all together: one write for every task that has something new, then the next.
 * Never a write per token. A task that was not taken is fenced: its lease is somebody else's.
 */
import { delay } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { type Append, appendChunks, type LogChunk } from '../../store/tasks.js';
import type { StreamLog } from './log.js';

/** How long tokens may gather before they are written, ms; also the most a crash of this process can lose of a log. */
const FLUSH_EVERY_MS = 20;
const RETRY_AFTER_MS = 250;
const MAX_TASKS_PER_WRITE = 512;

/** A log with the lease it is written under and its place in the stored log. */
export interface Recording {
  readonly log: StreamLog;
  readonly leaseId: string;
  /** Number of the next stored chunk. */
  nextOrd: number;
  readonly onFenced: () => void;
}

export class StreamRecorder {
  readonly #db: Database;
  readonly #onError: (error: unknown) => void;
  readonly #onWritten: () => void;
  readonly #dirty = new Set<Recording>();
  #flushing: Promise<void> | null = null;
  readonly #stop = new AbortController();

  /** @param onWritten told after each write. */
  constructor(db: Database, onError: (error: unknown) => void, onWritten: () => void = () => {}) {
    this.#db = db;
    this.#onWritten = onWritten;
    this.#onError = onError;
  }

  /** The log has something new. */
  touch(recording: Recording): void {
    this.#dirty.add(recording);
    this.#flushing ??= this.#run();
  }

  /**
   * Takes a log out of the common write, for its last one: waits for a write in flight, then hands over the rest.
   * After this the caller alone writes under this lease.
   * @returns null when the log was abandoned meanwhile: the rest is gone, and an ending without it would be a wrong one.
   */
  async release(recording: Recording): Promise<Append | null> {
    this.#dirty.delete(recording);
    await this.#writing;
    if (recording.log.state === 'abandoned') return null;
    const chunks = recording.log.takeUnwritten();
    return appendOf(recording, chunks);
  }

  /** Ends the loop after a write in progress; logs must have been released before. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#flushing;
  }

  #writing: Promise<void> = Promise.resolve();

  async #run(): Promise<void> {
    while (this.#dirty.size > 0 && !this.#stop.signal.aborted) {
      await delay(FLUSH_EVERY_MS, this.#stop.signal);
      this.#writing = this.#write();
      await this.#writing;
    }
    this.#flushing = null;
  }

  async #write(): Promise<void> {
    const batch: { recording: Recording; chunks: LogChunk[] }[] = [];
    for (const recording of this.#dirty) {
      if (batch.length === MAX_TASKS_PER_WRITE) break;
      this.#dirty.delete(recording);
      if (recording.log.hasUnwritten) batch.push({ recording, chunks: recording.log.takeUnwritten() });
    }
    if (batch.length === 0) return;
    try {
      const taken = await appendChunks(
        this.#db,
        batch.map(({ recording, chunks }) => appendOf(recording, chunks)),
      );
      for (const { recording, chunks } of batch) {
        if (taken.has(recording.log.taskId)) recording.nextOrd += chunks.length;
        else recording.onFenced();
      }
      this.#onWritten();
    } catch (error) {
      this.#onError(error);
      for (const { recording, chunks } of batch) {
        recording.log.giveBack(chunks);
        this.#dirty.add(recording);
      }
      await delay(RETRY_AFTER_MS, this.#stop.signal);
    }
  }
}

function appendOf(recording: Recording, chunks: readonly LogChunk[]): Append {
  return {
    taskId: recording.log.taskId,
    leaseId: recording.leaseId,
    firstOrd: recording.nextOrd,
    chunks,
    tokensOut: recording.log.tokens.length,
  };
}
