/**
 * JSON from somebody we do not know. Its cost is bounded by its length and by what it may be made of: a text of a few
 * megabytes can otherwise become a gigabyte of small objects, and whoever walks them by recursion has no stack left.
 * Stricter than JSON.parse in one thing: a name comes once per object, since of two another program may believe the other one.
 * Pure.
 */

export interface JsonLimits {
  /** Objects and lists in each other. */
  readonly maxDepth: number;
  /** Names and values of all objects and lists. */
  readonly maxParts: number;
}

/** What one request may hold; an honest one stays far below. */
export const REQUEST_LIMITS: JsonLimits = { maxDepth: 200, maxParts: 50_000 };

export class JsonError extends Error {}

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
/** A slice this short is a copy. */
const MAX_COPIED = 12;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORDS: readonly (readonly [string, boolean | null])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
];

/**
 * @param readNumber makes a value of a number as it was written.
 * @throws JsonError when it is not JSON, or more than the limits let in.
 */
export function parseJson(text: string, limits: JsonLimits, readNumber: (text: string) => unknown = Number): unknown {
  return new JsonReader(text, limits, readNumber).whole();
}

class JsonReader {
  readonly #text: string;
  readonly #limits: JsonLimits;
  readonly #readNumber: (text: string) => unknown;
  #at = 0;
  #depth = 0;
  #parts = 0;

  constructor(text: string, limits: JsonLimits, readNumber: (text: string) => unknown) {
    this.#text = text;
    this.#limits = limits;
    this.#readNumber = readNumber;
  }

  whole(): unknown {
    const value = this.#value();
    this.#peek();
    if (this.#at < this.#text.length) throw broken();
    return value;
  }

  #value(): unknown {
    this.#count();
    switch (this.#peek()) {
      case OPEN_OBJECT:
        return this.#nested(() => this.#object());
      case OPEN_LIST:
        return this.#nested(() => this.#list());
      case QUOTE:
        return this.#string();
      default:
        return this.#scalar();
    }
  }

  #nested<T>(read: () => T): T {
    const { maxDepth } = this.#limits;
    this.#depth += 1;
    if (this.#depth > maxDepth) throw new JsonError(`is nested more than ${maxDepth} deep`);
    this.#at += 1;
    const value = read();
    this.#depth -= 1;
    return value;
  }

  #object(): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    if (this.#took(CLOSE_OBJECT)) return object;
    do {
      if (this.#peek() !== QUOTE) throw broken();
      this.#count();
      const name = this.#string();
      if (Object.hasOwn(object, name)) throw new JsonError('has an object with the same name twice');
      if (!this.#took(COLON)) throw broken();
      const value = this.#value();
      if (name !== '__proto__') object[name] = value;
      // By assignment it would become the prototype.
      else Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
    } while (this.#took(COMMA));
    if (!this.#took(CLOSE_OBJECT)) throw broken();
    return object;
  }

  #list(): unknown[] {
    const list: unknown[] = [];
    if (this.#took(CLOSE_LIST)) return list;
    do list.push(this.#value());
    while (this.#took(COMMA));
    if (!this.#took(CLOSE_LIST)) throw broken();
    return list;
  }

  #string(): string {
    const text = this.#text;
    const start = this.#at;
    let plain = true;
    let end = start + 1;
    for (; end < text.length; end += 1) {
      const code = text.charCodeAt(end);
      if (code === QUOTE) break;
      if (code < 0x20) throw broken();
      if (code !== BACKSLASH) continue;
      plain = false;
      end += 1;
    }
    if (end >= text.length) throw broken();
    this.#at = end + 1;
    if (plain && end - start <= MAX_COPIED) return text.slice(start + 1, end);
    try {
      // Knows the escapes, and makes a string of its own: a long slice would keep the whole text in memory.
      return JSON.parse(text.slice(start, end + 1)) as string;
    } catch {
      throw broken();
    }
  }

  #scalar(): unknown {
    NUMBER.lastIndex = this.#at;
    const [written] = NUMBER.exec(this.#text) ?? [];
    if (written !== undefined) {
      this.#at += written.length;
      return this.#readNumber(written);
    }
    for (const [word, value] of WORDS) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    throw broken();
  }

  #count(): void {
    const { maxParts } = this.#limits;
    this.#parts += 1;
    if (this.#parts > maxParts) throw new JsonError(`has more than ${maxParts} names and values`);
  }

  #took(code: number): boolean {
    if (this.#peek() !== code) return false;
    this.#at += 1;
    return true;
  }

  /** The next character that is no space; NaN at the end. */
  #peek(): number {
    const text = this.#text;
    let at = this.#at;
    let code = text.charCodeAt(at);
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) {
      at += 1;
      code = text.charCodeAt(at);
    }
    this.#at = at;
    return code;
  }
}

function broken(): JsonError {
  return new JsonError('is not valid JSON');
}
