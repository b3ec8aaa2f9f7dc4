/**
 * Logs that grow, followed: the last lines, then each new one. Everybody who follows a file shares one reader of it,
 * which looks every 100 ms and ends with the last of them.
 */
import { delay } from '../runtime/wait.js';
import { LogCursor } from './logCursor.js';
import { BoundedQueue, LineSplitter, lineText, type RawLine } from './logLines.js';

export const MAX_LAST_LINES = 1_000;
export const MAX_FOLLOWERS = 32;
const POLL_MS = 100;
/** A line whose end does not come is shown after so many looks without news: a program may die within one. */
const QUIET_POLLS = 10;
const HISTORY_BYTES = 1024 * 1024;
const WAITING_LINES = 2_048;
const WAITING_BYTES = 2 * 1024 * 1024;
const BATCH_LINES = 64;
/** What a line costs beside its bytes, about. */
const LINE_OVERHEAD_BYTES = 128;

export interface LogLine {
  /** Its place, from 1; dropped lines count. null: a note of ours. */
  readonly number: number | null;
  /** When it was read; null for a line that was there before. */
  readonly atMs: number | null;
  readonly text: string;
}

export interface LogReader {
  /** At least one line; null after close. Rejects when the file cannot be read. Calls must not overlap. */
  next(): Promise<readonly LogLine[] | null>;
  close(): void;
}

export interface LogReadersOptions {
  /** Takes secrets out of a line. */
  readonly mask: (text: string) => string;
  readonly nowMs: () => number;
}

/** The last lines of a log as it is now, at most `last`, an unfinished one included. A missing file has none. */
export async function readLastLines(
  file: string,
  last: number,
  mask: (text: string) => string,
): Promise<readonly LogLine[]> {
  const lines: RawLine[] = [];
  const splitter = new LineSplitter((line) => lines.push(line));
  const sink = { onBytes: () => {}, onBreak: () => {} };
  const cursor = new LogCursor(file, sink, new AbortController().signal);
  try {
    splitter.push(await cursor.begin(last));
  } finally {
    await cursor.close();
  }
  splitter.flush();
  const newest = last > 0 ? lines.slice(-last) : [];
  return newest.map((line, index) => ({ number: index + 1, atMs: null, text: lineText(line, mask) }));
}

/** One reader per followed file. */
export class LogReaders {
  readonly #options: LogReadersOptions;
  readonly #open = new Map<string, SharedReader>();
  readonly #ending = new Set<Promise<void>>();

  constructor(options: LogReadersOptions) {
    this.#options = options;
  }

  /** The last `last` lines, then what comes. @returns null when `MAX_FOLLOWERS` follow the file already. */
  follow(file: string, last: number): LogReader | null {
    const reader = this.#open.get(file) ?? this.#start(file);
    return reader.add(last);
  }

