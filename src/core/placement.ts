/**
 * Which pool a task goes to, and which replica runs it. Deterministic, and able to say why: every candidate carries the
 * verdict of the rule that refused it, or its score parts. The same functions answer what-if questions.
 */
import { type Engine, invalid, type Refusal, unavailable } from './errors.js';
import { isNamed } from './modelRef.js';
import { shownRef } from './shownRef.js';
import { NO_FIX, type Offers, type Workload } from './workload.js';

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
  /** By which its model may be asked for besides. */
  readonly names?: readonly string[];
  readonly contextLength: number;
  readonly deviceMask: string;
  readonly draining: boolean;
  readonly ready: boolean;
  /** False when no replica of it is up or coming up by itself: a task queued there would wait for an operator. */
  readonly recoverable: boolean;
  /** What has to be brought for it to come back, and how. */
  readonly lacks?: string;
  readonly slotsFree: number;
  readonly queueDepth: number;
  /** Of the replica with most free; what is left out below is not known. */
  readonly vramFreeBytes?: number;
  /** It holds the replica that ran the session's last task, and that replica serves. */
  readonly sessionHere?: boolean;
  readonly forecast?: Forecast;
  /** Left out: completions alone. */
  readonly offers?: Offers;
}

const COMPLETIONS_ALONE: Offers = { completion: null, embedding: NO_FIX, rerank: NO_FIX };

/** What would become of the task there, counted from now, ms; null: too little has been measured. */
export interface Forecast {
  /** The whole rounds of all slots that the tasks ahead fill: hardly any start is earlier. */
  readonly earliestMs: number | null;
  /** As likely earlier as later. */
  readonly startMs: number | null;
  /** Start, first token and all tokens that the task may have. */
  readonly endMs: number | null;
}

const NO_FORECAST: Forecast = { earliestMs: null, startMs: null, endMs: null };

export interface PlacementRequest {
  readonly workload: Workload;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly ctx: number;
  readonly placement: PlacementOverrides;
  /** A pool where it would start later than this cannot serve it, ms. */
  readonly deadlineMs: number;
}

/** In the order in which they are looked at; a pool is feasible when it keeps them all. */
export const PLACEMENT_RULES = [
  'PIN',
  'ENGINE',
  'MODEL',
  'WORKLOAD',
  'CONTEXT',
  'DEVICE_MASK',
  'AVOIDED',
  'FALLBACK',
  'DRAINING',
  'UNREADY',
  'DEADLINE',
] as const;
export type PlacementRule = (typeof PLACEMENT_RULES)[number];

export interface BrokenRule {
  readonly rule: PlacementRule;
  readonly message: string;
}

export interface CandidateVerdict {
  readonly poolId: string;
  /** In words: the first rule that it breaks; null: feasible. */
  readonly refusedBecause: string | null;
  /** Every rule that it breaks. */
  readonly broken: readonly BrokenRule[];
  /** Place among the feasible, from 1; null: not feasible. */
  readonly rank: number | null;
  readonly ready: boolean;
  readonly preferred: boolean;
  readonly sessionHere: boolean;
  readonly forecast: Forecast;
  readonly slotsFree: number;
  readonly queueDepth: number;
  readonly vramFreeBytes: number;
}

export interface PlacementExplanation {
  readonly candidates: readonly CandidateVerdict[];
  readonly chosen: string | null;
  readonly rule: string;
}

export type PlacementOutcome =
  | { readonly ok: true; readonly poolId: string; readonly explanation: PlacementExplanation }
  | { readonly ok: false; readonly refusal: Refusal; readonly explanation: PlacementExplanation };

