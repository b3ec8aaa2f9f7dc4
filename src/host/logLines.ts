/** Lines out of the bytes that another program writes into its log: bounded each, bounded together, safe to show. */

/** What is kept of one line. */
export const MAX_LINE_BYTES = 8 * 1024;
const NEWLINE = 0x0a;

/** A line as it was cut. Its text is made when somebody takes it: most lines of a noisy log are never looked at. */
export interface RawLine {
  readonly bytes: Buffer;
  /** How much of it was not kept, bytes. */
  readonly leftOutBytes: number;
}

/** Cuts chunks into lines. Holds at most `MAX_LINE_BYTES` of the line whose end has not come yet. */
export class LineSplitter {
  readonly #onLine: (line: RawLine) => void;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #leftOutBytes = 0;

  constructor(onLine: (line: RawLine) => void) {
    this.#onLine = onLine;
  }

  /** Whether a line has begun that has not ended. */
  get isWithinLine(): boolean {
    return this.#keptBytes + this.#leftOutBytes > 0;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      this.#keep(chunk.subarray(start, end));
      this.#emit();
      start = end + 1;
    }
    this.#keep(chunk.subarray(start));
  }

  /** Ends the line that has begun, if one has. */
  flush(): void {
    if (this.isWithinLine) this.#emit();
  }

  #keep(part: Buffer): void {
    const room = Math.min(part.length, MAX_LINE_BYTES - this.#keptBytes);
    // Copied: the caller reads the next chunk into the same memory.
    if (room > 0) this.#kept.push(Buffer.from(part.subarray(0, room)));
    this.#keptBytes += room;
    this.#leftOutBytes += part.length - room;
  }

  #emit(): void {
    const line = { bytes: Buffer.concat(this.#kept, this.#keptBytes), leftOutBytes: this.#leftOutBytes };
    this.#kept = [];
    this.#keptBytes = 0;
    this.#leftOutBytes = 0;
    this.#onLine(line);
  }
}

/** Where the last `lines` whole lines begin; an unfinished one may follow them. */
export function lastLinesStart(bytes: Buffer, lines: number): number {
  let from = bytes.length;
  for (let count = 0; from > 0; count += 1) {
    const newline = bytes.lastIndexOf(NEWLINE, from - 1);
    if (newline < 0) return 0;
    if (count === lines) return newline + 1;
    from = newline;
  }
  return 0;
}

/** The bytes without the line that began before them. */
export function withoutFirstLine(bytes: Buffer): Buffer {
  return bytes.subarray(bytes.indexOf(NEWLINE) + 1);
}

const terminalEscapes =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this removes
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|\u001b[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[ -/]+[0-~]/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this removes
const controlCharacters = /[\u0000-\u001f\u007f-\u009f]+/g;

/** What a terminal and a dashboard may show: no escapes, a space for control characters. */
export function showable(text: string): string {
  return text.replace(terminalEscapes, '').replace(controlCharacters, ' ').trimEnd();
}

/**
 * The line as text that a terminal and a dashboard may show: no escapes, a space for control characters, cut with a
 * mark that says how much is missing.
 * @param mask takes secrets out; given what is shown, before the mark is added.
 */
export function lineText(line: RawLine, mask: (text: string) => string): string {
  const clean = showable(decode(line.bytes));
  // A byte that is no UTF-8 becomes three, so what was short enough may not be any more.
  const utf8 = Buffer.from(clean);
  const overBytes = Math.max(0, utf8.length - MAX_LINE_BYTES);
  const text = mask(overBytes === 0 ? clean : decode(utf8.subarray(0, MAX_LINE_BYTES)));
  const cutBytes = line.leftOutBytes + overBytes;
  return cutBytes === 0 ? text : `${text} [${cutBytes} bytes cut]`;
}

/** A character that was cut in two at the end is left out. */
function decode(bytes: Buffer): string {
  return new TextDecoder().decode(bytes, { stream: true });
}

/** The newest items within both bounds; older ones make room. */
export class BoundedQueue<Item extends { readonly sizeBytes: number }> {
  readonly #maxItems: number;
  readonly #maxBytes: number;
  #items: Item[] = [];
  #bytes = 0;

  constructor(maxItems: number, maxBytes: number) {
    this.#maxItems = maxItems;
    this.#maxBytes = maxBytes;
  }

  get length(): number {
    return this.#items.length;
  }

  /** @returns how many items went to make room. */
  push(item: Item): number {
    this.#items.push(item);
    this.#bytes += item.sizeBytes;
    let dropped = 0;
    while (this.#items.length > this.#maxItems || (this.#bytes > this.#maxBytes && this.#items.length > 1)) {
      this.#bytes -= this.#items.shift()?.sizeBytes ?? 0;
      dropped += 1;
    }
    return dropped;
  }

  /** Takes out the oldest, at most `count`. */
  take(count: number): readonly Item[] {
    const taken = this.#items.splice(0, count);
    for (const item of taken) this.#bytes -= item.sizeBytes;
    return taken;
  }

  newest(count: number): readonly Item[] {
    return count === 0 ? [] : this.#items.slice(-count);
  }
}
