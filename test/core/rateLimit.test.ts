import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Bucket, burstOf, rateLimited, take } from '../../src/core/rateLimit.js';

const rates = fc.double({ min: 0.01, max: 1000, noNaN: true });
const gapsMs = fc.array(fc.integer({ min: 0, max: 5_000 }), { minLength: 1, maxLength: 200 });

describe('a token bucket', () => {
  it('lets in at most the burst and what the rate has given since, in any run of requests', () => {
    fc.assert(
      fc.property(rates, gapsMs, (rate, gaps) => {
        let bucket: Bucket | null = null;
        let nowMs = 0;
        let letIn = 0;
        for (const gapMs of gaps) {
          nowMs += gapMs;
          const taken = take(bucket, rate, nowMs);
          bucket = taken.bucket;
          if (taken.waitMs === 0) letIn += 1;
          expect(letIn).toBeLessThanOrEqual(burstOf(rate) + (nowMs * rate) / 1000 + 1e-6);
        }
      }),
    );
  });

  it('tells a wait after which the request is let in, and not much before', () => {
    fc.assert(
      fc.property(rates, gapsMs, (rate, gaps) => {
        let bucket: Bucket | null = null;
        let nowMs = 0;
        for (const gapMs of gaps) {
          nowMs += gapMs;
          const taken = take(bucket, rate, nowMs);
          bucket = taken.bucket;
          if (taken.waitMs === 0) continue;
          expect(take(bucket, rate, nowMs + taken.waitMs + 1e-3).waitMs).toBe(0);
          if (taken.waitMs > 1) expect(take(bucket, rate, nowMs + taken.waitMs - 1.001).waitMs).toBeGreaterThan(0);
        }
      }),
    );
  });

  it('lets one through at a rate below one per second, holds a second of a higher one, and fills by no clock that runs back', () => {
    expect(take(null, 0.1, 0)).toEqual({ bucket: { tokens: 0, atMs: 0 }, waitMs: 0 });
    expect(take({ tokens: 0, atMs: 0 }, 0.1, 0).waitMs).toBe(10_000);
    let bucket: Bucket | null = null;
    for (let n = 0; n < 5; n += 1) bucket = take(bucket, 5, 1000).bucket;
    expect(take(bucket, 5, 1000).waitMs).toBe(200);
    expect(take(bucket, 5, 0).waitMs).toBe(200);
    expect(rateLimited('p', 'batch', 5, 200)).toMatchObject({
      family: 'backpressure',
      code: 'ADMISSION_REJECT',
      policyLabel: 'rate-limit',
      retriable: true,
      retryAfterMs: 200,
    });
  });
});
