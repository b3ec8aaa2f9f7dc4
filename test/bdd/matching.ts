/**
 * What a cell of a table says about a value: a place in an answer, and a pattern for what is there. A pattern holds only
 * for something that can be read: where nothing is there, nothing but `none` and `absent` holds.
 */

/**
 * The value at a path like `steps[name=decode].state` or `engines[0].ctx_max`; `*` is every element of a list.
 * Undefined where there is none.
 */
export function valueAt(root: unknown, path: string): unknown {
  const parts = path.match(/\[[^\]]*\]|[^.[]+/g) ?? [];
  return descend(root, parts);
}

function descend(value: unknown, [part, ...rest]: readonly string[]): unknown {
  if (part === undefined) return value;
  if (part === '*') return Array.isArray(value) ? value.map((one) => descend(one, rest)) : undefined;
  return descend(child(value, part), rest);
}

function child(value: unknown, part: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  if (!part.startsWith('[')) return Object.hasOwn(value, part) ? (value as Record<string, unknown>)[part] : undefined;
  if (!Array.isArray(value)) return undefined;
  const [key = '', wanted] = part.slice(1, -1).split('=');
  if (wanted === undefined) return value.at(Number(key));
  return value.find((one) => String(valueAt(one, key)) === wanted);
}

const ORDER = /^(<=|>=|<|>) (-?[\d.]+)$/;
const REGEXP = /^\/(.*)\/$/;

/**
 * Whether a value is what a cell asks for:
 * `any`: there is something, in a list as each element; `none`: null, or an empty list, at a place that is there;
 * `absent`: there is no such place; `> 3`: one number; `/pattern/` and other text: what `readable` makes of the value.
 */
export function matches(value: unknown, cell: string): boolean {
  if (cell === 'any') return isSomething(value);
  if (cell === 'none') return value === null || (Array.isArray(value) && value.length === 0);
  if (cell === 'absent') return value === undefined;
  const [, relation, bound] = ORDER.exec(cell) ?? [];
  if (relation !== undefined) return isOrdered(value, relation, Number(bound));
  const text = readable(value);
  if (text === null) return false;
  const pattern = REGEXP.exec(cell)?.[1];
  return pattern === undefined ? text === cell : new RegExp(pattern, 's').test(text);
}

function isSomething(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0 && value.every(isSomething);
  return value !== undefined && value !== null;
}

/** Numbers, and texts of some: 64-bit integers come as text. */
function isOrdered(value: unknown, relation: string, bound: number): boolean {
  if (typeof value !== 'number' && (typeof value !== 'string' || value.trim() === '')) return false;
  const number = Number(value);
  if (relation === '<') return number < bound;
  if (relation === '>') return number > bound;
  return relation === '<=' ? number <= bound : number >= bound;
}

/** A scalar as text, a list as its elements with commas between them; null where it, or an element, is neither. */
function readable(value: unknown): string | null {
  if (Array.isArray(value)) {
    const parts = value.map(readable);
    return parts.length === 0 || parts.includes(null) ? null : parts.join(', ');
  }
  return value === null || value === undefined || typeof value === 'object' ? null : String(value);
}

/** Every row whose value is not what its cell asks for, in words; empty when all are. */
export function mismatches(value: unknown, rows: readonly (readonly string[])[]): string[] {
  return rows.flatMap(([path = '', cell = '']) => {
    const found = valueAt(value, path);
    return matches(found, cell) ? [] : [`${path}: wanted ${cell}, found ${readable(found) ?? inWords(found)}`];
  });
}

function inWords(value: unknown): string {
  return value === undefined ? 'nothing there' : JSON.stringify(value);
}
