/** How fast other nodes serve, learned from the leases that they gave back: quotes and waits for their pools rest on it. */
import { Reconciler } from '../../runtime/reconciler.js';
import type { Database } from '../../store/database.js';
import { recentServices, type ServiceSample } from '../../store/quotes.js';
import type { Dispatcher } from '../dispatcher.js';
import type { Quotes } from '../quotes.js';
import type { Elsewhere } from './elsewhere.js';

const LOOK_EVERY_MS = 1_000;

export interface ServedElsewhereDeps {
  readonly db: Database;
  /** Of this node, which learns from its own runs when they end. */
  readonly holder: string;
  readonly elsewhere: Elsewhere;
  readonly quotes: Quotes;
  readonly dispatcher: Dispatcher;
  readonly onError: (name: string, error: unknown) => void;
}

export class ServedElsewhere {
  readonly #deps: ServedElsewhereDeps;
  readonly #loop: Reconciler;
  #seenUntil = new Date(0);

  constructor(deps: ServedElsewhereDeps) {
    this.#deps = deps;
    const { onError } = deps;
    this.#loop = new Reconciler({
      name: 'services of other nodes',
      intervalMs: LOOK_EVERY_MS,
      run: () => this.#look(),
      onError,
    });
  }

  /** Learns from the leases of the past, earlier lives of this node included: a new start does not begin with nothing. */
  async start(): Promise<void> {
    await this.#learn();
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  async #look(): Promise<void> {
    const { elsewhere, dispatcher } = this.#deps;
    const [other] = elsewhere.pools();
    if (other === undefined) return;
    const served = new Map<string, number>();
    for (const { poolId } of await this.#learn()) served.set(poolId, (served.get(poolId) ?? 0) + 1);
    for (const [poolId, count] of served) dispatcher.servedElsewhere(poolId, count);
  }

  async #learn(): Promise<readonly ServiceSample[]> {
    const { db, holder, quotes } = this.#deps;
    const samples = await recentServices(db, holder, this.#seenUntil);
    for (const { poolId, priority, heldMs } of samples) quotes.served(poolId, priority, heldMs);
    this.#seenUntil = samples.at(-1)?.endedAt ?? this.#seenUntil;
    return samples;
  }
}
