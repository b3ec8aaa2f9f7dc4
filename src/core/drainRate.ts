/** How fast a pool serves its queue, measured, and when a refused caller should come back. Pure: time comes in, ms. */
import { ewma } from './ewma.js';

const UNMEASURED_MS = 1_000;
const INTERVAL_WEIGHT = 0.2;
const SHORTEST_MS = 250;
const LONGEST_MS = 60_000;

/**
 * Measures the time from one served task to the next while every slot is taken: only then is the pool what limits it, and
 * not the callers. A pool that has stopped serving is seen too: the time since the last one counts as soon as it is longer.
 */
export class DrainRate {
  #meanMs = 0;
  /** When all slots were last seen to be taken; null while there are more slots than tasks. */
  #busySinceMs: number | null = null;
  /** Callers that were told to come back and for whom there has been no place since. */
  #sentAway = 0;

  /** Free slots were offered to the waiting tasks, and some taken. */
  granted(offered: number, taken: number, nowMs: number): void {
    if (taken > 0 && this.#busySinceMs !== null) {
      const sampleMs = (nowMs - this.#busySinceMs) / taken;
      this.#meanMs = ewma(this.#meanMs === 0 ? null : this.#meanMs, sampleMs, INTERVAL_WEIGHT) ?? 0;
    }
    this.#busySinceMs = taken === offered ? nowMs : null;
    this.#sentAway = taken < offered ? 0 : Math.max(0, this.#sentAway - taken);
  }

  /** Expected time from one served task to the next, ms. */
  intervalMs(nowMs: number): number {
    const idleMs = this.#busySinceMs === null ? 0 : nowMs - this.#busySinceMs;
    return Math.max(this.#meanMs === 0 ? UNMEASURED_MS : this.#meanMs, idleMs);
  }

  /**
   * When a place in a full queue is expected for one more caller, ms, within a quarter of a second and a minute. Each
   * caller is told the time of a place of its own: together they would meet a full queue again.
   */
  sendAway(nowMs: number): number {
    this.#sentAway += 1;
    return this.#within(this.intervalMs(nowMs) * this.#sentAway);
  }

  /** The same without counting the caller: for tasks that are displaced, which may never be sent again. */
  retryAfterMs(nowMs: number): number {
    return this.#within(this.intervalMs(nowMs) * (this.#sentAway + 1));
  }

  #within(ms: number): number {
    return Math.round(Math.min(LONGEST_MS, Math.max(SHORTEST_MS, ms)));
  }
}
