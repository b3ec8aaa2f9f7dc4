/**
 * Who reads which task on this node, told to the others as far as the end of a task depends on it. Tasks that outlive their
 * readers, nearly all, cost nothing here but a number in memory.
 */
import { Reconciler } from '../../runtime/reconciler.js';
import type { Database } from '../../store/database.js';
import { beginReaders, endWithReaders, readElsewhere, writeReaders } from '../../store/readers.js';

/** How late it may be noticed that a task, read here, ends with its readers by the word of another node. */
const LOOK_EVERY_MS = 250;

/** What a row of ours says; null: none of it is known. */
type Said = boolean | null;

export interface ReaderPresenceDeps {
  readonly db: Database;
  readonly nodeId: string;
  readonly onError: (name: string, error: unknown) => void;
}

export class ReaderPresence {
  readonly #deps: ReaderPresenceDeps;
  /** Readers of each task here. Bounded by the connections. */
  readonly #counts = new Map<string, number>();
  /** Tasks that end with their readers, and are read here or were until now. */
  readonly #watched = new Map<string, Said>();
  readonly #writer: Reconciler;
  #waiting: (() => void)[] = [];
  #running = false;

  constructor(deps: ReaderPresenceDeps) {
    this.#deps = deps;
    const run = () => this.#write();
    this.#writer = new Reconciler({
      name: 'task readers',
      intervalMs: LOOK_EVERY_MS,
      run,
      onError: deps.onError,
    });
  }

  /** Before there can be readers, and after this node has said that it runs. */
  async start(): Promise<void> {
    await beginReaders(this.#deps.db, this.#deps.nodeId);
    this.#running = true;
    this.#writer.start();
  }

  /** Before the readers are sent away: that is not their going, and they are waited for at the next start. */
  async stop(): Promise<void> {
    this.#running = false;
    await this.#writer.stop();
    this.#answer(this.#waiting.splice(0));
  }

  /** Whether somebody reads it here, whatever the database knows of that by now. */
  isRead(taskId: string): boolean {
    return (this.#counts.get(taskId) ?? 0) > 0;
  }

  /**
   * A reader came. Resolves once all nodes can know, where it matters; a database that is away is not waited for, since
   * nothing ends while it is.
   */
  async came(taskId: string, endsWithReaders: boolean): Promise<void> {
    this.#counts.set(taskId, (this.#counts.get(taskId) ?? 0) + 1);
    if (endsWithReaders && !this.#watched.has(taskId)) this.#watched.set(taskId, null);
    if (this.#watched.has(taskId) && this.#watched.get(taskId) !== true) await this.#told();
  }

  went(taskId: string): void {
    const left = (this.#counts.get(taskId) ?? 0) - 1;
    if (left > 0) this.#counts.set(taskId, left);
    else this.#counts.delete(taskId);
    if (left <= 0 && this.#watched.has(taskId)) this.#writer.wake();
  }

  /** One that reads it now asks that the task ends with its readers, itself among them. */
  async endWithReaders(taskId: string, graceMs: number): Promise<void> {
    await endWithReaders(this.#deps.db, taskId, graceMs);
    this.#watched.set(taskId, null);
    await this.#told();
  }

  #told(): Promise<void> {
    if (!this.#running) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#writer.wake();
    });
  }

  /** The only writer of our rows, so that a coming and a going are never written in the wrong order. */
  async #write(): Promise<void> {
    const answered = this.#waiting.splice(0);
    try {
      await this.#learn();
      await this.#writeRows();
    } finally {
      this.#answer(answered);
    }
  }

  async #learn(): Promise<void> {
    const { db, nodeId } = this.#deps;
    const isMissing = [...this.#counts.keys()].some((id) => !this.#watched.has(id));
    if (!isMissing) return;
    for (const id of await readElsewhere(db, nodeId)) {
      if (this.#counts.has(id) && !this.#watched.has(id)) this.#watched.set(id, null);
    }
  }

  async #writeRows(): Promise<void> {
    const here: string[] = [];
    const gone: string[] = [];
    for (const [id, said] of this.#watched) {
      const isHere = this.#counts.has(id);
      if (said !== isHere) (isHere ? here : gone).push(id);
      else if (!isHere) this.#watched.delete(id);
    }
    if (here.length + gone.length === 0) return;
    // Whether a write that fails has been carried out is not known.
    for (const id of [...here, ...gone]) this.#watched.set(id, null);
    await writeReaders(this.#deps.db, this.#deps.nodeId, { here, gone });
    for (const id of here) this.#watched.set(id, true);
    for (const id of gone) this.#watched.set(id, false);
  }

  #answer(waiting: readonly (() => void)[]): void {
    for (const resolve of waiting) resolve();
  }
}
