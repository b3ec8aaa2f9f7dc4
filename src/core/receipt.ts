/**
 * The receipt of a run: what another run must have in common with it to give the same bytes, and a chain of hashes over
 * its token events, so that two logs can be compared, and one log checked, without trusting whoever keeps them.
 *
 *   link i = SHA-256 of (link i-1 as 64 hex digits, then the JSON text of [i, text i]); the link before the first is zeros
 *
 * JSON, because a token may hold U+0000 and lone surrogates, which have no UTF-8 of their own.
 */
import { flagChanges } from './flags.js';
import type { Reason } from './pool.js';

/** The chain of a run without tokens. */
export const FIRST_LINK = '0'.repeat(64);

/** @param sha256 of a text's UTF-8, as hex. */
export function nextLink(sha256: (text: string) => string, previous: string, index: number, text: string): string {
  return sha256(`${previous}${JSON.stringify([index, text])}`);
}

export interface SamplerProfile {
  readonly version: string;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

export interface RunReceipt {
  readonly engineVersion: string;
  readonly modelId: string | null;
  readonly modelDigest: string | null;
  /** Secrets masked; null: somebody else started the engine. */
  readonly launchArgs: readonly string[] | null;
  readonly gpuUuids: readonly string[];
  readonly seed: bigint;
  readonly sampler: SamplerProfile;
  /** What the engine promises about repeating itself, in the way it was started, and why. */
  readonly claim: { readonly kind: 'byte_exact' | 'none'; readonly because: string };
  /** Most other tasks on the same replica at one time, in the run that ended; null: not known. */
  readonly coResidentMax: number | null;
  /** Token events in the chain; engines may count otherwise. */
  readonly tokens: number;
  readonly chainHash: string;
}

/** What one run had that the other had not, and that may change bytes; empty when nothing is known to differ. */
export function differences(
  before: RunReceipt,
  after: RunReceipt,
  ignoredFlags: ReadonlySet<string> = new Set(),
): Reason[] {
  return [
    differs('ENGINE_VERSION', 'engine version', before.engineVersion, after.engineVersion),
    differs('MODEL', 'model', before.modelId, after.modelId),
    differs('MODEL_DIGEST', 'digest of the model', before.modelDigest, after.modelDigest),
    ...flagDifferences(before.launchArgs, after.launchArgs, ignoredFlags),
    differs('GPU', 'GPUs', gpusOf(before), gpusOf(after)),
    differs('SEED', 'seed', String(before.seed), String(after.seed)),
    differs('SAMPLER_PROFILE', 'sampler profile', JSON.stringify(before.sampler), JSON.stringify(after.sampler)),
    differs('CO_RESIDENTS', 'most tasks beside it', countOf(before), countOf(after)),
  ].filter((reason) => reason !== null);
}

function gpusOf({ gpuUuids }: RunReceipt): string {
  return gpuUuids.length === 0 ? 'none' : [...gpuUuids].sort().join(', ');
}

function countOf({ coResidentMax }: RunReceipt): string | null {
  return coResidentMax === null ? null : String(coResidentMax);
}

function differs(code: string, what: string, before: string | null, after: string | null): Reason | null {
  if (before === after) return null;
  const said = (value: string | null) => value ?? 'not known';
  return { code, message: `The ${what}: first ${said(before)}, then ${said(after)}.`, fix: null };
}

function flagDifferences(
  before: RunReceipt['launchArgs'],
  after: RunReceipt['launchArgs'],
  ignored: ReadonlySet<string>,
): (Reason | null)[] {
  if (before === null || after === null) {
    const told = (args: RunReceipt['launchArgs']) => (args === null ? null : 'known');
    return [differs('LAUNCH_ARGS', 'launch arguments', told(before), told(after))];
  }
  const given = (value: string | null) => (value === null ? 'not given' : value === '' ? 'given' : value);
  return flagChanges(before, after, ignored).map((change) => {
    const flag = change.flag === '' ? 'a word without a flag' : change.flag;
    const message = `The launch arguments: ${flag} was ${given(change.before)}, then ${given(change.after)}.`;
    return { code: 'LAUNCH_ARGS', message, fix: null };
  });
}
