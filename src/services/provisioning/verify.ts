/** Files against the digests that the configuration promises. What was read once and has not changed is not read again. */

import { fileIdentity, sha256OfFile } from '../../host/provision/fileDigest.js';
import { checksumMismatch, ProvisionError } from '../../host/provision/provisionError.js';
import type { Database } from '../../store/database.js';
import { type FileDigestRow, readFileDigest, writeFileDigest } from '../../store/fileDigests.js';

export interface VerifyDeps {
  readonly db: Database;
  readonly nodeId: string;
  /** Told of what is not remembered because the database is away; the work goes on. */
  readonly onForgotten: (what: string, error: unknown) => void;
}

interface VerifyRun {
  readonly signal: AbortSignal;
  readonly say: (detail: string) => void;
}

/** Hex; null when there is no such regular file. Rejects with a ProvisionError, or with the signal's reason. */
export async function digestOf(deps: VerifyDeps, path: string, run: VerifyRun): Promise<string | null> {
  const { db, nodeId, onForgotten } = deps;
  const identity = await fileIdentity(path);
  if (identity === null) return null;
  const known = await readFileDigest(db, nodeId, path).catch((error: unknown): FileDigestRow | null => {
    onForgotten('reading of a file digest', error);
    return null;
  });
  if (known !== null && known.sizeBytes === identity.sizeBytes && known.mtimeNs === identity.mtimeNs) {
    run.say(`unchanged since it was read: sha256 ${known.sha256}`);
    return known.sha256;
  }
  const read = await sha256OfFile(path, {
    signal: run.signal,
    onBytes: (done, total) => run.say(`${done} of ${total} bytes read`),
  });
  await writeFileDigest(db, nodeId, path, read).catch((error: unknown) => onForgotten('file digest', error));
  run.say(`sha256 ${read.sha256}`);
  return read.sha256;
}

/** Throws ProvisionError where the file is not what was promised. */
export async function verifyFile(
  deps: VerifyDeps,
  file: { readonly path: string; readonly sha256: string; readonly missingCode: 'MODEL_MISSING' | 'ENGINE_MISSING' },
  run: VerifyRun,
): Promise<void> {
  const found = await digestOf(deps, file.path, run);
  if (found === null) {
    const fix = 'Put the file there, or correct the path; a checksum is for one file, not for a folder.';
    throw new ProvisionError(file.missingCode, `${file.path} is no file`, fix);
  }
  if (found !== file.sha256) throw checksumMismatch(file.path, file.sha256, found);
}
