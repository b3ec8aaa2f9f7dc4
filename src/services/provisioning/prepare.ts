/** What happens to a pool's engine and model before a replica is started: brought here if need be, and verified. */
import type { Reason } from '../../core/pool.js';

/** How one preparation is run and followed. */
export interface PrepareRun {
  readonly signal: AbortSignal;
  /** Runs one named step; `say` tells how far it has come, in words for an operator. */
  readonly step: <T>(name: string, work: (say: (detail: string) => void) => Promise<T>) => Promise<T>;
}

/** Everything that the model needs is there. */
export interface Ready {
  /** Hex, of the program or image that is launched; null: it is none that we make ready. */
  readonly engineDigest: string | null;
}

/** Resolves with what stands in the way, when something does. Throws only the reason of the signal. */
export type Prepare = (modelRef: string, run: PrepareRun) => Promise<Ready | Reason>;

/** Codes of reasons that waiting cannot mend: they take another configuration, or an operator. */
export const UNMENDABLE: ReadonlySet<string> = new Set([
  'POLICY_REFUSED',
  'CHECKSUM_MISMATCH',
  'DOWNLOAD_TOO_LARGE',
  'MODEL_REF_INVALID',
  'ENGINE_MISSING',
  'TOOL_MISSING',
  'UNSUPPORTED',
  'UNPINNED',
  'NOT_BUILT',
  'NO_GPU',
]);
