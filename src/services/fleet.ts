/** What the data plane may know of replicas. Supervision implements it; nobody else touches an engine process. */
import type { Engine } from '../core/errors.js';
import type { PoolCandidate } from '../core/placement.js';
import type { Reason } from '../core/pool.js';
import type { EngineAdapter } from '../engines/adapter.js';
import type { DeterminismClaim } from '../engines/launch.js';

/** What a run's repeatability depends on, as far as it is known; kept with every task's transcript. */
export interface EngineRun {
  readonly engineVersion: string;
  readonly modelId: string | null;
  readonly modelDigest: string | null;
  /** Arguments the engine was started with, secrets masked; null: somebody else started it. */
  readonly launchArgs: readonly string[] | null;
  readonly gpuUuids: readonly string[];
  readonly determinism: DeterminismClaim;
}

export interface ReadyReplica {
  readonly id: string;
  readonly poolId: string;
  readonly engine: Engine;
  /** What its engine was started with: while a pool is given another model, its replicas differ. */
  readonly modelRef: string;
  readonly engineVersion: string;
  readonly run: EngineRun;
  readonly slots: number;
  readonly vramFreeBytes: number;
  readonly adapter: EngineAdapter;
  /** The GGUF file it serves; null: it serves none, or none that is ours to read. */
  readonly modelFile: string | null;
}

export interface PoolLimits {
  /** Longest a task may hold a slot, ms. */
  readonly wallMs: number;
  readonly slotsTotal: number;
  readonly fullPolicy: 'reject' | 'drop-lru' | 'shed-low-priority';
}

export interface Fleet {
  poolIds(): readonly string[];
  /** Pools as placement sees them; slots and queue depth are filled in by the data plane. */
  candidates(): readonly Omit<PoolCandidate, 'slotsFree' | 'queueDepth'>[];
  limits(poolId: string): PoolLimits;
  /** Replicas of this node that take tasks now. */
  ready(poolId: string): readonly ReadyReplica[];
  /** Slots of a pool's replicas that are ready on other nodes, as of a second ago. */
  slotsElsewhere(poolId: string): { readonly ready: number; readonly free: number };
  /**
   * The engine's process is stopped, then started anew. Resolves once the old one is gone. Nothing happens when the
   * replica has another engine than `only` by now.
   */
  recycle(replicaId: string, why: Recycle, only?: EngineAdapter): Promise<void>;
  /** It hung, or its connection was lost: it is not offered again before it has given such a sign of life. */
  doubt(replicaId: string, sign: Sign): void;
  /** Feeds the health by progress: an engine that just gave a token is alive. */
  progressed(replicaId: string, progress: Progress): void;
}

/** What an engine must give before it is offered again: an answer, or a token. */
export type Sign = 'answer' | 'token';

export interface Recycle {
  readonly reason: Reason;
  /** True: it failed, which counts towards backoff and quarantine. False: somebody wanted it. */
  readonly blame: boolean;
}

/** Of one task; null: not known. */
export interface Progress {
  readonly firstTokenMs: number | null;
  readonly tokensPerSecond: number | null;
}
