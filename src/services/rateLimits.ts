/** Rate limits as configured: a token bucket per pool, priority and caller, asked before anything is written. */
import type { PoolConfig } from '../config/schema.js';
import type { Refusal } from '../core/errors.js';
import { type Bucket, burstOf, rateLimited, take } from '../core/rateLimit.js';
import { PRIORITIES, type Priority } from '../core/task.js';
import type { Clock } from '../runtime/clock.js';

/** Beyond so many callers the one that asked least recently is forgotten, and begins anew. */
const MAX_BUCKETS = 10_000;

export interface RateLimit {
  readonly poolId: string;
  readonly priority: Priority;
  readonly perSecond: number;
  /** Requests that may come at once. */
  readonly burst: number;
}

export class RateLimits {
  readonly #clock: Clock;
  /** Requests per second, by pool and priority; most have none. */
  readonly #rates = new Map<string, number>();
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Clock, pools: readonly Pick<PoolConfig, 'id' | 'admission'>[]) {
    this.#clock = clock;
    for (const pool of pools) {
      for (const { name, rate_limit_rps: rate } of pool.admission.priorities ?? []) {
        if (rate !== undefined) this.#rates.set(`${pool.id} ${name}`, rate);
      }
    }
  }

  ofPool(poolId: string): RateLimit[] {
    return PRIORITIES.flatMap((priority) => {
      const perSecond = this.#rates.get(`${poolId} ${priority}`);
      return perSecond === undefined ? [] : [{ poolId, priority, perSecond, burst: burstOf(perSecond) }];
    });
  }

  /** Takes one request out of the caller's bucket. @returns null, or why it may not come in now. */
  take(poolId: string, priority: Priority, identity: string): Refusal | null {
    const lane = `${poolId} ${priority}`;
    const rate = this.#rates.get(lane);
    if (rate === undefined) return null;
    const key = `${lane} ${identity}`;
    const { bucket, waitMs } = take(this.#buckets.get(key) ?? null, rate, this.#clock.monotonicMs());
    this.#buckets.delete(key); // and in again at the end: the map is in the order of use
    this.#buckets.set(key, bucket);
    const [leastRecent] = this.#buckets.keys();
    if (this.#buckets.size > MAX_BUCKETS && leastRecent !== undefined) this.#buckets.delete(leastRecent);
    return waitMs === 0 ? null : rateLimited(poolId, priority, rate, waitMs);
  }
}
