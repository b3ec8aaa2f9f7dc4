/**
 * What it takes to have a pool's engine on this host: a plan, made from the configuration and facts of the host. Pure:
 * the same facts give the same plan, so that it can be shown without being run, and is run as it was shown.
 */
import { egressRefusal } from '../egress.js';
import type { Engine } from '../errors.js';
import type { Reason } from '../pool.js';

export type ProvisionMode = 'external' | 'source' | 'container' | 'package' | 'binary' | 'simulated';

/** For a program that fetches. */
export const FETCH_DEADLINE_MS = 3_600_000;

export interface ProvisionFacts {
  readonly poolId: string;
  readonly engine: Engine;
  readonly mode: ProvisionMode;
  readonly policy: {
    readonly allowBinaryDownloads: boolean;
    readonly allowPackageInstalls: boolean;
    readonly allowHosts: readonly string[];
  };
  /** Built to run on NVIDIA GPUs; false where GPUs are simulated. */
  readonly cuda: boolean;
  /** Absolute folder that belongs to this engine alone: downloads, sources and builds go there. */
  readonly folder: string;
  /** `path`: where the program of a file URL is. */
  readonly binary: { readonly url: string; readonly path: string | null; readonly sha256: string | null } | null;
  readonly source: {
    readonly repo: string;
    readonly ref: string;
    readonly submodules: boolean;
    readonly cmakeFlags: readonly string[];
    readonly generator: string | null;
  } | null;
  readonly container: { readonly image: string; readonly tag: string | null } | null;
  readonly package: { readonly name: string; readonly version: string | null; readonly repo: string | null } | null;
  /** `path` is null for what is no file. Of several digests that are promised of it no two can be kept. */
  readonly model: { readonly path: string | null; readonly sha256s: readonly string[] };
}

export type PackageManager = 'apt-get' | 'dnf' | 'zypper' | 'pacman';

export interface ProvisionHost {
  /** Absolute paths of programs, null for those that are missing. */
  readonly tools: Readonly<Record<string, string | null>>;
  readonly packageManager: PackageManager | null;
  /** This process runs as root. */
  readonly isRoot: boolean;
  /** How many compilers may run at once. */
  readonly jobs: number;
  /** What an earlier preparation made is still there. */
  readonly present: boolean;
}

interface StepFacts {
  readonly name: string;
  /** One line for people. */
  readonly summary: string;
}

export type ProvisionStep = StepFacts &
  (
    | { readonly kind: 'check_tools'; readonly tools: readonly string[] }
    | {
        readonly kind: 'download';
        readonly url: string;
        readonly sha256: string;
        readonly to: string;
        readonly maxBytes: number;
      }
    | { readonly kind: 'program'; readonly argv: readonly [string, ...string[]]; readonly deadlineMs: number }
    /** What an earlier try may have left there goes. */
    | { readonly kind: 'clear_folder'; readonly path: string }
    /** Every submodule that is set up in the clone `at` has to come from a host that policy allows. */
    | { readonly kind: 'check_submodules'; readonly git: string; readonly at: string; readonly repo: string }
    | { readonly kind: 'check_binary'; readonly path: string; readonly sha256: string | null }
    | { readonly kind: 'verify_model'; readonly path: string; readonly sha256: string }
  );

export type ContainerRuntime = 'podman' | 'docker';

/** What a replica is launched from. */
export interface PreparedFacts {
  readonly binaryPath: string | null;
  /** Pinned by its digest. */
  readonly image: string | null;
  readonly runtime: { readonly name: ContainerRuntime; readonly path: string } | null;
  /** Options it was built with, in a fixed order. */
  readonly flags: readonly string[];
}

export interface ProvisionPlan {
  readonly engine: Engine;
  readonly mode: ProvisionMode;
  /** What the engine is made from; empty when it is somebody else's, or simulated. */
  readonly buildRef: string;
  /** Hex, of the program or image, where the configuration names it. */
  readonly digest: string | null;
  readonly steps: readonly ProvisionStep[];
  readonly prepared: PreparedFacts;
  /** Empty when the plan can be carried out. */
  readonly obstacles: readonly Reason[];
}

/** What a mode contributes. */
export type Part = Pick<ProvisionPlan, 'buildRef' | 'digest' | 'steps' | 'prepared' | 'obstacles'>;

export const NOTHING: PreparedFacts = { binaryPath: null, image: null, runtime: null, flags: [] };
export const NO_PART: Part = { buildRef: '', digest: null, steps: [], prepared: NOTHING, obstacles: [] };

/** The exact command of a step, where it runs a program. */
export function commandOf(step: ProvisionStep): readonly string[] | null {
  return step.kind === 'program' ? step.argv : null;
}

export function checkBinary(path: string, sha256: string | null): ProvisionStep {
  const summary = `check that ${path} can be run${sha256 === null ? '' : ` and has sha256 ${sha256}`}`;
  return { kind: 'check_binary', name: 'check_binary', summary, path, sha256 };
}

/** Refused by a switch of the pool that is off. */
export function switchRefusal({ poolId }: ProvisionFacts, key: string, allowed: boolean, what: string): Reason[] {
  if (allowed) return [];
  const path = `pools.${poolId}.provisioning.${key}`;
  return [
    { code: 'POLICY_REFUSED', message: `policy does not allow ${what}`, fix: `Set ${path}: true, if it may be.` },
  ];
}

export function hostRefusal({ policy }: ProvisionFacts, url: string): Reason[] {
  const refusal = egressRefusal(new URL(url), policy.allowHosts);
  return refusal === null ? [] : [refusal];
}
