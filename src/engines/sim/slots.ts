/**
 * Decoding slots. A request runs in one slot; when the slot it wants, or every slot, is taken, it is deferred, and a
 * freed slot goes to the request deferred longest among those that may have it. There is no bound on the deferred.
 */

export interface Slot {
  readonly id: number;
  /** What the slot runs now, or ran last. */
  task: SlotTask | null;
  busy: boolean;
  /** Ids of the tokens whose keys and values it still holds: the last prompt and its answer. */
  cache: readonly number[];
  /** Orders idle slots by how long they have been idle. */
  freedAt: number;
}

export interface SlotTask {
  readonly id: number;
  readonly promptTokens: number;
  /** Of these, how many were in the slot's cache. */
  readonly cachedTokens: number;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly maxTokens: number;
  decoded: number;
  /** Whether its text so far has a line break. */
  hasNewLine: boolean;
}

interface Deferred {
  readonly wantedSlot: number | null;
  readonly grant: (slot: Slot) => void;
}

export class SlotPool {
  readonly slots: readonly Slot[];
  #deferred: Deferred[] = [];
  #releases = 0;
  #nextTaskId = 0;

  constructor(count: number) {
    this.slots = Array.from({ length: count }, (_, id) => ({ id, task: null, busy: false, cache: [], freedAt: 0 }));
  }

  get deferredCount(): number {
    return this.#deferred.length;
  }

  get busyCount(): number {
    return this.slots.filter(({ busy }) => busy).length;
  }

  takeTaskId(): number {
    this.#nextTaskId += 1;
    return this.#nextTaskId;
  }

  /** Waits for a slot: `idSlot` modulo the slot count, or any when negative. The caller must release it. */
  async acquire(idSlot: number, signal: AbortSignal): Promise<Slot> {
    signal.throwIfAborted();
    const wantedSlot = idSlot < 0 ? null : idSlot % this.slots.length;
    const idle = this.#idleSlot(wantedSlot);
    if (idle !== null) {
      idle.busy = true;
      return idle;
    }
    return new Promise((resolve, reject) => {
      const deferred: Deferred = {
        wantedSlot,
        grant: (slot) => {
          signal.removeEventListener('abort', onAbort);
          resolve(slot);
        },
      };
      const onAbort = (): void => {
        this.#deferred = this.#deferred.filter((other) => other !== deferred);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#deferred.push(deferred);
    });
  }

  release(slot: Slot): void {
    const next = this.#deferred.findIndex(({ wantedSlot }) => wantedSlot === null || wantedSlot === slot.id);
    const [heir] = next === -1 ? [] : this.#deferred.splice(next, 1);
    if (heir !== undefined) {
      heir.grant(slot); // stays busy: it passes on without an idle moment
      return;
    }
    this.#releases += 1;
    slot.freedAt = this.#releases;
    slot.busy = false;
  }

  #idleSlot(wantedSlot: number | null): Slot | null {
    let best: Slot | null = null;
    for (const slot of this.slots) {
      if (slot.busy || (wantedSlot !== null && wantedSlot !== slot.id)) continue;
      if (best === null || slot.freedAt < best.freedAt) best = slot;
    }
    return best;
  }
}
