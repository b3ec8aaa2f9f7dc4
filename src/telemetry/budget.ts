/**
 * How many values a label may have in one metric. Series live as long as the process, so without a bound names that come
 * and go (replicas of reloads, versions of engines) would make /metrics grow for ever.
 */
import { MAX_MODELS } from '../core/catalog.js';

export interface LabelBudget {
  readonly values: number;
  /** Its values come from a set in the code, which fits; the last place of any other is kept for `other`. */
  readonly closed: boolean;
}

const open = (values: number): LabelBudget => ({ values, closed: false });
const closed = (values: number): LabelBudget => ({ values, closed: true });

export const LABEL_BUDGETS = {
  engine: closed(4),
  engine_version: open(64),
  pool_id: open(256),
  replica_id: open(1024),
  // All of a full catalog, and `other`.
  model_id: open(MAX_MODELS + 1),
  device: open(64),
  reason: open(16),
  class: open(16),
  priority: closed(8),
  state: closed(8),
  result: closed(4),
  outcome: closed(4),
  policy: closed(4),
  verdict: closed(4),
  kind: closed(8),
  pinned: closed(2),
  fallback: closed(2),
} satisfies Record<string, LabelBudget>;

/** What stands for every value beyond the budget. */
export const OTHER = 'other';

const BY_NAME = new Map<string, LabelBudget>(Object.entries(LABEL_BUDGETS));

/** The values that the labels of one metric have had. */
export class SeenLabels {
  readonly #seen = new Map<string, Set<string>>();

  /** The same labels, with `other` for each value that came too late. */
  within<Labels extends Partial<Record<string, string | number>>>(labels: Labels): Labels {
    let bounded: Record<string, string | number> | null = null;
    for (const [name, value] of Object.entries(labels)) {
      if (value === undefined || this.#fits(name, String(value))) continue;
      bounded ??= { ...labels } as Record<string, string | number>;
      bounded[name] = OTHER;
    }
    return (bounded ?? labels) as Labels;
  }

  #fits(name: string, value: string): boolean {
    const budget = BY_NAME.get(name);
    if (budget === undefined) return true;
    const seen = this.#seen.get(name) ?? new Set();
    this.#seen.set(name, seen);
    if (seen.has(value)) return true;
    // "No engine" is not one of the engines; every other empty value counts.
    if (budget.closed && value === '') return true;
    if (seen.size >= (budget.closed ? budget.values : budget.values - 1)) return false;
    seen.add(value);
    return true;
  }
}
