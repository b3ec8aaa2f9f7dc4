/**
 * The live end of a task's event stream, on the node that runs it. One append-only log; a reader is a cursor into it, so
 * a slow reader costs nothing, and one that fell behind gets all it missed in one event.
 *
 *   open ──seal()──► sealed ──end(event)──► ended          seal: no token any more. end: durable, readers may see it.
 *     └───────abandon()─────────┴─────────► abandoned      the run goes on elsewhere, or later; readers look again.
 */
import { hash } from 'node:crypto';
import type { MarkEvent, StartedEvent, StreamEvent, TerminalEvent } from '../../core/frame.js';
import { FIRST_LINK, nextLink } from '../../core/receipt.js';
import type { LogChunk } from '../../store/tasks.js';

export interface Cursor {
  /** seq of the last event delivered; -1 before `started`. */
  seq: number;
  /** Attempt of the last seam delivered, so that a reader that comes from the stored log does not see it twice. */
  seamAttempt: number;
  /** Marks of this log already passed; null before the first read of it. */
  marksPassed: number | null;
}

/** A chunk that is still growing; nobody else sees it before it is taken. */
interface GrowingChunk extends LogChunk {
  lastSeq: number;
}

/** Told of a change, once; whether as the first of all that are told of it. */
export type Wake = (isFirst: boolean) => void;

type LogState = 'open' | 'sealed' | 'ended' | 'abandoned';

export class StreamLog {
  readonly taskId: string;
  /** Whether its task is ended when nobody reads it any more; a reader may ask for that. */
  endsWithReaders: boolean;
  readonly tokens: string[] = [];
  #state: LogState = 'open';
  #started: StartedEvent | null = null;
  #marks: MarkEvent[] = [];
  #terminal: TerminalEvent | null = null;
  #lastTokenAtMs = 0;
  #chainHash = FIRST_LINK;
  #unwritten: GrowingChunk[] = [];
  /** The texts of the last unwritten chunk when it is one of tokens, so that the next ones join it in place. */
  #growing: string[] | null = null;
  #waiters = new Set<Wake>();

  constructor(taskId: string, endsWithReaders = false) {
    this.taskId = taskId;
    this.endsWithReaders = endsWithReaders;
  }

  get state(): LogState {
    return this.#state;
  }

  get hasStarted(): boolean {
    return this.#started !== null;
  }

  /** Of all tokens so far, those of earlier attempts included. */
  get chainHash(): string {
    return this.#chainHash;
  }

  /** Takes over what an earlier attempt made durable; readers of this log then need no other source. */
  restore(events: readonly StreamEvent[]): void {
    for (const event of events) {
      if (event.kind === 'started') this.#started = event;
      else if (event.kind === 'tokens') this.#push(event.tokens);
      else if (event.kind === 'metrics' || event.kind === 'seam') this.#marks.push(event);
    }
  }

  start(event: StartedEvent): void {
    this.#started = event;
    this.#unwritten.push(chunkOf(event, 0));
    this.#wake();
  }

