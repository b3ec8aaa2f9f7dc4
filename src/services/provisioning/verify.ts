/** Files against the digests that the configuration promises. What was read once and has not changed is not read again. */

import {
  type FileIdentity,
  fileIdentity,
  identityOfOpen,
  sha256OfFile,
  sha256OfOpen,
} from '../../host/provision/fileDigest.js';
import type { OpenFile } from '../../host/provision/modelFile.js';
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
  const identity = await fileIdentity(path);
  return identity === null ? null : digestOnce(deps, { path, identity }, run, (hears) => sha256OfFile(path, hears));
}

/** Hex, of a file that is open already. Rejects as above. */
export async function digestOfOpen(deps: VerifyDeps, open: OpenFile, run: VerifyRun): Promise<string> {
  const found = { path: open.path, identity: await identityOfOpen(open.file) };
  return digestOnce(deps, found, run, (hears) => sha256OfOpen(open, hears));
}

async function digestOnce(
  { db, nodeId, onForgotten }: VerifyDeps,
  { path, identity }: { readonly path: string; readonly identity: FileIdentity },
  run: VerifyRun,
  readAll: (hears: Parameters<typeof sha256OfFile>[1]) => ReturnType<typeof sha256OfFile>,
): Promise<string> {
  const known = await readFileDigest(db, nodeId, path).catch((error: unknown): FileDigestRow | null => {
    onForgotten('reading of a file digest', error);
    return null;
  });
  if (known !== null && known.sizeBytes === identity.sizeBytes && known.mtimeNs === identity.mtimeNs) {
    run.say(`unchanged since it was read: sha256 ${known.sha256}`);
    return known.sha256;
  }
  const { signal } = run;
  const read = await readAll({ signal, onBytes: (done, total) => run.say(`${done} of ${total} bytes read`) });
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
