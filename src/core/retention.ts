/** What is forgotten after a while, and after how much of it. Pure. */

export const RETAINED = ['tasks', 'artifacts', 'pool_events', 'quote_grades', 'leases', 'crash_records'] as const;
export type Retained = (typeof RETAINED)[number];

/** Null: no such bound. Whatever is beyond any of them goes. */
export interface Bounds {
  readonly days: number | null;
  /** The newest so many. */
  readonly maxCount: number | null;
  readonly maxBytes: number | null;
}

/** Younger than this nothing is removed, whatever the bounds say: readers that lost their connection come back. */
export const YOUNGEST_MS = 3_600_000;

/**
 * The moment up to which rows go, ms since 1970; null: none do.
 * @param beyond the age of the newest row that is beyond each bound on numbers, as far as there is one.
 */
export function cutoffMs(nowMs: number, bounds: Bounds, beyond: readonly (number | null)[]): number | null {
  const byAge = bounds.days === null ? null : nowMs - bounds.days * 24 * 3_600_000;
  const cutoffs = [byAge, ...beyond].filter((ms) => ms !== null);
  return cutoffs.length === 0 ? null : Math.min(Math.max(...cutoffs), nowMs - YOUNGEST_MS);
}
