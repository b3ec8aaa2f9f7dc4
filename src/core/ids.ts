/** Identifiers and the numbers derived from them. Pure. */

const UUID_SHAPE = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Any 8-4-4-4-12 hex string: old clients send ids with no version bits, e.g. 00000000-0000-0000-0000-000000000001. */
export function isUuid(text: string): boolean {
  return UUID_SHAPE.test(text);
}

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;
const MASK_64 = (1n << 64n) - 1n;

/**
 * The seed of a task that came without one: FNV-1a of its id, folded to 31 bits so that every engine takes it as it is.
 * The same task_id always gives the same seed, so a retry repeats the run.
 */
export function seedFromTaskId(taskId: string): bigint {
  let hash = FNV_OFFSET;
  for (const char of taskId.toLowerCase()) {
    hash ^= BigInt(char.codePointAt(0) ?? 0);
    hash = (hash * FNV_PRIME) & MASK_64;
  }
  return (hash ^ (hash >> 32n)) & 0x7fffffffn;
}
