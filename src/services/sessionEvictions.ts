/**
 * Lets go of what an engine's cache holds of sessions that were deleted or have expired. That is a row, found by the node
 * whose engine it is; where the engine cannot be told, its cache is overwritten by whatever runs in the slot next.
 */
import { Reconciler } from '../runtime/reconciler.js';
import type { Database } from '../store/database.js';
import { type Eviction, expireSessions, listEvictions, settleEvictions } from '../store/sessions.js';
import type { Fleet, ReadyReplica } from './fleet.js';
import type { LeaseKeeper } from './leases.js';
import type { SessionPlaces } from './sessionPlaces.js';

const LOOK_EVERY_MS = 1_000;
const EXPIRE_AT_ONCE = 500;
/** No session lives longer: its node is gone, and the cache with it, or somebody else's by now. */
const STALE_MS = 600_000;
const EVICT_DEADLINE_MS = 5_000;

export interface SessionEvictionsDeps {
  readonly db: Database;
  readonly fleet: Fleet;
  readonly leases: Pick<LeaseKeeper, 'takenSlots'>;
  readonly places: SessionPlaces;
  readonly onError: (name: string, error: unknown) => void;
}

export class SessionEvictions {
  readonly #deps: SessionEvictionsDeps;
  readonly #loop: Reconciler;

  constructor(deps: SessionEvictionsDeps) {
    this.#deps = deps;
    this.#loop = new Reconciler({
      name: 'session evictions',
      intervalMs: LOOK_EVERY_MS,
      run: (signal) => this.#look(signal),
      onError: deps.onError,
    });
  }

  start(): void {
    this.#loop.start();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  /** A session was deleted here. */
  wake(): void {
    this.#loop.wake();
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { db, fleet } = this.#deps;
    await expireSessions(db, EXPIRE_AT_ONCE);
    const replicas = new Map(fleet.poolIds().flatMap((poolId) => fleet.ready(poolId).map((own) => [own.id, own])));
    const evictions = await listEvictions(db, [...replicas.keys()], STALE_MS);
    for (const eviction of evictions) {
      const replica = replicas.get(eviction.replicaId);
      if (signal.aborted) return;
      if (replica === undefined) continue;
      // One that fails is not tried again: what runs there next overwrites it.
      await this.#evict(eviction, replica).catch((error: unknown) => this.#deps.onError('session eviction', error));
    }
    if (evictions.length > 0) await settleEvictions(db, evictions);
  }

  /** Only what is known to be of that session: a slot that runs, or ran another one since, holds nothing of it. */
  async #evict({ sessionId, slot, atMs }: Eviction, { id, adapter }: ReadyReplica): Promise<void> {
    const { leases, places } = this.#deps;
    if (!places.gone(sessionId, atMs, adapter, slot) || leases.takenSlots(id).has(slot)) return;
    await adapter.evict?.(slot, AbortSignal.timeout(EVICT_DEADLINE_MS));
  }
}
