/** The pools of the other nodes, as their rows told a second ago at most. */
import { Reconciler } from '../../runtime/reconciler.js';
import type { Database } from '../../store/database.js';
import { type PoolElsewhere, poolsElsewhere } from '../../store/nodes.js';

const LOOK_EVERY_MS = 1_000;

export interface ElsewhereDeps {
  readonly db: Database;
  readonly nodeId: string;
  /** Told of a pool after each look. */
  readonly onPool: (pool: PoolElsewhere) => void;
  readonly onError: (name: string, error: unknown) => void;
}

export class Elsewhere {
  readonly #deps: ElsewhereDeps;
  readonly #loop: Reconciler;
  #pools: ReadonlyMap<string, PoolElsewhere> = new Map();

  constructor(deps: ElsewhereDeps) {
    this.#deps = deps;
    const { onError } = deps;
    this.#loop = new Reconciler({ name: 'other nodes', intervalMs: LOOK_EVERY_MS, run: () => this.look(), onError });
  }

  start(): void {
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  pools(): Iterable<PoolElsewhere> {
    return this.#pools.values();
  }

  /** Another node runs that has any. */
  get isRunning(): boolean {
    return [...this.#pools.values()].some(({ running }) => running);
  }

  pool(id: string): PoolElsewhere | null {
    return this.#pools.get(id) ?? null;
  }

  async look(): Promise<void> {
    const pools = await poolsElsewhere(this.#deps.db, this.#deps.nodeId);
    this.#pools = new Map(pools.map((pool) => [pool.id, pool]));
    for (const pool of pools) this.#deps.onPool(pool);
  }
}