  /** Ends every reader; resolves when nothing is open any more. */
  async stop(): Promise<void> {
    for (const reader of [...this.#open.values()]) reader.stop();
    await Promise.all(this.#ending);
  }

  #start(file: string): SharedReader {
    const reader: SharedReader = new SharedReader(file, this.#options, () => {
      if (this.#open.get(file) === reader) this.#open.delete(file);
    });
    this.#open.set(file, reader);
    this.#ending.add(reader.ended);
    void reader.ended.then(() => this.#ending.delete(reader.ended));
    return reader;
  }
}

/** A line that waits to be read. Its text is made once for all who take it. */
class WaitingLine {
  readonly seq: number;
  readonly atMs: number | null;
  readonly sizeBytes: number;
  readonly #raw: RawLine;
  #text: string | null = null;

  constructor(raw: RawLine, seq: number, atMs: number | null) {
    this.#raw = raw;
    this.seq = seq;
    this.atMs = atMs;
    this.sizeBytes = raw.bytes.length + LINE_OVERHEAD_BYTES;
  }

  text(mask: (text: string) => string): string {
    this.#text ??= lineText(this.#raw, mask);
    return this.#text;
  }
}

/** Keeps the newest lines, so that one who joins gets them and the live part from one place, with nothing in between. */
class SharedReader {
  readonly ended: Promise<void>;
  readonly #options: LogReadersOptions;
  readonly #onIdle: () => void;
  readonly #abort = new AbortController();
  readonly #followers = new Set<Follower>();
  readonly #history = new BoundedQueue<WaitingLine>(MAX_LAST_LINES, HISTORY_BYTES);
  readonly #splitter = new LineSplitter((line) => this.#deliver(line));
  readonly #cursor: LogCursor;
  #begun = false;
  #seq = 0;
  #quietPolls = 0;

  constructor(file: string, options: LogReadersOptions, onIdle: () => void) {
    this.#options = options;
    this.#onIdle = onIdle;
    const sink = { onBytes: (chunk: Buffer) => this.#onBytes(chunk), onBreak: () => this.#splitter.flush() };
    this.#cursor = new LogCursor(file, sink, this.#abort.signal);
    this.ended = this.#run();
  }

  add(last: number): LogReader | null {
    if (this.#followers.size >= MAX_FOLLOWERS) return null;
    const follower = new Follower(last, this.#options.mask, () => this.#remove(follower));
    this.#followers.add(follower);
    if (this.#begun) this.#replay(follower);
    return follower;
  }

  stop(): void {
    for (const follower of [...this.#followers]) follower.close();
    this.#end();
  }

  #remove(follower: Follower): void {
    this.#followers.delete(follower);
    if (this.#followers.size === 0) this.#end();
  }

  /** Nobody joins it after this: whoever follows the file next starts another. */
  #end(): void {
    this.#onIdle();
    this.#abort.abort();
  }

  async #run(): Promise<void> {
    try {
      this.#splitter.push(await this.#cursor.begin(MAX_LAST_LINES));
      this.#begun = true;
      for (const follower of this.#followers) this.#replay(follower);
      while (!this.#abort.signal.aborted) {
        await this.#cursor.advance();
        this.#showUnfinished();
        await delay(POLL_MS, this.#abort.signal);
      }
    } catch (error) {
      this.#end();
      for (const follower of [...this.#followers]) follower.fail(error);
    } finally {
      // A failure to close changes nothing for anybody.
      await this.#cursor.close().catch(() => {});
    }
  }

  #replay(follower: Follower): void {
    for (const line of this.#history.newest(follower.last)) follower.push(line);
  }

  #onBytes(chunk: Buffer): void {
    this.#quietPolls = 0;
    this.#splitter.push(chunk);
  }

  #showUnfinished(): void {
    this.#quietPolls += 1;
    if (this.#quietPolls <= QUIET_POLLS) return;
    this.#quietPolls = 0;
    this.#splitter.flush();
  }

  #deliver(raw: RawLine): void {
    this.#seq += 1;
    const line = new WaitingLine(raw, this.#seq, this.#begun ? this.#options.nowMs() : null);
    this.#history.push(line);
    if (!this.#begun) return;
    for (const follower of this.#followers) follower.push(line);
  }
}

/** One who follows. What it does not take in time is dropped, the oldest first, and counted. */
class Follower implements LogReader {
  readonly last: number;
  readonly #mask: (text: string) => string;
  readonly #leave: () => void;
  readonly #waiting = new BoundedQueue<WaitingLine>(WAITING_LINES, WAITING_BYTES);
  #before: number | null = null;
  #dropped = 0;
  #closed = false;
  #failure: { readonly cause: unknown } | null = null;
  #wake: (() => void) | null = null;

  constructor(last: number, mask: (text: string) => string, leave: () => void) {
    this.last = last;
    this.#mask = mask;
    this.#leave = leave;
  }

  push(line: WaitingLine): void {
    this.#before ??= line.seq - 1;
    this.#dropped += this.#waiting.push(line);
    this.#wake?.();
  }

  fail(cause: unknown): void {
    this.#failure = { cause };
    this.#wake?.();
  }

  async next(): Promise<readonly LogLine[] | null> {
    while (!this.#closed) {
      if (this.#waiting.length > 0) return this.#take();
      if (this.#failure !== null) throw this.#failure.cause;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
    return null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting.take(WAITING_LINES);
    this.#leave();
    this.#wake?.();
  }

  #take(): readonly LogLine[] {
    const before = this.#before ?? 0;
    const lines: LogLine[] = this.#waiting.take(BATCH_LINES).map((line) => ({
      number: line.seq - before,
      atMs: line.atMs,
      text: line.text(this.#mask),
    }));
    if (this.#dropped > 0) lines.unshift(droppedNote(this.#dropped));
    this.#dropped = 0;
    return lines;
  }
}

function droppedNote(count: number): LogLine {
  const lines = count === 1 ? '1 line was' : `${count} lines were`;
  return { number: null, atMs: null, text: `[${lines} dropped here: they came faster than they were read]` };
}