/** Why a pool breaks a rule, in words; null: it keeps it. */
const VERDICTS: Readonly<Record<PlacementRule, (pool: PoolCandidate, request: PlacementRequest) => string | null>> = {
  PIN: (pool, { placement }) =>
    placement.mode === 'pin' && placement.pinPoolId !== pool.id ? 'not the pinned pool' : null,
  ENGINE: (pool, { engine }) => (pool.engine === engine ? null : `engine is ${pool.engine}, not ${engine}`),
  MODEL: (pool, { modelRef }) =>
    isNamed(modelRef, pool) ? null : `model is ${pool.modelRef}, not ${shownRef(modelRef)}`,
  WORKLOAD: ({ offers = COMPLETIONS_ALONE }, { workload }) =>
    offers[workload] === null ? null : `does not take ${workload} tasks: ${offers[workload]}`,
  CONTEXT: (pool, { ctx }) =>
    ctx > pool.contextLength ? `ctx ${ctx} is above the pool's ${pool.contextLength}` : null,
  DEVICE_MASK: (pool, { placement: { requireDeviceMask: mask } }) =>
    mask === null || mask === pool.deviceMask ? null : `device mask is ${pool.deviceMask}, not ${mask}`,
  AVOIDED: (pool, { placement }) => (placement.avoidPools.includes(pool.id) ? 'avoided by the request' : null),
  FALLBACK: (pool, { placement }) =>
    placement.mode === 'prefer' && !placement.allowFallback && !placement.preferPools.includes(pool.id)
      ? 'not preferred, and fallback is off'
      : null,
  DRAINING: (pool) => (pool.draining ? 'draining' : null),
  UNREADY: ({ recoverable, lacks }) =>
    recoverable ? null : `unready, and no replica will come back by itself${lacks === undefined ? '' : `: ${lacks}`}`,
  DEADLINE: ({ forecast = NO_FORECAST }, { deadlineMs }) =>
    forecast.earliestMs !== null && forecast.earliestMs > deadlineMs
      ? `would not start within ${forecast.earliestMs} ms, and the deadline is ${deadlineMs} ms`
      : null,
};

function verdictOn(pool: PoolCandidate, request: PlacementRequest): Omit<CandidateVerdict, 'rank'> {
  const broken = PLACEMENT_RULES.flatMap((rule) => {
    const message = VERDICTS[rule](pool, request);
    return message === null ? [] : [{ rule, message }];
  });
  return {
    poolId: pool.id,
    refusedBecause: broken[0]?.message ?? null,
    broken,
    ready: pool.ready,
    preferred: request.placement.preferPools.includes(pool.id),
    sessionHere: pool.sessionHere ?? false,
    forecast: pool.forecast ?? NO_FORECAST,
    slotsFree: pool.slotsFree,
    queueDepth: pool.queueDepth,
    vramFreeBytes: pool.vramFreeBytes ?? 0,
  };
}

type Scored = Omit<CandidateVerdict, 'rank'>;

/** Total, so that ties cannot differ. Forecasts count only where every feasible pool has one: no number means nothing. */
function ranking(feasible: readonly Scored[]): { rule: string; compare: (a: Scored, b: Scored) => number } {
  const isForecast = feasible.every(({ forecast }) => forecast.endMs !== null);
  return {
    rule: `ready, preferred, session, ${isForecast ? 'predicted end, ' : ''}free slots, queue depth, free VRAM, id`,
    compare: (a, b) =>
      Number(b.ready) - Number(a.ready) ||
      Number(b.preferred) - Number(a.preferred) ||
      Number(b.sessionHere) - Number(a.sessionHere) ||
      (isForecast ? (a.forecast.endMs ?? 0) - (b.forecast.endMs ?? 0) : 0) ||
      b.slotsFree - a.slotsFree ||
      a.queueDepth - b.queueDepth ||
      b.vramFreeBytes - a.vramFreeBytes ||
      (a.poolId < b.poolId ? -1 : 1),
  };
}

/**
 * Chooses the pool. A pool that is starting is feasible: its queue holds the task. With `pin` there is no fallback; with
 * `prefer` and `allow_fallback: false` only the preferred pools count. What the caller prefers goes before the session's
 * cache, and that before the predicted end.
 */
