/** A waiting task that names another model than its pool serves by now: where it may go instead, and how it ends. Pure. */
import type { Engine, TaskFailure } from './errors.js';
import {
  AUTO_PLACEMENT,
  type CandidateVerdict,
  choosePool,
  type PlacementExplanation,
  type PlacementRule,
  type PoolCandidate,
} from './placement.js';
import type { Workload } from './workload.js';

/** What its caller demanded. These verdicts hold for as long as the task does; the others are of one moment. */
const CALLERS_RULES: ReadonlySet<PlacementRule> = new Set(['PIN', 'DEVICE_MASK', 'AVOIDED', 'FALLBACK']);

export interface StrandedTask {
  readonly poolId: string;
  readonly workload: Workload;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly ctx: number;
  /** Until its deadline, ms. */
  readonly remainingMs: number;
  /** How it was placed when it came. */
  readonly told: PlacementExplanation;
}

function isOpen({ broken }: CandidateVerdict): boolean {
  return broken.every(({ rule }) => !CALLERS_RULES.has(rule));
}

/**
 * Places it anew among the pools that its caller left open when it came. One that was not there then is none of them: what
 * was demanded is known by the verdicts alone. What the caller preferred is still preferred.
 */
export function replaced(task: StrandedTask, pools: readonly PoolCandidate[]): PlacementExplanation {
  const { told, remainingMs, ...wanted } = task;
  const open = new Set(told.candidates.filter(isOpen).map(({ poolId }) => poolId));
  const preferPools = told.candidates.filter(({ preferred }) => preferred).map(({ poolId }) => poolId);
  const { explanation } = choosePool(
    { ...wanted, deadlineMs: remainingMs, placement: { ...AUTO_PLACEMENT, preferPools } },
    pools.filter(({ id }) => open.has(id) && id !== task.poolId),
  );
  const before = told.candidates.filter(
    (verdict) => !explanation.candidates.some((now) => now.poolId === verdict.poolId),
  );
  const closed = before.map((verdict) => ({ ...verdict, rank: null }));
  return { ...explanation, candidates: [...explanation.candidates, ...closed] };
}

const RETRY_AFTER_MS = 1_000;

/** How it ends when no other pool can have it. @param serves what its pool was given. */
export function strandedFailure({ poolId, modelRef }: StrandedTask, serves: string): TaskFailure {
  const what = serves === modelRef ? 'another engine' : `the model ${serves} in place of ${modelRef}`;
  return {
    code: 'POOL_UNAVAILABLE',
    message: `a reload gave pool ${poolId} ${what} while the task waited, and no other pool could take it`,
    retriable: true,
    retryAfterMs: RETRY_AFTER_MS,
  };
}
