/**
 * Which replicas stand for each other. Pure. Those of one pool have engine, model, quantisation, context and sampler profile
 * in common by its configuration, on which the nodes that share it agree (`core/node`); what may differ is the version that
 * each engine tells of itself.
 */
import type { Reason } from './pool.js';

/** The code of an engine that may not join those that serve. */
export const ENGINE_VERSION_MIXED = 'ENGINE_VERSION_MIXED';
/** The code of an engine that became another one while we were attached to it. */
export const ENGINE_VERSION_CHANGED = 'ENGINE_VERSION_CHANGED';

export interface VersionedReplica {
  readonly id: string;
  readonly engineVersion: string;
}

/**
 * What keeps an engine from standing for `others`, the replicas of its set that serve or are about to. Null when they all
 * have its version, or when there are none: the first one decides.
 */
export function mixedVersions(version: string, others: readonly VersionedReplica[]): Reason | null {
  const differing = others.filter(({ engineVersion }) => engineVersion !== version);
  const [first] = differing.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  if (first === undefined) return null;
  return {
    code: ENGINE_VERSION_MIXED,
    message: `the engine is version ${version}, and ${first.id} of the same pool serves with version ${first.engineVersion}`,
    fix: 'Restart the other replicas or reload the pool, so that all run one version, or set require_same_engine_version: false.',
  };
}

/** An endpoint that was restarted, or stands for several engines. */
export function changedVersion(before: string, now: string): Reason | null {
  if (before === now) return null;
  return {
    code: ENGINE_VERSION_CHANGED,
    message: `the engine is version ${now} now, and was ${before} when it was tested; it is tested again`,
    fix: 'Nothing, if it was exchanged; else give the pool an endpoint behind which one version runs.',
  };
}