export function choosePool(request: PlacementRequest, pools: readonly PoolCandidate[]): PlacementOutcome {
  const verdicts = pools.map((pool) => verdictOn(pool, request));
  const feasible = verdicts.filter((verdict) => verdict.broken.length === 0);
  const { rule, compare } = ranking(feasible);
  const order = [...feasible].sort(compare).map((verdict) => verdict.poolId);
  const candidates = verdicts.map((verdict) => {
    const place = order.indexOf(verdict.poolId);
    return { ...verdict, rank: place < 0 ? null : place + 1 };
  });
  const chosen = order[0] ?? null;
  const explanation = { candidates, chosen, rule: request.placement.mode === 'pin' ? 'pin' : rule };
  if (chosen !== null) return { ok: true, poolId: chosen, explanation };
  return { ok: false, refusal: whyNone(request, pools, candidates), explanation };
}

/** The refusal that helps most: names the one input that no pool could meet. */
function whyNone(
  request: PlacementRequest,
  pools: readonly PoolCandidate[],
  verdicts: readonly CandidateVerdict[],
): Refusal {
  const { placement } = request;
  const ofEngine = pools.filter((pool) => pool.engine === request.engine);
  const ofModel = ofEngine.filter((pool) => isNamed(request.modelRef, pool));
  if (placement.mode === 'pin' && !pools.some((pool) => pool.id === placement.pinPoolId)) {
    const missing =
      placement.pinPoolId === null ? 'is required with mode pin' : `there is no pool "${placement.pinPoolId}"`;
    return invalid('placement.pin_pool_id', missing);
  }
  if (ofEngine.length === 0) return invalid('engine', `no pool runs the engine ${request.engine}`);
  if (ofModel.length === 0) {
    return invalid('model_ref', `no ${request.engine} pool serves the model "${shownRef(request.modelRef)}"`);
  }
  const fixes = ofModel.map(({ offers = COMPLETIONS_ALONE }) => offers[request.workload]);
  const [fix] = fixes;
  if (fix != null && !fixes.includes(null)) {
    const pool = `no ${request.engine} pool that serves "${request.modelRef}" takes ${request.workload} tasks`;
    return invalid('workload', `${pool}: ${fix}`);
  }
  const longest = Math.max(...ofModel.map((pool) => pool.contextLength));
  if (request.ctx > longest) return invalid('ctx', `${request.ctx} is above the largest context offered, ${longest}`);
  return whyNoneNow(verdicts, request.deadlineMs);
}

const PASSING = new Set<PlacementRule>(['DRAINING', 'UNREADY', 'DEADLINE']);

/** Of pools that would do at another time, the one that is nearest to it decides; without any, the overrides do. */
function whyNoneNow(verdicts: readonly CandidateVerdict[], deadlineMs: number): Refusal {
  const asked = verdicts.filter(({ broken }) => !broken.some(({ rule }) => rule === 'PIN'));
  const only = asked.map((verdict) => `${verdict.poolId}: ${verdict.refusedBecause}`).join('; ');
  const waiting = verdicts.filter(({ broken }) => broken.every(({ rule }) => PASSING.has(rule)));
  const breaking = (rule: PlacementRule) => waiting.filter(({ broken }) => broken.some((one) => one.rule === rule));
  const late = breaking('DEADLINE').filter(({ broken }) => broken.length === 1);
  if (late.length > 0) {
    const earliestMs = Math.min(...late.map(({ forecast }) => forecast.earliestMs ?? 0));
    return deadlineUnmet(earliestMs, deadlineMs);
  }
  if (breaking('DRAINING').length > 0) {
    return unavailable('POOL_UNAVAILABLE', `no pool takes this task now (${only})`, 1000);
  }
  if (breaking('UNREADY').length > 0) {
    const message = `no pool can run this task now (${only}); see notReadyBecause of the pool`;
    return unavailable('POOL_UNREADY', message, 5000);
  }
  return invalid('placement', `the placement leaves no pool (${only})`);
}

/** Refused as input, and yet worth another try: the queue gets shorter. */
function deadlineUnmet(earliestMs: number, deadlineMs: number): Refusal {
  return {
    family: 'invalid',
    code: 'DEADLINE_UNMET',
    field: 'deadline_ms',
    message: `of ${deadlineMs} ms is over before the tasks ahead are served, which takes about ${earliestMs} ms`,
    retriable: true,
    retryAfterMs: Math.max(250, Math.min(30_000, earliestMs - deadlineMs)),
  };
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
