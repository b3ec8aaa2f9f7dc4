/** Token buckets: a steady rate with room for a short burst. Pure: time comes in, monotonic ms. */
import type { Refusal } from './errors.js';
import type { Priority } from './task.js';

/** Where a full queue has the name of its policy. */
export const RATE_LIMIT_LABEL = 'rate-limit';

/** What is left of a caller's allowance, as of a moment. */
export interface Bucket {
  readonly tokens: number;
  readonly atMs: number;
}

/** A bucket holds one second's worth of requests, and at least one: a rate below one per second must let one through. */
export function burstOf(ratePerSecond: number): number {
  return Math.max(1, ratePerSecond);
}

export interface Taken {
  readonly bucket: Bucket;
  /** 0: taken. Else nothing was, and one will be there after so long, ms. */
  readonly waitMs: number;
}

/** Takes one request out of a bucket; null is a full one. Time that goes backwards fills nothing. */
export function take(bucket: Bucket | null, ratePerSecond: number, nowMs: number): Taken {
  const burst = burstOf(ratePerSecond);
  const elapsedMs = bucket === null ? 0 : Math.max(0, nowMs - bucket.atMs);
  const tokens = bucket === null ? burst : Math.min(burst, bucket.tokens + (elapsedMs * ratePerSecond) / 1000);
  const atMs = bucket === null ? nowMs : Math.max(nowMs, bucket.atMs);
  if (tokens >= 1) return { bucket: { tokens: tokens - 1, atMs }, waitMs: 0 };
  return { bucket: { tokens, atMs }, waitMs: Math.ceil(((1 - tokens) * 1000) / ratePerSecond) };
}

/** @param waitMs until the caller's next request is let in. */
export function rateLimited(poolId: string, priority: Priority, ratePerSecond: number, waitMs: number): Refusal {
  return {
    family: 'backpressure',
    code: 'ADMISSION_REJECT',
    message: `the limit of pool ${poolId} for ${priority} tasks is reached: ${ratePerSecond} per second and caller`,
    retriable: true,
    retryAfterMs: waitMs,
    policyLabel: RATE_LIMIT_LABEL,
  };
}
