/** Starts the engines of pools that are not preloaded as soon as a task waits for them. */
import { Reconciler } from '../../runtime/reconciler.js';
import type { Database } from '../../store/database.js';
import { laneDepths } from '../../store/tasks.js';
import type { PoolReplicas } from './poolReplicas.js';

const LOOK_EVERY_MS = 250;

export interface FirstTasksDeps {
  readonly db: Database;
  readonly pools: () => readonly PoolReplicas[];
  readonly onError: (name: string, error: unknown) => void;
}

export class FirstTasks {
  readonly #deps: FirstTasksDeps;
  readonly #loop: Reconciler;

  constructor(deps: FirstTasksDeps) {
    this.#deps = deps;
    const run = () => this.#look();
    this.#loop = new Reconciler({ name: 'first tasks', intervalMs: LOOK_EVERY_MS, run, onError: deps.onError });
  }

  start(): void {
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  async #look(): Promise<void> {
    const resting = this.#deps.pools().filter((pool) => pool.rests && !pool.draining);
    if (resting.length === 0) return;
    const waiting = new Set((await laneDepths(this.#deps.db)).flatMap((lane) => (lane.depth > 0 ? [lane.poolId] : [])));
    for (const pool of resting) if (waiting.has(pool.config.id)) pool.wake();
  }
}
