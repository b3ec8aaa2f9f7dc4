/**
 * The models of the catalog and the rules on their use.
 *
 *   Active ──retire──► Retired ──deadline──► the pools that serve it are drained
 *     ▲                   │
 *     └────reactivate─────┘
 *
 * A retired model takes no new task from the moment it is retired. An entry's own name decides for a task that uses it; a
 * task that names the model as its pool does is refused when no entry of that model would take it.
 */
import type { Refusal } from './errors.js';
import { isNamed, isServedAs, type NamedModel, type ServedModel } from './modelRef.js';
import { judge, type TrustFacts, type TrustPolicy, untrusted } from './trust.js';

/** Entries of a catalog. */
export const MAX_MODELS = 1023;

export const MODEL_STATES = ['Active', 'Retired'] as const;
export type ModelState = (typeof MODEL_STATES)[number];

/** What came of reading a model's file: passed, passed with something to be said, refused, or not read at all. */
export type VerificationResult = 'PASSED' | 'WARNED' | 'FAILED' | 'UNREADABLE';

export interface CatalogModelRules extends NamedModel, TrustFacts {
  readonly state: ModelState;
  readonly drainAtMs: number | null;
  /** Its file was read, and has another digest. */
  readonly mismatched: boolean;
}

/** A pool as far as the catalog looks at it. */
export interface ServingPool extends ServedModel {
  readonly id: string;
}

/** Why a model of the catalog takes no task; null: it takes some. */
export function modelRefusal(model: CatalogModelRules, configured: TrustPolicy): Refusal | null {
  if (model.state === 'Retired') {
    const message = `model ${model.id} is retired and takes no new tasks`;
    return { family: 'invalid', code: 'MODEL_DEPRECATED', field: 'model_ref', message, retriable: false };
  }
  if (model.mismatched) {
    return untrusted('model_ref', `the file of model ${model.id} does not have the digest that the catalog names`);
  }
  const { untrusted: reason } = judge(model, configured);
  return reason === null ? null : untrusted('model_ref', `model ${model.id} is not trusted: ${reason.message}`);
}

/** Why a task that asks for `ref` is refused whatever the state of its pool; null: placement decides. */
export function refRefusal(
  ref: string,
  pools: readonly ServingPool[],
  catalog: readonly CatalogModelRules[],
  configured: TrustPolicy,
): Refusal | null {
  const meant = entriesFor(ref, pools, catalog);
  if (meant.length === 0) {
    const isServed = pools.some((pool) => isNamed(ref, pool));
    if (configured.mode !== 'strict' || !isServed) return null;
    return untrusted(
      'model_ref',
      'the trust policy is strict and the catalog does not have this model; register it, signed',
    );
  }
  const refusals = meant.map((model) => modelRefusal(model, configured));
  return refusals.includes(null) ? null : (refusals[0] ?? null);
}

function entriesFor(
  ref: string,
  pools: readonly ServingPool[],
  catalog: readonly CatalogModelRules[],
): readonly CatalogModelRules[] {
  const byId = catalog.filter(({ id }) => id === ref);
  if (byId.length > 0) return byId;
  const byDigest = catalog.filter(({ digest }) => digest === ref);
  if (byDigest.length > 0) return byDigest;
  const served = pools.filter((pool) => isNamed(ref, pool));
  return catalog.filter((model) => served.some((pool) => isServedAs(model, pool)));
}

/** Pools that serve nothing but models whose time is over. */
export function poolsToDrain<Pool extends ServingPool>(
  pools: readonly Pool[],
  catalog: readonly CatalogModelRules[],
  nowMs: number,
): Pool[] {
  const isOver = ({ state, drainAtMs }: CatalogModelRules) =>
    state === 'Retired' && drainAtMs !== null && drainAtMs <= nowMs;
  return pools.filter((pool) => {
    const own = catalog.filter((model) => isServedAs(model, pool));
    return own.length > 0 && own.every(isOver);
  });
}
