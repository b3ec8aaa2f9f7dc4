/**
 * Where the task of each session ran last: there its next one goes when it can, as the cache of that engine may still
 * hold what they have in common. The database keeps the place for the claim; memory knows the very engine process, which a
 * restart replaces, and so whether the cache can be warm.
 */
import type { EngineAdapter } from '../engines/adapter.js';
import { Batcher } from '../runtime/batcher.js';
import type { Clock } from '../runtime/clock.js';
import type { Database } from '../store/database.js';
import { getSession, type SessionPlace, writePlaces } from '../store/sessions.js';
import type { ClaimedTask } from '../store/tasks.js';
import type { ReadyReplica } from './fleet.js';

const MAX_SESSIONS = 20_000;
const MAX_BATCH = 256;
const MAX_WAITING = 4_096;

/** What a slot's cache was left with by a session's last task. */
export interface HeldCache {
  readonly modelFile: string | null;
  readonly tokens: number;
}

interface SlotCache {
  readonly sessionId: string;
  readonly admittedAtMs: number;
  /** 0: not known. */
  readonly tokens: number;
}

interface Place {
  readonly replicaId: string;
  readonly slot: number;
  readonly modelFile: string | null;
  readonly poolId: string;
  readonly adapter: EngineAdapter;
  readonly untilMs: number;
}

export interface SessionPlacesDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly ttlMs: number;
}

export class SessionPlaces {
  readonly #deps: SessionPlacesDeps;
  /** In the order of their last use; the one that was not used for longest is forgotten first. */
  readonly #places = new Map<string, Place>();
  /** Whose the cache of each slot is by now, and how much of it, once its run has ended. */
  readonly #slots = new WeakMap<EngineAdapter, Map<number, SlotCache>>();
  readonly #writer: Batcher<SessionPlace, boolean>;

  constructor(deps: SessionPlacesDeps) {
    this.#deps = deps;
    this.#writer = new Batcher({
      maxItems: MAX_BATCH,
      maxWaiting: MAX_WAITING,
      write: async (places) => {
        const there = await writePlaces(deps.db, places, deps.ttlMs);
        return places.map(({ sessionId }) => there.has(sessionId));
      },
      overflow: () => new Error('too many session places wait to be written'),
    });
  }

  /** Its engine has read the prompt. Resolves when the next claim can know. */
  async ran(
    { sessionId, slot, createdAt }: ClaimedTask,
    { adapter, modelFile, ...replica }: ReadyReplica,
  ): Promise<void> {
    const admittedAtMs = createdAt.getTime();
    const untilMs = admittedAtMs + this.#deps.ttlMs;
    const place = { replicaId: replica.id, poolId: replica.poolId, slot, modelFile, adapter, untilMs };
    this.#take(adapter, slot, { sessionId, admittedAtMs, tokens: 0 });
    this.#places.delete(sessionId);
    this.#places.set(sessionId, place);
    const [oldest] = this.#places.keys();
    if (this.#places.size > MAX_SESSIONS && oldest !== undefined) this.#places.delete(oldest);
    const isThere = await this.#writer.submit({ sessionId, replicaId: replica.id, slot, admittedAtMs });
    // Deleted while the task ran: nothing of it can be reused.
    if (!isThere && this.#places.get(sessionId) === place) this.#places.delete(sessionId);
  }

  /** Its run left so many tokens in the slot. */
  ended({ sessionId, slot, createdAt }: ClaimedTask, { adapter }: ReadyReplica, tokens: number): void {
    const admittedAtMs = createdAt.getTime();
    if (this.#holds(sessionId, adapter, slot)) this.#take(adapter, slot, { sessionId, admittedAtMs, tokens });
  }

  /**
   * The session has gone at that time, wherever it was ended. One of the same id that came after it is left alone.
   * @returns whether the cache of that slot is its own still: no task of another one has run there since.
   */
  gone(sessionId: string, atMs: number, adapter: EngineAdapter, slot: number): boolean {
    const place = this.#places.get(sessionId);
    if (place !== undefined && place.untilMs - this.#deps.ttlMs < atMs) this.#places.delete(sessionId);
    const held = this.#slots.get(adapter)?.get(slot);
    if (held === undefined || held.sessionId !== sessionId || held.admittedAtMs >= atMs) return false;
    return this.#slots.get(adapter)?.delete(slot) ?? false;
  }

  #holds(sessionId: string, adapter: EngineAdapter, slot: number): boolean {
    return this.#slots.get(adapter)?.get(slot)?.sessionId === sessionId;
  }

  /** What is held of a session; null: nothing, or it is not known here. */
  held(sessionId: string): HeldCache | null {
    const place = this.#places.get(sessionId);
    if (place === undefined || !this.#holds(sessionId, place.adapter, place.slot)) return null;
    const tokens = this.#slots.get(place.adapter)?.get(place.slot)?.tokens ?? 0;
    return { modelFile: place.modelFile, tokens };
  }

  #take(adapter: EngineAdapter, slot: number, cache: SlotCache): void {
    const slots = this.#slots.get(adapter) ?? new Map<number, SlotCache>();
    slots.set(slot, cache);
    this.#slots.set(adapter, slots);
  }

  /** Whether a task of that session, admitted then, may find its prompt in the cache of this engine. */
  isWarm(sessionId: string, replica: ReadyReplica, admittedAtMs: number): boolean {
    const place = this.#places.get(sessionId);
    return place !== undefined && place.adapter === replica.adapter && admittedAtMs < place.untilMs;
  }

  /** Where the session ran last, if that is known here and not too long ago. */
  known(
    sessionId: string,
  ): { readonly replicaId: string; readonly poolId: string; readonly adapter: EngineAdapter } | null {
    const place = this.#places.get(sessionId);
    return place !== undefined && this.#deps.clock.nowMs() < place.untilMs ? place : null;
  }

  /** The replica that ran its last task, wherever that was written down. */
  async lastReplica(sessionId: string): Promise<string | null> {
    const place = this.known(sessionId);
    if (place !== null) return place.replicaId;
    const session = await getSession(this.#deps.db, sessionId);
    const isRecent = (session?.kvUntil?.getTime() ?? 0) > this.#deps.clock.nowMs();
    return isRecent ? (session?.lastReplicaId ?? null) : null;
  }

  forget(sessionId: string): void {
    this.#places.delete(sessionId);
  }
}