  mark(event: MarkEvent): void {
    if (this.#state !== 'open') return;
    this.#marks.push(event);
    this.#growing = null;
    this.#unwritten.push(chunkOf(event, event.seq));
    this.#wake();
  }

  /** @returns false when the door is closed; the tokens are then nobody's. */
  append(texts: readonly string[], atMs: number): boolean {
    if (this.#state !== 'open') return false;
    const firstSeq = this.tokens.length + 1;
    this.#push(texts);
    this.#lastTokenAtMs = atMs;
    const last = this.#unwritten[this.#unwritten.length - 1];
    if (last !== undefined && this.#growing !== null) {
      for (const text of texts) this.#growing.push(text);
      last.lastSeq = this.tokens.length;
    } else {
      this.#growing = [...texts];
      this.#unwritten.push({ kind: 'tokens', firstSeq, lastSeq: this.tokens.length, payload: this.#growing, atMs });
    }
    this.#wake();
    return true;
  }

  #push(texts: readonly string[]): void {
    for (const text of texts) {
      this.#chainHash = nextLink(sha256, this.#chainHash, this.tokens.length, text);
      this.tokens.push(text);
    }
  }

  /** Closes the door: the one caller that gets true decides how the stream ends. */
  seal(): boolean {
    if (this.#state !== 'open') return false;
    this.#state = 'sealed';
    return true;
  }

  /** The terminal event is durable: readers may have it. */
  end(event: TerminalEvent): void {
    this.#state = 'ended';
    this.#terminal = event;
    this.#wake();
  }

  abandon(): void {
    if (this.#state === 'ended') return;
    this.#state = 'abandoned';
    this.#unwritten = [];
    this.#growing = null;
    this.#wake();
  }

  /** Hands over what is not durable yet; `giveBack` returns it after a failed write. */
  takeUnwritten(): LogChunk[] {
    const chunks = this.#unwritten;
    this.#unwritten = [];
    this.#growing = null;
    return chunks;
  }

  giveBack(chunks: readonly LogChunk[]): void {
    if (this.#state !== 'abandoned') this.#unwritten.unshift(...chunks);
  }

  get hasUnwritten(): boolean {
    return this.#unwritten.length > 0;
  }

  /** Everything past the cursor, which moves on. */
  read(cursor: Cursor): StreamEvent[] {
    const events: StreamEvent[] = [];
    const fromStart = cursor.seq < 0;
    if (fromStart && this.#started !== null) {
      events.push(this.#started);
      cursor.seq = 0;
    }
    if (cursor.seq >= 0) {
      cursor.marksPassed ??= fromStart ? 0 : this.#marksBefore(cursor);
      this.#readOn(events, cursor, cursor.marksPassed);
    }
    if (this.#terminal !== null) {
      events.push(this.#terminal);
      cursor.seq = this.#terminal.seq;
    }
    return events;
  }

  /** Of the marks that stand when a reader comes in: those at its place it has seen, but for a seam. */
  #marksBefore(cursor: Cursor): number {
    const first = this.#marks.findIndex(
      (mark) => mark.seq > cursor.seq || (mark.seq === cursor.seq && mark.kind === 'seam'),
    );
    return first < 0 ? this.#marks.length : first;
  }

  /** Tokens up to the next mark, the mark, and so on to the end of the log. */
  #readOn(events: StreamEvent[], cursor: Cursor, marksPassed: number): void {
    let passed = marksPassed;
    for (;;) {
      const mark = this.#marks[passed];
      const stop = mark?.seq ?? this.tokens.length;
      if (cursor.seq < stop) {
        const tokens = this.tokens.slice(cursor.seq, stop);
        events.push({ kind: 'tokens', seq: stop, atMs: this.#lastTokenAtMs, firstIndex: cursor.seq, tokens });
        cursor.seq = stop;
      }
      if (mark === undefined) break;
      passed += 1;
      if (mark.kind === 'seam' && mark.attempt <= cursor.seamAttempt) continue;
      if (mark.kind === 'seam') cursor.seamAttempt = mark.attempt;
      // A reader may be past a seam, with tokens that were not durable yet; its place must not fall back.
      events.push({ ...mark, seq: cursor.seq });
    }
    cursor.marksPassed = passed;
  }

  /** Calls back once, at the next change; the returned function takes the call back. */
  onChange(callback: Wake): () => void {
    this.#waiters.add(callback);
    return () => this.#waiters.delete(callback);
  }

  #wake(): void {
    if (this.#waiters.size === 0) return;
    const waiters = this.#waiters;
    this.#waiters = new Set();
    wakeAll(waiters);
  }
}

export function wakeAll(waiters: ReadonlySet<Wake>): void {
  let isFirst = true;
  for (const wake of waiters) {
    wake(isFirst);
    isFirst = false;
  }
}

function sha256(text: string): string {
  return hash('sha256', text);
}

/** As `StreamLog.chainHash`, of tokens that come from elsewhere. */
export function chainOf(tokens: readonly string[]): string {
  return tokens.reduce((link, text, index) => nextLink(sha256, link, index, text), FIRST_LINK);
}

function chunkOf(event: StreamEvent, seq: number): LogChunk {
  const { kind, seq: _seq, atMs, ...payload } = event;
  return { kind, firstSeq: seq, lastSeq: seq, payload, atMs };
}

/** The stored form of a terminal event. */
export function terminalChunk(event: TerminalEvent): LogChunk {
  return chunkOf(event, event.seq);
}
