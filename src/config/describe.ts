/** Words for what the schema refused: "what is wrong — how to fix". The refused value is looked at and never repeated. */
import type { z } from 'zod';
import { configJsonSchema } from './schema.js';

type Path = readonly PropertyKey[];
type Issue = z.core.$ZodIssue;

/** One problem as the schema sees it; `path` ends in the offending key. */
export interface DescribedIssue {
  readonly path: Path;
  readonly message: string;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** `pools[0].queue.capacity`. A key that is no plain word is cut short: it may hold a secret (`TOKEN=…`) or terminal codes. */
export function formatPath(path: Path): string {
  let formatted = '';
  for (const segment of path) {
    if (typeof segment === 'number') formatted += `[${segment}]`;
    else {
      const key = String(segment);
      const shown = /^[\w-]{1,64}$/.test(key) ? key : `${/^[\w-]{0,64}/.exec(key)?.[0] ?? ''}…`;
      formatted += formatted === '' ? shown : `.${shown}`;
    }
  }
  return formatted;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}

/** The candidate that was probably meant, or null when none is close. */
export function nearest(word: string, candidates: readonly string[]): string | null {
  // Nobody mistypes a word this long into one of ours, and the table would be large.
  if (word.length > 64) return null;
  let best: string | null = null;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase().replaceAll('-', '_'), candidate.replaceAll('-', '_'));
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function propertiesOf(node: unknown): Record<string, unknown> {
  return isRecord(node) && 'properties' in node && isRecord(node.properties) ? node.properties : {};
}

/** The keys that the schema knows at `path`, in its order. */
function validKeysAt(path: Path): string[] {
  let node: unknown = configJsonSchema();
  for (const segment of path) {
    if (typeof segment !== 'number') node = propertiesOf(node)[String(segment)];
    else node = isRecord(node) && 'items' in node ? node.items : undefined;
  }
  return Object.keys(propertiesOf(node));
}

function unknownKey(key: string, validKeys: readonly string[]): string {
  const guess = nearest(key, validKeys);
  if (guess !== null) return `is not a known key — did you mean ${guess}?`;
  return `is not a known key — remove it; the keys here are ${validKeys.join(', ')}`;
}

function valueAt(data: unknown, path: Path): unknown {
  let value = data;
  for (const segment of path) value = isRecord(value) ? Reflect.get(value, segment) : undefined;
  return value;
}

const EXPECTED: Readonly<Record<string, { readonly what: string; readonly fix: string }>> = {
  string: { what: 'text', fix: 'put it in quotes' },
  int: { what: 'a whole number', fix: 'write digits only, without quotes or a unit' },
  number: { what: 'a number', fix: 'write it without quotes or a unit' },
  boolean: { what: 'true or false', fix: 'write true or false, without quotes' },
  array: { what: 'a list', fix: 'write [a, b], or one line beginning with "- " per item' },
  object: { what: 'a section of keys', fix: 'write its keys below it, indented' },
  record: { what: 'a section of keys', fix: 'write its keys below it, indented' },
};

function wrongType(expectedType: string, value: unknown): string {
  const expected = EXPECTED[expectedType] ?? { what: expectedType, fix: 'correct it' };
  if (value === undefined) return `is missing — add it: ${expected.what}`;
  if (value === null) return `is empty — give it ${expected.what}, or remove the key`;
  if (expectedType === 'string' && isRecord(value)) return 'must be text, not a list or section — write one value';
  return `must be ${expected.what} — ${expected.fix}`;
}

function wrongChoice(choices: readonly string[], value: unknown): string {
  const listed = choices.join(', ');
  if (value === undefined) return `is missing — add it: one of ${listed}`;
  const guess = typeof value === 'string' ? nearest(value, choices) : null;
  const hint = guess === null ? '' : ` (did you mean ${guess}?)`;
  return `is not one of the choices — write one of ${listed}${hint}`;
}

function outOfBounds(issue: Extract<Issue, { code: 'too_small' | 'too_big' }>): string {
  const small = issue.code === 'too_small';
  const bound = small ? issue.minimum : issue.maximum;
  if (issue.origin === 'string')
    return small ? 'is empty — write a value' : `is too long — use at most ${bound} characters`;
  if (issue.origin === 'array')
    return small ? `is too short — list at least ${bound}` : `is too long — list at most ${bound}`;
  if (issue.inclusive === false) return `is out of range — use a number ${small ? 'above' : 'below'} ${bound}`;
  return `is too ${small ? 'small' : 'large'} — use at ${small ? 'least' : 'most'} ${bound}`;
}

/** Every problem of one issue, unknown keys one by one. `data` is what the schema was given. */
export function describeIssue(issue: Issue, data: unknown): DescribedIssue[] {
  const { path } = issue;
  switch (issue.code) {
    case 'unrecognized_keys': {
      const validKeys = validKeysAt(path);
      return issue.keys.map((key) => ({ path: [...path, key], message: unknownKey(key, validKeys) }));
    }
    case 'invalid_type':
      return [{ path, message: wrongType(issue.expected, valueAt(data, path)) }];
    case 'invalid_value':
      return [{ path, message: wrongChoice(issue.values.map(String), valueAt(data, path)) }];
    case 'too_small':
    case 'too_big':
      return [{ path, message: outOfBounds(issue) }];
    default:
      // Our own words, written in the schema beside the rule.
      return [{ path, message: issue.message }];
  }
}
