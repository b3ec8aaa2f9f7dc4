/**
 * What a session may spend: tokens, time of decoding, cost. Whole numbers, so that sums stay exact.
 *
 *   spent + reserved ≤ limit, always: a task reserves at admission the most it may use, and its end turns that into what
 *   it has used. Nothing is charged that was not reserved, so a kind counts from when it has a limit.
 *
 * Tokens and cost are reserved whole (prompt + max_tokens). How long a task decodes nobody knows before, so time is
 * reserved in slices; a task that gets no further slice is cut off. The SQL obeys this (submit_tasks(), settle_budget()).
 */
import { invalid, type Refusal } from './errors.js';

export const BUDGET_KINDS = ['tokens', 'timeMs', 'costMicros'] as const;
export type BudgetKind = (typeof BUDGET_KINDS)[number];

/** Millionths of whatever the price is in. */
export type Amounts = Readonly<Record<BudgetKind, number>>;
/** null: without limit. */
export type BudgetLimits = Readonly<Record<BudgetKind, number | null>>;
/** What another task may still reserve; null: as much as it likes. */
export type BudgetLeft = BudgetLimits;

export interface Budget {
  readonly limits: BudgetLimits;
  readonly spent: Amounts;
  readonly reserved: Amounts;
}

export interface BudgetShort {
  readonly kind: BudgetKind;
  readonly limit: number;
  readonly spent: number;
  readonly reserved: number;
  readonly need: number;
}

/** What admission knows of a task's price. */
export interface TaskCost {
  /** Counted by the engine's tokenizer, else the most they can be. */
  readonly promptTokens: number;
  readonly maxTokens: number;
  /** Of 1000 tokens. */
  readonly priceMicros: number;
}

export const NO_LIMITS: BudgetLimits = { tokens: null, timeMs: null, costMicros: null };
const NOTHING: Amounts = { tokens: 0, timeMs: 0, costMicros: 0 };
export const FRESH: Omit<Budget, 'limits'> = { spent: NOTHING, reserved: NOTHING };

/** What a task reserves of the time at once, ms. */
export const TIME_SLICE_MS = 5_000;
/** No limit is higher: sums of it fit a double and a bigint. */
export const MAX_LIMIT = 1_000_000_000_000_000;
export const MICROS = 1_000_000;

export function costMicros(tokens: number, priceMicros: number): number {
  return Math.ceil((tokens * priceMicros) / 1000);
}

export function budgetLeft({ limits, spent, reserved }: Budget): BudgetLeft {
  return eachKind((kind) => {
    const limit = limits[kind];
    return limit === null ? null : limit - spent[kind] - reserved[kind];
  });
}

export function isLimited(limits: BudgetLimits): boolean {
  return BUDGET_KINDS.some((kind) => limits[kind] !== null);
}

/** What a task has to reserve; a millisecond at least, of time that has run out. */
export function needOf(budget: Budget, { promptTokens, maxTokens, priceMicros }: TaskCost): Amounts {
  const tokens = promptTokens + maxTokens;
  const timeMs = Math.max(1, Math.min(TIME_SLICE_MS, budgetLeft(budget).timeMs ?? 0));
  const need: Amounts = { tokens, timeMs, costMicros: costMicros(tokens, priceMicros) };
  return eachKind((kind) => (budget.limits[kind] === null ? 0 : need[kind]));
}

/** The first kind of which there is not enough. */
export function shortOf(budget: Budget, need: Amounts): BudgetShort | null {
  const left = budgetLeft(budget);
  for (const kind of BUDGET_KINDS) {
    const limit = budget.limits[kind];
    if (limit === null || need[kind] <= (left[kind] ?? 0)) continue;
    return { kind, limit, spent: budget.spent[kind], reserved: budget.reserved[kind], need: need[kind] };
  }
  return null;
}

export function reserve(budget: Budget, need: Amounts): Budget {
  return { ...budget, reserved: eachKind((kind) => budget.reserved[kind] + need[kind]) };
}

/** @param used of it no more counts than was reserved: an engine may claim anything. */
export function settle(budget: Budget, reserved: Amounts, used: Amounts): Budget {
  return {
    ...budget,
    reserved: eachKind((kind) => budget.reserved[kind] - reserved[kind]),
    spent: eachKind((kind) => budget.spent[kind] + Math.min(reserved[kind], used[kind])),
  };
}

const WORDS: Readonly<Record<BudgetKind, { readonly name: string; readonly say: (amount: number) => string }>> = {
  tokens: { name: 'token', say: (amount) => `${amount} tokens` },
  timeMs: { name: 'time', say: (amount) => `${amount} ms` },
  costMicros: { name: 'cost', say: (amount) => String(amount / MICROS) },
};

export function budgetText(kind: BudgetKind, amount: number): string {
  return WORDS[kind].say(amount);
}

/** How soon a task of a session may have ended and given back what it did not use, ms. */
const GIVEN_BACK_AFTER_MS = 1_000;

/**
 * What would never fit is wrong as sent; what fits once the tasks under way have given back what they do not use is to be
 * sent again.
 */
export function refusedByBudget(sessionId: string, { kind, limit, spent, reserved, need }: BudgetShort): Refusal {
  const { name, say } = WORDS[kind];
  const needs = kind === 'timeMs' ? 'decoding needs time' : `prompt and max_tokens need up to ${say(need)}`;
  const left = limit - spent - reserved;
  const facts = `${needs}; session ${sessionId} has ${say(left)} of its ${name} budget of ${say(limit)} left`;
  if (limit - spent >= need) {
    return {
      ...{ family: 'backpressure', code: 'ADMISSION_REJECT', retriable: true, field: 'session_id' },
      message: `${facts}, and ${say(reserved)} reserved by tasks under way: wait for them to end`,
      policyLabel: 'session-budget',
      retryAfterMs: GIVEN_BACK_AFTER_MS,
    };
  }
  const fix = 'raise the budget (setSessionBudget) or go on in another session';
  if (kind === 'timeMs') return invalid('session_id', `${facts}: ${fix}`);
  return invalid('max_tokens', `${facts}: ask for fewer tokens, ${fix}`);
}

function eachKind<Value>(of: (kind: BudgetKind) => Value): Record<BudgetKind, Value> {
  return { tokens: of('tokens'), timeMs: of('timeMs'), costMicros: of('costMicros') };
}
