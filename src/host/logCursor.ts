/** A place in a log that another program appends to; it goes on through trimming, replacement and absence of the file. */
import { statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { lastLinesStart, withoutFirstLine } from './logLines.js';
import { errnoOf } from './startupError.js';

const CHUNK_BYTES = 64 * 1024;
/** How far back the last lines are looked for. */
const WINDOW_BYTES = 1024 * 1024;
/** Read in one step; a log that grows faster is read on in the next. */
const STEP_BYTES = 16 * 1024 * 1024;
const BEGIN_ATTEMPTS = 3;

interface Look {
  readonly inode: bigint;
  readonly sizeBytes: number;
  /** Another one: another file, or other content. */
  readonly mark: string;
}

export interface CursorSink {
  /** The chunk is only valid during the call. */
  readonly onBytes: (chunk: Buffer) => void;
  /** What comes next does not continue the line before. */
  readonly onBreak: () => void;
}

/** Its calls must not overlap. Always `close()` it. Errors other than a missing file are thrown as they come. */
export class LogCursor {
  readonly #file: string;
  readonly #aside: string;
  readonly #sink: CursorSink;
  readonly #signal: AbortSignal;
  readonly #chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  #handle: FileHandle | null = null;
  #inode = 0n;
  #offset = 0;
  #asideMark = '';

  constructor(file: string, sink: CursorSink, signal: AbortSignal) {
    this.#file = file;
    this.#aside = `${file}.1`;
    this.#sink = sink;
    this.#signal = signal;
  }

  /** Goes to the end of the log. @returns its last whole lines, from the last 1 MiB, and the unfinished one after them. */
  async begin(lines: number): Promise<Buffer> {
    for (let attempt = 1; ; attempt += 1) {
      this.#asideMark = look(this.#aside)?.mark ?? '';
      const bytes = await this.#openAtEnd(lines);
      if (attempt === BEGIN_ATTEMPTS || (look(this.#aside)?.mark ?? '') === this.#asideMark) return bytes;
      // Trimmed in between: what was read may be a part of the old and a part of the new.
      await this.close();
    }
  }

  /** Gives what has come since the last call. */
  async advance(): Promise<void> {
    // One synchronous moment: `trimLog` is synchronous too, so its two steps are seen both or not at all.
    const now = look(this.#file);
    const aside = look(this.#aside);
    if (this.#handle !== null && now !== null) await this.#keepPlace(this.#handle, now, aside);
    this.#asideMark = aside?.mark ?? '';
    if (this.#handle === null && now !== null) await this.#open();
    if (this.#handle === null) return;
    // A chunk read while the log was trimmed may be of the new one: it is read again from where it belongs.
    await this.#read(this.#handle, STEP_BYTES, () => (look(this.#aside)?.mark ?? '') === this.#asideMark);
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = null;
    await handle?.close();
  }

  async #keepPlace(handle: FileHandle, now: Look, aside: Look | null): Promise<void> {
    if (now.inode !== this.#inode) {
      // Replaced: the rest of the old one is still to be had through its descriptor.
      await this.#read(handle, Number.MAX_SAFE_INTEGER);
      await this.close();
      this.#sink.onBreak();
    } else if (aside !== null && aside.mark !== this.#asideMark && this.#isBehind(now, aside)) {
      await this.#readRestOf(this.#aside);
      this.#offset = 0;
    } else if (now.sizeBytes < this.#offset) {
      this.#sink.onBreak();
      this.#offset = 0;
    }
  }

  /** Whether the file beside it is the log as it was before it was emptied, and not just a copy that somebody made. */
  #isBehind(now: Look, aside: Look): boolean {
    return aside.sizeBytes >= this.#offset && now.sizeBytes < aside.sizeBytes;
  }

  async #open(): Promise<void> {
    this.#handle = await openOrNull(this.#file);
    this.#offset = 0;
    if (this.#handle !== null) this.#inode = (await this.#handle.stat({ bigint: true })).ino;
  }

  async #openAtEnd(lines: number): Promise<Buffer> {
    await this.#open();
    if (this.#handle === null) return Buffer.alloc(0);
    const { bytes: current, sizeBytes } = await readEnd(this.#handle, WINDOW_BYTES);
    this.#offset = sizeBytes;
    const isShort = current.length === sizeBytes && lastLinesStart(current, lines) === 0;
    if (!isShort) return lastLines(current, lines, false);
    const before = await readEndOf(this.#aside, WINDOW_BYTES - sizeBytes);
    return lastLines(Buffer.concat([before.bytes, current]), lines, before.bytes.length === before.sizeBytes);
  }

  async #readRestOf(file: string): Promise<void> {
    const handle = await openOrNull(file);
    if (handle === null) return this.#sink.onBreak();
    try {
      await this.#read(handle, Number.MAX_SAFE_INTEGER);
    } finally {
      await handle.close();
    }
  }

  async #read(handle: FileHandle, maxBytes: number, isValid: () => boolean = () => true): Promise<void> {
    for (let total = 0; total < maxBytes && !this.#signal.aborted; ) {
      const { bytesRead } = await handle.read(this.#chunk, 0, CHUNK_BYTES, this.#offset);
      if (bytesRead === 0 || !isValid()) return;
      this.#offset += bytesRead;
      total += bytesRead;
      this.#sink.onBytes(this.#chunk.subarray(0, bytesRead));
    }
  }
}

interface End {
  readonly bytes: Buffer;
  /** Of the whole file, as far as it could be read. */
  readonly sizeBytes: number;
}

function lastLines(bytes: Buffer, lines: number, isWhole: boolean): Buffer {
  const start = lastLinesStart(bytes, lines);
  return start === 0 && !isWhole ? withoutFirstLine(bytes) : bytes.subarray(start);
}

function look(file: string): Look | null {
  const stat = statSync(file, { throwIfNoEntry: false, bigint: true });
  if (stat === undefined) return null;
  return { inode: stat.ino, sizeBytes: Number(stat.size), mark: `${stat.ino} ${stat.size} ${stat.mtimeNs}` };
}

async function openOrNull(file: string): Promise<FileHandle | null> {
  try {
    return await open(file, 'r');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}

async function readEndOf(file: string, maxBytes: number): Promise<End> {
  const handle = await openOrNull(file);
  if (handle === null) return { bytes: Buffer.alloc(0), sizeBytes: 0 };
  try {
    return await readEnd(handle, maxBytes);
  } finally {
    await handle.close();
  }
}

async function readEnd(handle: FileHandle, maxBytes: number): Promise<End> {
  const { size } = await handle.stat();
  const start = Math.max(0, size - maxBytes);
  const buffer = Buffer.allocUnsafe(size - start);
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length, start + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return { bytes: buffer.subarray(0, length), sizeBytes: start + length };
}
