/**
 * The leases this node holds: renewed together, trusted on a monotonic clock of our own, given up before Postgres could
 * give them to somebody else.
 */
import { LEASE_RENEW_EVERY_MS, LEASE_TTL_MS, trustedUntilMs } from '../core/lease.js';
import type { Clock } from '../runtime/clock.js';
import { Reconciler } from '../runtime/reconciler.js';
import type { Database } from '../store/database.js';
import { releaseLease, renewLeases } from '../store/leases.js';

const SELF_FENCE_CHECK_MS = 500;

export interface HeldLease {
  readonly id: string;
  readonly replicaId: string;
  readonly slot: number;
  /** The lease is not ours any more, or may soon not be: stop the engine request, write nothing. */
  readonly onFenced: () => void;
}

interface Held extends HeldLease {
  trustedUntilMs: number;
  coResidentMax: number;
  fenced: boolean;
}

export class LeaseKeeper {
  readonly holder: string;
  readonly #db: Database;
  readonly #clock: Clock;
  readonly #held = new Map<string, Held>();
  #newestId = 0n;
  readonly #renewer: Reconciler;
  readonly #fence: Reconciler;

  constructor(db: Database, clock: Clock, holder: string, onError: (name: string, error: unknown) => void) {
    this.#db = db;
    this.#clock = clock;
    this.holder = holder;
    this.#renewer = new Reconciler({
      name: 'lease renewal',
      intervalMs: LEASE_RENEW_EVERY_MS,
      run: () => this.#renew(),
      onError,
    });
    this.#fence = new Reconciler({
      name: 'lease self-fence',
      intervalMs: SELF_FENCE_CHECK_MS,
      run: async () => this.#fenceOverdue(),
      onError,
    });
  }

  start(): void {
    this.#renewer.start();
    this.#fence.start();
  }

  async stop(): Promise<void> {
    await Promise.all([this.#renewer.stop(), this.#fence.stop()]);
  }

  /** The last lease that this node knows it was given: one of its own with a higher number is one that it missed. */
  get newestId(): string {
    return String(this.#newestId);
  }

  get count(): number {
    return this.#held.size;
  }

  /** @param claimStartedMs monotonic time at which the claim was sent. */
  hold(lease: HeldLease, claimStartedMs: number): void {
    if (BigInt(lease.id) > this.#newestId) this.#newestId = BigInt(lease.id);
    this.#held.set(lease.id, {
      ...lease,
      trustedUntilMs: trustedUntilMs(claimStartedMs),
      fenced: false,
      coResidentMax: 0,
    });
    const company = [...this.#held.values()].filter(({ replicaId }) => replicaId === lease.replicaId);
    for (const held of company) held.coResidentMax = Math.max(held.coResidentMax, company.length - 1);
  }

  /** Most other tasks that had a slot of its replica at one time, since it was claimed; null when it is not held here. */
  coResidentMax(leaseId: string): number | null {
    return this.#held.get(leaseId)?.coResidentMax ?? null;
  }

  /** Whether the holder may still act under it. */
  isTrusted(leaseId: string): boolean {
    const held = this.#held.get(leaseId);
    return held !== undefined && !held.fenced && this.#clock.monotonicMs() < held.trustedUntilMs;
  }

  takenSlots(replicaId: string): ReadonlySet<number> {
    const taken = new Set<number>();
    for (const lease of this.#held.values()) {
      if (lease.replicaId === replicaId) taken.add(lease.slot);
    }
    return taken;
  }

  /** The lease was ended in the database by the statement that ended the task. */
  forget(leaseId: string): void {
    this.#held.delete(leaseId);
  }

  /** Held on, and renewed, where that fails: whoever asked tries again, or forgets it. */
  async release(leaseId: string, reason: string): Promise<void> {
    await releaseLease(this.#db, leaseId, reason);
    this.#held.delete(leaseId);
  }

  async #renew(): Promise<void> {
    const ids = [...this.#held.values()].filter((lease) => !lease.fenced).map((lease) => lease.id);
    if (ids.length === 0) return;
    const startedMs = this.#clock.monotonicMs();
    const ours = await renewLeases(this.#db, { ids, holder: this.holder, ttlMs: LEASE_TTL_MS });
    for (const id of ids) {
      const held = this.#held.get(id);
      if (held === undefined) continue;
      if (ours.has(id)) held.trustedUntilMs = trustedUntilMs(startedMs);
      else this.#fenceOne(held);
    }
  }

  #fenceOverdue(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const held of this.#held.values()) {
      if (!held.fenced && nowMs >= held.trustedUntilMs) this.#fenceOne(held);
    }
  }

  #fenceOne(held: Held): void {
    held.fenced = true;
    held.onFenced();
  }
}
