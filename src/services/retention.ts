/** Forgets what is old, a few rows at a time, so that the database does not grow for ever. Every node does it alike. */
import { type Bounds, cutoffMs, RETAINED, type Retained } from '../core/retention.js';
import type { Clock } from '../runtime/clock.js';
import { Reconciler } from '../runtime/reconciler.js';
import { delay } from '../runtime/wait.js';
import type { Database } from '../store/database.js';
import { newestBeyondBounds, prune } from '../store/retention.js';
import type { Telemetry } from '../telemetry/events.js';

const BATCH = 500;
/** Per kind and run; the rest waits for the next run. */
const MAX_BATCHES = 200;
/** Others want the database too. */
const PAUSE_MS = 20;

export interface RetentionDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly everyMs: number;
  readonly bounds: Readonly<Record<Retained, Bounds>>;
  /** Tasks whose streams are read here now. */
  readonly tasksInUse: () => readonly string[];
}

export class Retention {
  readonly #deps: RetentionDeps;
  readonly #loop: Reconciler;

  constructor(deps: RetentionDeps) {
    this.#deps = deps;
    this.#loop = new Reconciler({
      name: 'retention',
      intervalMs: deps.everyMs,
      run: (signal) => this.#run(signal),
      onError: (name, error) => deps.telemetry.backgroundFailure(name, error),
    });
  }

  start(): void {
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  /** Tasks come first: what they name can go only after them. */
  async #run(signal: AbortSignal): Promise<void> {
    for (const what of RETAINED) await this.#forget(what, signal);
  }

  async #forget(what: Retained, signal: AbortSignal): Promise<void> {
    const { db, clock, telemetry, bounds } = this.#deps;
    if (signal.aborted) return;
    const beyond = await newestBeyondBounds(db, what, bounds[what]);
    const upToMs = cutoffMs(clock.nowMs(), bounds[what], beyond);
    if (upToMs === null) return;
    let removed = 0;
    try {
      for (let batch = 0; batch < MAX_BATCHES && !signal.aborted; batch += 1) {
        const inUse = this.#deps.tasksInUse();
        const gone = await prune(db, what, { upToMs, limit: BATCH, inUse });
        removed += gone;
        if (gone < BATCH) return;
        await delay(PAUSE_MS, signal);
      }
    } finally {
      if (removed > 0) telemetry.forgotten(what, removed, upToMs);
    }
  }
}
