/** The XIDs of one GPU since its last reset. */

import { classifyXid, type XidReport } from '../../core/gpu.js';
import type { Clock } from '../../runtime/clock.js';

/** The same code again within this time is a repetition. */
const REPEAT_WINDOW_MS = 3_600_000;
const MAX_CODES = 64;

export class XidHistory {
  readonly #clock: Clock;
  /** Code → when it came last, on the monotonic clock. */
  readonly #lastByCode = new Map<number, number>();
  #last: XidReport | null = null;
  #worst: XidReport | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  record(xid: number): XidReport {
    const nowMs = this.#clock.monotonicMs();
    const beforeMs = this.#lastByCode.get(xid);
    const repeated = beforeMs !== undefined && nowMs - beforeMs <= REPEAT_WINDOW_MS;
    this.#remember(xid, nowMs);
    const report: XidReport = { ...classifyXid(xid, repeated), atMs: this.#clock.nowMs() };
    this.#last = report;
    if (report.degrades && (this.#worst === null || severity(report) >= severity(this.#worst))) this.#worst = report;
    return report;
  }

  get last(): XidReport | null {
    return this.#last;
  }

  /** Why the GPU needs a reset or repair; a harmless XID that came later does not hide it. */
  get needsRepair(): string | null {
    return this.#worst === null ? null : `XID ${this.#worst.xid}: ${this.#worst.meaning}. ${this.#worst.action}`;
  }

  /** After a reset: what was wrong may be right again. The last XID stays to be seen. */
  forgive(): void {
    this.#worst = null;
    this.#lastByCode.clear();
  }

  #remember(xid: number, nowMs: number): void {
    this.#lastByCode.delete(xid);
    this.#lastByCode.set(xid, nowMs);
    const [oldest] = this.#lastByCode.keys();
    if (this.#lastByCode.size > MAX_CODES && oldest !== undefined) this.#lastByCode.delete(oldest);
  }
}

function severity(report: XidReport): number {
  if (report.class === 'fatal_reboot') return 2;
  return report.class === 'fatal_reset' ? 1 : 0;
}
