/**
 * Which pool a task goes to, and which replica runs it. Deterministic, and able to say why: every candidate carries the
 * verdict of the rule that refused it, or its score parts. The same functions answer what-if questions.
 */
import { type Engine, invalid, type Refusal, unavailable } from './errors.js';

export interface PlacementOverrides {
  readonly mode: 'pin' | 'prefer' | 'auto';
  readonly pinPoolId: string | null;
  readonly preferPools: readonly string[];
  readonly avoidPools: readonly string[];
  readonly requireDeviceMask: string | null;
  readonly allowFallback: boolean;
}

export const AUTO_PLACEMENT: PlacementOverrides = {
  mode: 'auto',
  pinPoolId: null,
  preferPools: [],
  avoidPools: [],
  requireDeviceMask: null,
  allowFallback: true,
};

export interface PoolCandidate {
  readonly id: string;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly contextLength: number;
  readonly deviceMask: string;
  readonly draining: boolean;
  readonly ready: boolean;
  /** False when no replica of it is up or coming up by itself: a task queued there would wait for an operator. */
  readonly recoverable: boolean;
  readonly slotsFree: number;
  readonly queueDepth: number;
}

export interface PlacementRequest {
  readonly engine: Engine;
  readonly modelRef: string;
  readonly ctx: number;
  readonly placement: PlacementOverrides;
}

export interface CandidateVerdict {
  readonly poolId: string;
  /** null: feasible. */
  readonly refusedBecause: string | null;
  readonly preferred: boolean;
  readonly ready: boolean;
  readonly slotsFree: number;
  readonly queueDepth: number;
}

export interface PlacementExplanation {
  readonly candidates: readonly CandidateVerdict[];
  readonly chosen: string | null;
  readonly rule: string;
}

export type PlacementOutcome =
  | { readonly ok: true; readonly poolId: string; readonly explanation: PlacementExplanation }
  | { readonly ok: false; readonly refusal: Refusal; readonly explanation: PlacementExplanation };

function refusedBecause(pool: PoolCandidate, request: PlacementRequest): string | null {
  const { placement } = request;
  if (pool.engine !== request.engine) return `engine is ${pool.engine}, not ${request.engine}`;
  if (pool.modelRef !== request.modelRef) return `model is ${pool.modelRef}, not ${request.modelRef}`;
  if (request.ctx > pool.contextLength) return `ctx ${request.ctx} is above the pool's ${pool.contextLength}`;
  if (placement.requireDeviceMask !== null && placement.requireDeviceMask !== pool.deviceMask) {
    return `device mask is ${pool.deviceMask}, not ${placement.requireDeviceMask}`;
  }
  if (placement.avoidPools.includes(pool.id)) return 'avoided by the request';
  if (pool.draining) return 'draining';
  if (!pool.recoverable) return 'unready, and no replica will come back by itself';
  return null;
}

/** Ready first, then preferred, then free slots, then the shorter queue, then the id: total, so ties cannot differ. */
function compareCandidates(a: CandidateVerdict, b: CandidateVerdict): number {
  return (
    Number(b.ready) - Number(a.ready) ||
    Number(b.preferred) - Number(a.preferred) ||
    b.slotsFree - a.slotsFree ||
    a.queueDepth - b.queueDepth ||
    (a.poolId < b.poolId ? -1 : 1)
  );
}

/**
 * Chooses the pool. A pool that is starting is feasible: its queue holds the task. With `pin` there is no fallback; with
 * `prefer` and `allow_fallback: false` only the preferred pools count.
 */
export function choosePool(request: PlacementRequest, pools: readonly PoolCandidate[]): PlacementOutcome {
  const { placement } = request;
  const considered = placement.mode === 'pin' ? pools.filter((pool) => pool.id === placement.pinPoolId) : pools;
  const candidates = considered.map((pool) => {
    const preferred = placement.preferPools.includes(pool.id);
    const outside = placement.mode === 'prefer' && !placement.allowFallback && !preferred;
    return {
      poolId: pool.id,
      refusedBecause: refusedBecause(pool, request) ?? (outside ? 'not preferred, and fallback is off' : null),
      preferred,
      ready: pool.ready,
      slotsFree: pool.slotsFree,
      queueDepth: pool.queueDepth,
    };
  });
  const best = candidates.filter((candidate) => candidate.refusedBecause === null).sort(compareCandidates)[0];
  const rule = placement.mode === 'pin' ? 'pin' : 'ready, preferred, free slots, queue depth, id';
  const explanation = { candidates, chosen: best?.poolId ?? null, rule };
  if (best !== undefined) return { ok: true, poolId: best.poolId, explanation };
  return { ok: false, refusal: whyNone(request, pools, candidates), explanation };
}

/** The refusal that helps most: names the one input that no pool could meet. */
function whyNone(
  request: PlacementRequest,
  pools: readonly PoolCandidate[],
  candidates: readonly CandidateVerdict[],
): Refusal {
  const { placement } = request;
  if (placement.mode === 'pin' && candidates.length === 0) {
    return invalid('placement.pin_pool_id', `there is no pool "${placement.pinPoolId ?? ''}"`);
  }
  const ofEngine = pools.filter((pool) => pool.engine === request.engine);
  if (ofEngine.length === 0) return invalid('engine', `no pool runs the engine ${request.engine}`);
  const ofModel = ofEngine.filter((pool) => pool.modelRef === request.modelRef);
  if (ofModel.length === 0) {
    return invalid('model_ref', `no ${request.engine} pool serves the model "${request.modelRef}"`);
  }
  const longest = Math.max(...ofModel.map((pool) => pool.contextLength));
  if (request.ctx > longest) return invalid('ctx', `${request.ctx} is above the largest context offered, ${longest}`);
  const only = candidates.map((candidate) => `${candidate.poolId}: ${candidate.refusedBecause}`).join('; ');
  if (candidates.some((candidate) => candidate.refusedBecause === 'draining')) {
    return unavailable('POOL_UNAVAILABLE', `no pool takes this task now (${only})`, 1000);
  }
  if (candidates.some((candidate) => candidate.refusedBecause?.startsWith('unready') === true)) {
    return unavailable(
      'POOL_UNREADY',
      `no pool can run this task now (${only}); see notReadyBecause of the pool`,
      5000,
    );
  }
  return invalid('placement', `the placement leaves no pool (${only})`);
}

export interface ReplicaSlots {
  readonly replicaId: string;
  readonly vramFreeBytes: number;
  readonly freeSlots: readonly number[];
  readonly activeSlots: number;
}

/** Free slots in the order tasks should take them: most free VRAM, fewest active slots, lowest id; spread one by one. */
export function slotOrder(replicas: readonly ReplicaSlots[]): { replicaId: string; slot: number }[] {
  const order: { replicaId: string; slot: number }[] = [];
  const left = replicas.map((replica) => ({ ...replica, taken: 0 }));
  for (;;) {
    const open = left.filter((replica) => replica.taken < replica.freeSlots.length);
    open.sort(
      (a, b) =>
        b.vramFreeBytes - a.vramFreeBytes ||
        a.activeSlots + a.taken - (b.activeSlots + b.taken) ||
        (a.replicaId < b.replicaId ? -1 : 1),
    );
    const best = open[0];
    const slot = best?.freeSlots[best.taken];
    if (best === undefined || slot === undefined) return order;
    order.push({ replicaId: best.replicaId, slot });
    best.taken += 1;
  }
}
