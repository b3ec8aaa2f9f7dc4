/** YAML with the place of everything in it. What the library accepts and no configuration needs is refused. */
import {
  type Alias,
  type Document,
  isAlias,
  isCollection,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type ParsedNode,
  parseDocument,
  visit,
} from 'yaml';
import { ConfigError, type ConfigProblem, failFile, type ParsedFile, type Position } from './error.js';

/** Far above any honest use; without a bound a few nested aliases unfold into gigabytes. */
const MAX_ALIASES = 100;
const TOO_MANY_ALIASES = `uses too many aliases (*name), or aliases of aliases — write the values out, or use at most ${MAX_ALIASES}`;

type Parsed = Document.Parsed<ParsedNode>;

/** `- - - …` on one line: nesting that brings the parser down with the process, so it must not see it. */
const DEEP_COMPACT_NESTING = /(?:[-?:][ \t]+){100}/;
const TOO_DEEP = 'is nested too deeply — flatten it';

/** Fixed texts, because the library's own messages quote the file, secrets included. */
const SYNTAX_MESSAGES: Readonly<Record<string, string>> = {
  BAD_ALIAS: 'is an alias without a name, or an ambiguous one — write *name after an earlier &name',
  BAD_INDENT: 'is indented wrongly — give the keys of one section the same indentation',
  BLOCK_AS_IMPLICIT_KEY: 'has two keys on one line — put each key on a line of its own, and quote text that holds ": "',
  DUPLICATE_KEY: 'repeats a key of this section — keep one of them',
  MISSING_CHAR: 'lacks a character, such as a closing quote or bracket, a colon or a comma — complete it',
  MULTILINE_IMPLICIT_KEY: 'is a key over several lines, often one without its colon — write key: value',
  MULTIPLE_DOCS: 'begins a second YAML document — keep one per file',
  NON_STRING_KEY: 'is a key that is not plain text — write a plain key',
  RESOURCE_EXHAUSTION: TOO_DEEP,
  TAB_AS_INDENT: 'is indented with a tab — indent with spaces',
  TAG_RESOLVE_FAILED: 'carries a tag (!…) that is not supported — remove the tag',
};

function positionAt(lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(1, line), column: Math.max(1, col) };
}

function syntaxProblems(document: Parsed, lines: LineCounter, fileName: string): ConfigProblem[] {
  const errors = [...document.errors, ...document.warnings];
  // Once the parser gives up, what it says next is noise.
  const end = errors.findIndex((error) => error.code === 'RESOURCE_EXHAUSTION');
  return errors.slice(0, end < 0 ? errors.length : end + 1).map((error) => ({
    source: fileName,
    position: positionAt(lines, error.pos[0]),
    path: '',
    message: SYNTAX_MESSAGES[error.code] ?? 'is not valid YAML — correct it, or put the value in quotes',
  }));
}

function aliasProblems(document: Parsed, lines: LineCounter, fileName: string): ConfigProblem[] {
  const aliases: Alias[] = [];
  visit(document, {
    Alias(_key, alias) {
      aliases.push(alias);
    },
  });
  // Counted first: resolving one walks the document.
  if (aliases.length > MAX_ALIASES) failFile(fileName, TOO_MANY_ALIASES);
  return aliases
    .filter((alias) => alias.resolve(document) === undefined)
    .map((alias) => ({
      source: fileName,
      position: positionAt(lines, alias.range?.[0] ?? 0),
      path: '',
      message: 'is an alias of nothing — define it earlier with &name, or quote text that begins with *',
    }));
}

function parseText(text: string, fileName: string, lines: LineCounter): Parsed {
  if (DEEP_COMPACT_NESTING.test(text)) failFile(fileName, TOO_DEEP);
  try {
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true });
    const problems = syntaxProblems(document, lines, fileName);
    if (problems.length === 0) problems.push(...aliasProblems(document, lines, fileName));
    if (problems.length > 0) throw new ConfigError(problems);
    return document;
  } catch (error) {
    // The parser recurses; a file of nothing but brackets exhausts its stack.
    if (error instanceof RangeError) failFile(fileName, TOO_DEEP);
    throw error;
  }
}

function toData(document: Parsed, fileName: string): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    if (error instanceof ReferenceError || error instanceof RangeError) {
      failFile(fileName, TOO_MANY_ALIASES);
    }
    throw error;
  }
}

/** Where `path` is in the text: its key or list item, or the nearest thing around it when it is not there. Offset, from 0. */
function offsetOf(document: Parsed, path: readonly PropertyKey[]): number {
  let node: unknown = document.contents;
  let offset = document.contents?.range[0] ?? 0;
  for (const segment of path) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(segment));
      if (!pair || !isScalar(pair.key)) return offset;
      offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(segment)];
      if (!isScalar(node) && !isCollection(node) && !isAlias(node)) return offset;
      offset = node.range?.[0] ?? offset;
    } else return offset;
  }
  return offset;
}

/** @throws ConfigError for what is not YAML, or more than a configuration needs of it. */
export function parseYaml(text: string, fileName: string): ParsedFile {
  const lines = new LineCounter();
  const document = parseText(text, fileName, lines);
  return {
    data: toData(document, fileName),
    positionOf: (path) => positionAt(lines, offsetOf(document, path)),
  };
}
