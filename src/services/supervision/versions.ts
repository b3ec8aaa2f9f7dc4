/** Sees to it that the replicas of a set run one version of their engine, at the gate and for as long as they serve. */
import { changedVersion, mixedVersions, type VersionedReplica } from '../../core/engineVersion.js';
import type { Reason } from '../../core/pool.js';

export interface VersionRules {
  /** False: mixed versions are told and let be. */
  readonly required: boolean;
  /** The other replicas of its set, on any node, that serve this model or have been let in to do so. */
  readonly others: (modelRef: string) => readonly VersionedReplica[];
}

export interface VersionGuardDeps {
  /** Of the replica. */
  readonly id: string;
  readonly modelRef: string;
  readonly rules: VersionRules;
  /** It is let in although others have another version. */
  readonly onMixed: (reason: Reason) => void;
}

/** Of one engine. */
export class VersionGuard {
  readonly #deps: VersionGuardDeps;
  #held: string | null = null;

  constructor(deps: VersionGuardDeps) {
    this.#deps = deps;
  }

  /** What others have to agree with; null: it has not been let in. */
  get held(): string | null {
    return this.#held;
  }

  /** @returns why it may not serve. Two that come at the same time: the first one decides, since it is held from here on. */
  admit(version: string): Reason | null {
    const { rules, modelRef, onMixed } = this.#deps;
    const mixed = mixedVersions(version, rules.others(modelRef));
    if (mixed !== null && rules.required) return mixed;
    if (mixed !== null) onMixed(mixed);
    this.#held = version;
    return null;
  }

  /** @param version what an engine that serves tells now. @returns why it may not go on. */
  recheck(version: string): Reason | null {
    const { id, rules, modelRef } = this.#deps;
    const before = this.#held ?? version;
    if (!rules.required) return version === before ? null : this.admit(version);
    // Two nodes may have let theirs in without knowing of each other: the later one by id gives way.
    const earlier = rules.others(modelRef).filter((other) => other.id < id);
    return changedVersion(before, version) ?? mixedVersions(version, earlier);
  }
}
