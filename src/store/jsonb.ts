/** Values as columns of type jsonb take them. */

/** jsonb refuses U+0000 and lone surrogates, which the last words of an engine may hold. */
export function jsonbText(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'string' ? part.replaceAll('\0', '\uFFFD').replace(/\p{Surrogate}/gu, '\uFFFD') : part,
  );
}
