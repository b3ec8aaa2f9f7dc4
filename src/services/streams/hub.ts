/**
 * Where readers find a task's stream: in memory while this node runs the task, in Postgres before, after and when
 * another node runs it. A reader moves between the two without losing its place.
 */
import { notFound, RefusalError } from '../../core/errors.js';
import { isTerminalEvent, type StreamEvent } from '../../core/frame.js';
import { isTerminal } from '../../core/task.js';
import { Reconciler } from '../../runtime/reconciler.js';
import { Turns } from '../../runtime/turns.js';
import type { Database } from '../../store/database.js';
import { getTask, logHeads, readLog } from '../../store/tasks.js';
import type { ReaderPresence } from '../readers/presence.js';
import { type Cursor, type StreamLog, type Wake, wakeAll } from './log.js';
import { eventsPast } from './stored.js';

/** How often tasks that run elsewhere are looked at, all in one query. */
const TAIL_EVERY_MS = 250;
const PAGE_CHUNKS = 128;
const MAX_FRESH = 4096;
/** Of those that read the same task; each costs some 20 µs, so a turn of the event loop stays near a millisecond. */
const READERS_PER_TURN = 32;

interface Followed {
  readers: number;
  /** Rises when there may be something new; a reader that saw an older one does not wait. */
  version: number;
  head: string;
  readonly wake: Set<Wake>;
}

export interface StreamHubDeps {
  readonly db: Database;
  readonly presence: ReaderPresence;
  /** Something of a stream was written that readers elsewhere may wait for. */
  readonly onChange: () => void;
  readonly onError: (name: string, error: unknown) => void;
}

export class StreamHub {
  readonly #db: Database;
  readonly #live = new Map<string, StreamLog>();
  readonly #followed = new Map<string, Followed>();
  /**
   * Tasks just admitted here, of which nothing can be stored yet: their readers need not ask the database. And whether they
   * end with their readers.
   */
  readonly #fresh = new Map<string, boolean>();
  readonly #presence: ReaderPresence;
  readonly #onChange: () => void;
  readonly #tail: Reconciler;
  readonly #readers = new Set<TaskReader>();
  /** At most one call of each reader waits. */
  readonly turns = new Turns(READERS_PER_TURN);

