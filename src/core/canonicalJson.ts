/**
 * One text for one JSON value: members sorted by name (UTF-16 code units), no space, numbers as ECMAScript writes them
 * (RFC 8785), whole numbers beyond 2^53 with all their digits. Pure.
 */

export const MAX_JSON_DEPTH = 64;

/** A value that JSON cannot say, or not in bounds. */
export class NotCanonicalError extends Error {}

/** @throws NotCanonicalError */
export function canonicalJson(value: unknown, depth = 0): string {
  if (depth > MAX_JSON_DEPTH) throw new NotCanonicalError(`is nested more than ${MAX_JSON_DEPTH} deep`);
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new NotCanonicalError('holds a number that JSON cannot write');
    return JSON.stringify(value);
  }
  if (typeof value !== 'object') throw new NotCanonicalError('holds what JSON cannot write');
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item, depth + 1)).join(',')}]`;
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member, depth + 1)}`).join(',')}}`;
}
