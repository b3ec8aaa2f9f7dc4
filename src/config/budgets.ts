/** Prices and budgets of the file in the whole numbers that core/budget counts in. */
import { type BudgetLimits, MICROS } from '../core/budget.js';
import type { SessionRules } from '../core/session.js';
import type { Config } from './schema.js';

export function sessionRules({ sessions, budgets }: Pick<Config, 'sessions' | 'budgets'>): SessionRules {
  const { tokens = null, time_ms: timeMs = null, cost } = budgets;
  const limits: BudgetLimits = { tokens, timeMs, costMicros: cost === undefined ? null : Math.round(cost * MICROS) };
  return { ttlMs: sessions.ttl_ms, maxTurns: sessions.max_turns, limits };
}

/** Of 1000 tokens in a pool, also in one that only other nodes have. */
export function pricesMicros({ pools, budgets }: Pick<Config, 'pools' | 'budgets'>): (poolId: string) => number {
  const own = new Map(pools.map(({ id, price_per_1k_tokens: price }) => [id, price]));
  return (poolId) => Math.round((own.get(poolId) ?? budgets.price_per_1k_tokens ?? 0) * MICROS);
}
