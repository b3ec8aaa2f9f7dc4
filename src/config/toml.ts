/** TOML with the place of its keys. The library tells no places, so the lines are read a second time for them. */
import { parse, TomlError } from 'smol-toml';
import { ConfigError, failFile, type ParsedFile, type Position } from './error.js';

/** Deeper than any section of ours; the parser recurses. */
const MAX_DEPTH = 32;
/** A bare or quoted key, or several with dots between them. */
const KEY = String.raw`(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')`;
const KEYS = String.raw`${KEY}(?:[ \t]*\.[ \t]*${KEY})*`;
const HEADER = new RegExp(String.raw`^([ \t]*)\[(\[?)[ \t]*(${KEYS})[ \t]*\]`);
const PAIR = new RegExp(String.raw`^([ \t]*)(${KEYS})[ \t]*=`);
const MULTILINE_QUOTES = ['"""', "'''"];

type Segment = string | number;

function segmentsOf(keys: string): string[] {
  return [...keys.matchAll(new RegExp(KEY, 'g'))].map(([key]) => {
    if (key.startsWith("'")) return key.slice(1, -1);
    if (!key.startsWith('"')) return key;
    // Escapes that JSON lacks leave the key as it is written: then what is around it is named.
    try {
      return String(JSON.parse(key));
    } catch {
      return key;
    }
  });
}

/** Counts the elements of arrays of tables, so that a header is a path into the data. */
class Sections {
  readonly #counts = new Map<string, number>();

  resolve(keys: readonly string[], opensElement: boolean): Segment[] {
    const path: Segment[] = [];
    for (const [index, key] of keys.entries()) {
      path.push(key);
      const name = JSON.stringify(path);
      const count = this.#counts.get(name);
      if (opensElement && index === keys.length - 1) {
        this.#counts.set(name, (count ?? 0) + 1);
        path.push(count ?? 0);
      } else if (count !== undefined) path.push(count - 1);
    }
    return path;
  }
}

/** By path: where each header stands, and each key that begins a line. */
type Places = Map<string, Position>;

function note(places: Places, path: readonly Segment[], position: Position): void {
  const name = JSON.stringify(path);
  if (!places.has(name)) places.set(name, position);
}

function placesOf(text: string): Places {
  const places: Places = new Map();
  const sections = new Sections();
  let section: readonly Segment[] = [];
  let closing: string | null = null;
  for (const [index, line] of text.split('\n').entries()) {
    if (closing !== null) {
      if (line.includes(closing)) closing = null;
      continue;
    }
    const header = HEADER.exec(line);
    const pair = header === null ? PAIR.exec(line) : null;
    const at = { line: index + 1, column: (header?.[1] ?? pair?.[1] ?? '').length + 1 };
    if (header !== null) section = sections.resolve(segmentsOf(header[3] ?? ''), header[2] === '[');
    if (header !== null) note(places, section, at);
    if (pair !== null) note(places, [...section, ...segmentsOf(pair[2] ?? '')], at);
    // A text over several lines may hold lines that look like keys.
    closing = MULTILINE_QUOTES.find((quotes) => line.split(quotes).length % 2 === 0) ?? null;
  }
  return places;
}

/** Of what is inline, or not there, the nearest thing around it. */
function positionIn(places: Places, path: readonly PropertyKey[]): Position {
  for (let length = path.length; length > 0; length -= 1) {
    const position = places.get(JSON.stringify(path.slice(0, length)));
    if (position !== undefined) return position;
  }
  return { line: 1, column: 1 };
}

/** @throws ConfigError for what is not TOML; the library's own words quote the file, secrets included. */
export function parseToml(text: string, fileName: string): ParsedFile {
  try {
    const data = parse(text, { maxDepth: MAX_DEPTH });
    let places: Places | null = null;
    return {
      data: Object.keys(data).length === 0 ? null : data,
      positionOf: (path) => {
        places ??= placesOf(text);
        return positionIn(places, path);
      },
    };
  } catch (error) {
    if (error instanceof RangeError) failFile(fileName, 'is nested too deeply — flatten it');
    if (!(error instanceof TomlError)) throw error;
    const message = 'is not valid TOML — look for a missing quote, bracket or =, or a key that stands twice';
    const { line, column } = error;
    throw new ConfigError([{ source: fileName, position: { line, column }, path: '', message }]);
  }
}