  constructor(deps: StreamHubDeps) {
    const { db, presence, onError, onChange } = deps;
    this.#db = db;
    this.#presence = presence;
    this.#onChange = onChange;
    this.#tail = new Reconciler({
      name: 'stream tail',
      intervalMs: TAIL_EVERY_MS,
      run: () => this.#pollTails(),
      onError,
    });
  }

  start(): void {
    this.#tail.start();
  }

  /** Ends every reader; each can come back elsewhere with the index it has. */
  async stop(): Promise<void> {
    for (const reader of [...this.#readers]) reader.close();
    await this.#tail.stop();
  }

  get readerCount(): number {
    return this.#readers.size;
  }

  /** Tasks that have readers here. */
  readTasks(): readonly string[] {
    return [...this.#followed.keys()];
  }

  /** An abandoned log is nobody's, even while its run has not let go of it yet. */
  live(taskId: string): StreamLog | undefined {
    const log = this.#live.get(taskId);
    return log?.state === 'abandoned' ? undefined : log;
  }

  /** A task was admitted on this node. Should it be claimed elsewhere, the tail poll finds out. */
  announce(taskId: string, endsWithReaders: boolean): void {
    if (this.#live.has(taskId)) return;
    const [oldest] = this.#fresh.keys();
    if (this.#fresh.size >= MAX_FRESH && oldest !== undefined) this.#fresh.delete(oldest);
    this.#fresh.set(taskId, endsWithReaders);
  }

  isFresh(taskId: string): boolean {
    return this.#fresh.has(taskId);
  }

  attach(log: StreamLog): void {
    this.#live.set(log.taskId, log);
    this.changed(log.taskId);
  }

  detach(log: StreamLog): void {
    if (this.#live.get(log.taskId) === log) this.#live.delete(log.taskId);
    this.changed(log.taskId);
  }

  /** Something happened to a task that has no live log here; its readers look again. */
  changed(taskId: string): void {
    this.#fresh.delete(taskId);
    this.#onChange();
    const followed = this.#followed.get(taskId);
    if (followed === undefined) return;
    followed.version += 1;
    wakeAll(followed.wake);
  }

  /**
   * Opens a reader at the event after `after` (-1: from the beginning).
   * @param graceMs the task is to end when its last reader has been gone for so long; null: as its caller said.
   * @throws RefusalError not_found when there is no such task.
   */
  async open(taskId: string, after: number, graceMs: number | null = null): Promise<TaskReader> {
    const id = taskId.toLowerCase();
    const endsWithReaders = await this.#doesEndWithReaders(id);
    const reader = new TaskReader(this, this.#db, id, after);
    this.#readers.add(reader);
    try {
      await this.#presence.came(id, endsWithReaders);
      if (graceMs !== null) await this.#endWithReaders(id, graceMs);
      return reader;
    } catch (error) {
      reader.close();
      throw error;
    }
  }

  async #doesEndWithReaders(id: string): Promise<boolean> {
    const fresh = this.#fresh.get(id);
    if (fresh !== undefined) return fresh;
    const log = this.#live.get(id);
    if (log !== undefined) return log.endsWithReaders;
    const task = await getTask(this.#db, id);
    if (task === null) throw new RefusalError(notFound('task_id', `task ${id} not found`));
    return task.disconnectGraceMs !== null && !isTerminal(task.status);
  }

  async #endWithReaders(id: string, graceMs: number): Promise<void> {
    await this.#presence.endWithReaders(id, graceMs);
    // For readers that come later.
    if (this.#fresh.has(id)) this.#fresh.set(id, true);
    const log = this.#live.get(id);
    if (log !== undefined) log.endsWithReaders = true;
  }

  follow(taskId: string): Followed {
    let followed = this.#followed.get(taskId);
    if (followed === undefined) {
      followed = { readers: 0, version: 0, head: '', wake: new Set() };
      this.#followed.set(taskId, followed);
    }
    followed.readers += 1;
    return followed;
  }

  unfollow(reader: TaskReader, taskId: string, followed: Followed): void {
    this.#readers.delete(reader);
    this.#presence.went(taskId);
    followed.readers -= 1;
    if (followed.readers === 0) this.#followed.delete(taskId);
  }

  /** Logs that grow elsewhere have grown, as far as is known. */
  wakeTails(): void {
    this.#tail.wake();
  }

  async #pollTails(): Promise<void> {
    const waiting = [...this.#followed].filter(([id, entry]) => entry.wake.size > 0 && this.live(id) === undefined);
    if (waiting.length === 0) return;
    const ids = waiting.map(([id]) => id);
    const gone = new Set(ids);
    for (const row of await logHeads(this.#db, ids)) {
      gone.delete(row.id);
      const entry = this.#followed.get(row.id);
      const head = `${row.chunks}${isTerminal(row.status) ? ' ended' : ''}`;
      if (entry === undefined || entry.head === head) continue;
      entry.head = head;
      this.changed(row.id);
    }
    // Retention took them: nothing comes any more.
    for (const reader of [...this.#readers]) if (gone.has(reader.taskId)) reader.close();
  }
}

/** One reader of one task. Not shared: its calls must not overlap. Always `close()` it. */
export class TaskReader {
  readonly #hub: StreamHub;
  readonly #db: Database;
  readonly taskId: string;
  readonly #followed: Followed;
  readonly #cursor: Cursor;
  #afterOrd = -1;
  #log: StreamLog | null = null;
  #state: 'reading' | 'ended' | 'closed' = 'reading';
  #wake: Wake | null = null;

  constructor(hub: StreamHub, db: Database, taskId: string, after: number) {
    this.#hub = hub;
    this.#db = db;
    this.taskId = taskId;
    this.#cursor = { seq: after, seamAttempt: 0, marksPassed: null };
    this.#followed = hub.follow(taskId);
  }

  /** Everything new since the last call, waiting for at least one event; null after the terminal event or a close. */
  async next(): Promise<readonly StreamEvent[] | null> {
    while (this.#state === 'reading') {
      const version = this.#followed.version;
      this.#log ??= this.#hub.live(this.taskId) ?? null;
      const events = this.#log === null ? await this.#readStored() : this.#readLive(this.#log);
      if (events.length > 0) {
        const last = events[events.length - 1];
        if (last !== undefined && isTerminalEvent(last)) this.#finish('ended');
        return events;
      }
      if (this.#log?.state === 'abandoned') {
        this.#log = null;
        this.#afterOrd = -1;
        this.#cursor.marksPassed = null;
      } else {
        await this.#wait(version);
      }
    }
    return null;
  }

  /** Ends the reader and wakes a parked `next()`. Safe at any time, any number of times. */
  close(): void {
    if (this.#state === 'reading') this.#finish('closed');
    this.#wake?.(true);
  }

  #finish(state: 'ended' | 'closed'): void {
    this.#state = state;
    this.#hub.unfollow(this, this.taskId, this.#followed);
  }

  #readLive(log: StreamLog): StreamEvent[] {
    return log.state === 'abandoned' ? [] : log.read(this.#cursor);
  }

  async #readStored(): Promise<StreamEvent[]> {
    if (this.#hub.isFresh(this.taskId)) return [];
    const page = { afterOrd: this.#afterOrd, afterSeq: this.#cursor.seq, limit: PAGE_CHUNKS };
    const chunks = await readLog(this.#db, this.taskId, page);
    const last = chunks[chunks.length - 1];
    if (last === undefined) return [];
    this.#afterOrd = last.ord;
    const events = eventsPast(chunks, this.#cursor.seq).filter(
      (event) => event.kind !== 'seam' || event.attempt > this.#cursor.seamAttempt,
    );
    for (const event of events) {
      this.#cursor.seq = Math.max(this.#cursor.seq, event.seq);
      if (event.kind === 'seam') this.#cursor.seamAttempt = event.attempt;
    }
    return events;
  }

  /** Parks until the live log grows, or until something happens to a task that has none here. */
  #wait(version: number): Promise<void> {
    if (this.#state !== 'reading') return Promise.resolve();
    const log = this.#log;
    if (log === null && this.#followed.version !== version) return Promise.resolve();
    return new Promise((resolve) => {
      let forget = () => {};
      const wake = (isFirst: boolean) => {
        this.#wake = null;
        forget();
        if (isFirst) resolve();
        else this.#hub.turns.add(resolve);
      };
      this.#wake = wake;
      if (log !== null) {
        const cancel = log.onChange(wake);
        forget = () => void cancel();
      } else {
        this.#followed.wake.add(wake);
        forget = () => void this.#followed.wake.delete(wake);
      }
    });
  }
}
