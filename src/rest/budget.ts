/** What is left of a session's budget, as the wire has it: headers and members are there for what has a limit. */
import { type BudgetLeft, MICROS } from '../core/budget.js';

function members(left: BudgetLeft | null, names: readonly [tokens: string, timeMs: string, cost: string]) {
  if (left === null) return {};
  const { tokens, timeMs, costMicros } = left;
  const [tokensName, timeName, costName] = names;
  return {
    ...(tokens !== null && { [tokensName]: tokens }),
    ...(timeMs !== null && { [timeName]: timeMs }),
    ...(costMicros !== null && { [costName]: costMicros / MICROS }),
  };
}

/** Of SessionInfo and SSEMetrics. */
export function budgetMembers(left: BudgetLeft | null): Record<string, number> {
  return members(left, ['tokens_budget_remaining', 'time_budget_remaining_ms', 'cost_budget_remaining']);
}

export function budgetHeaders(left: BudgetLeft | null): Record<string, string> {
  const names = ['x-budget-tokens-remaining', 'x-budget-time-remaining-ms', 'x-budget-cost-remaining'] as const;
  return Object.fromEntries(Object.entries(members(left, names)).map(([name, value]) => [name, plain(value)]));
}

/** Without an exponent, which no reader of the header expects. */
function plain(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(6).replace(/0+$/, '');
}
