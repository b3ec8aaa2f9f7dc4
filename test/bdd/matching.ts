/** What a cell of a table says about a value: a place in an answer, and a pattern for what is there. */

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
  if (!part.startsWith('[')) return (value as Record<string, unknown>)[part];
  if (!Array.isArray(value)) return undefined;
  const [key = '', wanted] = part.slice(1, -1).split('=');
  if (wanted === undefined) return value.at(Number(key));
  return value.find((one) => String(valueAt(one, key)) === wanted);
}

const ORDER = /^(<=|>=|<|>) (-?[\d.]+)$/;
const REGEXP = /^\/(.*)\/$/;

/** Whether a value is what a cell asks for: `any`, `none`, `> 3`, `/pattern/`, or its own text. */
export function matches(value: unknown, cell: string): boolean {
  if (cell === 'any') return value !== undefined && value !== null;
  if (cell === 'none') return value === undefined || value === null || (Array.isArray(value) && value.length === 0);
  const [, relation, bound] = ORDER.exec(cell) ?? [];
  if (relation !== undefined) return isOrdered(value, relation, Number(bound));
  const pattern = REGEXP.exec(cell)?.[1];
  if (pattern !== undefined) return new RegExp(pattern, 's').test(textOf(value));
  return textOf(value) === cell;
}

function isOrdered(value: unknown, relation: string, bound: number): boolean {
  if (value === null || value === undefined || value === '') return false;
  const number = Number(value);
  if (relation === '<') return number < bound;
  if (relation === '>') return number > bound;
  return relation === '<=' ? number <= bound : number >= bound;
}

export function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.map(textOf).join(', ');
  if (typeof value === 'object' && value !== null) return JSON.stringify(value);
  return String(value);
}

/** Every row whose value is not what its cell asks for, in words; empty when all are. */
export function mismatches(value: unknown, rows: readonly (readonly string[])[]): string[] {
  return rows.flatMap(([path = '', cell = '']) => {
    const found = valueAt(value, path);
    return matches(found, cell) ? [] : [`${path}: wanted ${cell}, found ${textOf(found)}`];
  });
}
