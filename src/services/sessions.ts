/** Sessions: created and prolonged by admission, read and ended here. Warm: the engine that ran its last task serves still. */
import { notFound, RefusalError } from '../core/errors.js';
import type { Database } from '../store/database.js';
import { deleteSession, getSession, type SessionRow } from '../store/sessions.js';
import type { Fleet } from './fleet.js';
import { SessionCache } from './sessionCache.js';
import type { SessionEvictions } from './sessionEvictions.js';
import type { SessionPlaces } from './sessionPlaces.js';

export class Sessions {
  readonly #db: Database;
  readonly #places: SessionPlaces;
  readonly #fleet: Fleet;
  readonly #evictions: Pick<SessionEvictions, 'wake'>;
  readonly #cache = new SessionCache();

  constructor(db: Database, places: SessionPlaces, fleet: Fleet, evictions: Pick<SessionEvictions, 'wake'>) {
    this.#db = db;
    this.#places = places;
    this.#fleet = fleet;
    this.#evictions = evictions;
  }

  /** Whether its next task can find what they have in common in a cache; known on the node whose engine that is. */
  isWarm(sessionId: string): boolean {
    const place = this.#places.known(sessionId.toLowerCase());
    if (place === null || !this.#fleet.poolIds().includes(place.poolId)) return false;
    return this.#fleet.ready(place.poolId).some((replica) => replica.adapter === place.adapter);
  }

  /** What its last task left in the cache of a slot, bytes; 0: it is cold, or not known. */
  async kvBytes(sessionId: string): Promise<number> {
    const held = this.isWarm(sessionId) ? this.#places.held(sessionId.toLowerCase()) : null;
    return held === null ? 0 : this.#cache.bytes(held);
  }

  /** null: there is none, or it has expired. */
  find(sessionId: string): Promise<SessionRow | null> {
    return getSession(this.#db, sessionId.toLowerCase());
  }

  /** @throws RefusalError not_found */
  async get(sessionId: string): Promise<SessionRow> {
    const session = await this.find(sessionId);
    if (session === null) throw new RefusalError(notFound('session_id', `session ${sessionId} not found`));
    return session;
  }

  /** What the engine's cache has of it is dropped right after, where it runs. @throws RefusalError not_found */
  async delete(sessionId: string): Promise<void> {
    this.#places.forget(sessionId.toLowerCase());
    const wasLive = await deleteSession(this.#db, sessionId.toLowerCase());
    this.#evictions.wake();
    if (wasLive) return;
    throw new RefusalError(notFound('session_id', `session ${sessionId} not found`));
  }
}
