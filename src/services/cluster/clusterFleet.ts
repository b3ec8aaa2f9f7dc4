/**
 * The pools of all nodes, to the data plane: any of them is admitted to here. Replicas are those of this node alone, since
 * a node runs tasks on its own engines only.
 */
import type { PoolCandidate } from '../../core/placement.js';
import { offersOf } from '../../core/workload.js';
import type { EngineAdapter } from '../../engines/adapter.js';
import { DIALECTS } from '../../engines/dialects.js';
import type { PoolElsewhere } from '../../store/nodes.js';
import type { Fleet, PoolLimits, Progress, ReadyReplica, Recycle, Sign } from '../fleet.js';
import type { Elsewhere } from './elsewhere.js';

/** That of this node alone. */
type FleetHere = Omit<Fleet, 'slotsElsewhere'>;
type Candidate = Omit<PoolCandidate, 'slotsFree' | 'queueDepth'>;

export class ClusterFleet implements Fleet {
  readonly #here: FleetHere;
  readonly #elsewhere: Elsewhere;

  constructor(here: FleetHere, elsewhere: Elsewhere) {
    this.#here = here;
    this.#elsewhere = elsewhere;
  }

  poolIds(): readonly string[] {
    return this.#here.poolIds();
  }

  candidates(): readonly Candidate[] {
    const here = this.#here.candidates().map((pool) => together(pool, this.#elsewhere.pool(pool.id)));
    const known = new Set(here.map(({ id }) => id));
    const others = [...this.#elsewhere.pools()].filter(({ id }) => !known.has(id)).map(candidateOf);
    return [...here, ...others];
  }

  limits(poolId: string): PoolLimits {
    const there = this.#elsewhere.pool(poolId);
    if (this.#isHere(poolId)) {
      const limits = this.#here.limits(poolId);
      if (there === null) return limits;
      // The row decides on a full queue, and was written by the node that brought the pool first.
      return { ...limits, slotsTotal: limits.slotsTotal + there.slotsTotal, fullPolicy: there.fullPolicy };
    }
    if (there === null) throw new Error(`no node has pool ${poolId}`);
    const { wallMs, slotsTotal, fullPolicy } = there;
    return { wallMs, slotsTotal, fullPolicy };
  }

  ready(poolId: string): readonly ReadyReplica[] {
    return this.#isHere(poolId) ? this.#here.ready(poolId) : [];
  }

  slotsElsewhere(poolId: string): { readonly ready: number; readonly free: number } {
    const there = this.#elsewhere.pool(poolId);
    if (there === null || there.draining) return { ready: 0, free: 0 };
    return { ready: there.slotsReady, free: Math.max(0, there.slotsFree) };
  }

  recycle(replicaId: string, why: Recycle, only?: EngineAdapter): Promise<void> {
    return this.#here.recycle(replicaId, why, only);
  }

  doubt(replicaId: string, sign: Sign): void {
    this.#here.doubt(replicaId, sign);
  }

  progressed(replicaId: string, progress: Progress): void {
    this.#here.progressed(replicaId, progress);
  }

  #isHere(poolId: string): boolean {
    return this.#here.poolIds().includes(poolId);
  }
}

/** A pool of several nodes: what this one says of it, but that the others may serve it while this one cannot. */
function together(here: Candidate, there: PoolElsewhere | null): Candidate {
  if (there === null) return here;
  return { ...here, ready: here.ready || there.ready, recoverable: here.recoverable || there.recoverable };
}

function candidateOf(pool: PoolElsewhere): Candidate {
  const { id, engine, modelRef, contextLength, deviceMask, draining, ready, recoverable } = pool;
  const dialect = DIALECTS[engine];
  const workloads = pool.workloads.length === 0 ? dialect.workloads(null) : pool.workloads;
  const offers = offersOf(workloads, dialect.workloadFixes);
  return { id, engine, modelRef, contextLength, deviceMask, draining, ready: ready && !draining, recoverable, offers };
}
