/** Time comes in from outside the rules: a wall clock for people, a monotonic one for deadlines. Both in ms. */
export interface Clock {
  nowMs(): number;
  monotonicMs(): number;
}

export const systemClock: Clock = { nowMs: () => Date.now(), monotonicMs: () => performance.now() };
