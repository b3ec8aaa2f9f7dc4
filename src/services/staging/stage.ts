/** Brings the file of one catalog model to this host, or finds that it is here, and holds it against its digest. */
import { rm } from 'node:fs/promises';
import { hfUrl, parseModelRef } from '../../core/modelRef.js';
import type { TrustFacts } from '../../core/trust.js';
import { type DownloadRun, download } from '../../host/provision/download.js';
import { fileIdentity } from '../../host/provision/fileDigest.js';
import { openModelFile } from '../../host/provision/modelFile.js';
import { checkModelFormat } from '../../host/provision/modelFormat.js';
import { ProvisionError } from '../../host/provision/provisionError.js';
import { writeFileDigest } from '../../store/fileDigests.js';
import type { ModelFiles } from '../catalog/modelFiles.js';
import { digestOfOpen, type VerifyDeps } from '../provisioning/verify.js';

export interface StageDeps extends VerifyDeps {
  readonly files: ModelFiles;
  readonly allowHosts: readonly string[];
  readonly maxBytes: number;
  /** Files that may run code when they are loaded are taken too. */
  readonly allowAnyFormat: boolean;
  readonly lookup?: DownloadRun['lookup'];
}

/** As much as has to be known of a model of the catalog. */
export interface StageModel extends TrustFacts {
  readonly id: string;
  readonly digest: string;
}

export interface StageRun {
  readonly signal: AbortSignal;
  readonly say: (detail: string) => void;
  readonly onBytes: (received: number, total: number | null) => void;
}

export interface Staged {
  readonly path: string;
  readonly sizeBytes: number;
  readonly detail: string;
}

/** Where a model is fetched from; what is not a URL says why it is none. */
export function fetchUrl(sourceUrl: string): { readonly url: string } | { readonly refused: string } {
  const source = parseModelRef(sourceUrl);
  switch (source.kind) {
    case 'https':
      return { url: source.url };
    case 'hf': {
      const url = hfUrl(source);
      if (url !== null) return { url };
      return { refused: 'names a whole repository; name one file in it: hf:organisation/repository/file.gguf' };
    }
    case 's3':
    case 'oci': {
      const tool = source.kind === 's3' ? 'aws s3 cp' : 'oras pull';
      return {
        refused: `is a source that llama-orch does not fetch; bring the file here with ${tool} and name it as file:/path`,
      };
    }
    case 'invalid':
      return { refused: source.why };
    default:
      return { refused: 'names nothing that can be fetched' };
  }
}

/** Rejects with a ProvisionError, or with the signal's reason; then nothing new is in the cache. */
export async function stageModel(deps: StageDeps, model: StageModel, run: StageRun): Promise<Staged> {
  const { files } = deps;
  const source = files.sourcePath(model);
  if (source !== null) return inPlace(deps, model, source, run);
  const cached = files.cachePath(model);
  if ((await fileIdentity(cached)) !== null) return fromCache(deps, model, cached, run);
  return fetched(deps, model, cached, run);
}

async function inPlace(deps: StageDeps, model: StageModel, path: string, run: StageRun): Promise<Staged> {
  const open = await openModelFile(path, deps.files.readable);
  try {
    const found = `sha256:${await digestOfOpen(deps, open, run)}`;
    if (found !== model.digest) throw mismatch(open.path, model.digest, found);
    if (!deps.allowAnyFormat) await checkModelFormat(open);
    const { size } = await open.file.stat();
    return { path: open.path, sizeBytes: size, detail: 'used where it is; its digest is right' };
  } finally {
    await open.file.close();
  }
}

/** What is there under a digest and is not that is worth nothing. */
async function fromCache(deps: StageDeps, model: StageModel, cached: string, run: StageRun): Promise<Staged> {
  try {
    return { ...(await inPlace(deps, model, cached, run)), detail: 'was in the cache already' };
  } catch (error) {
    if (!(error instanceof ProvisionError) || error.reason.code !== 'CHECKSUM_MISMATCH') throw error;
    run.say('what is in the cache is damaged; it is fetched again');
    await rm(cached, { force: true });
    return fetched(deps, model, cached, run);
  }
}

async function fetched(deps: StageDeps, model: StageModel, to: string, run: StageRun): Promise<Staged> {
  const { db, nodeId, onForgotten, allowHosts, maxBytes, lookup } = deps;
  const from = fetchUrl(model.sourceUrl ?? '');
  if ('refused' in from) {
    throw new ProvisionError('MODEL_REF_INVALID', `its source ${from.refused}`, 'Register it with another source_url.');
  }
  const sha256 = model.digest.slice('sha256:'.length);
  const spec = { url: from.url, sha256, to, maxBytes, allowHosts, mode: 0o644 };
  await download(spec, lookup === undefined ? run : { ...run, lookup });
  await checkFetched(deps, to);
  const identity = await fileIdentity(to);
  if (identity === null) throw new ProvisionError('MODEL_MISSING', `${to} is gone`, 'Stage it again.');
  // It was read as it came: nobody needs to read it once more.
  await writeFileDigest(db, nodeId, to, { ...identity, sha256 }).catch((error: unknown) =>
    onForgotten('file digest', error),
  );
  return { path: to, sizeBytes: Number(identity.sizeBytes), detail: 'fetched; its digest is right' };
}

async function checkFetched({ allowAnyFormat, files }: StageDeps, path: string): Promise<void> {
  if (allowAnyFormat) return;
  const open = await openModelFile(path, files.readable);
  try {
    await checkModelFormat(open);
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await open.file.close();
  }
}

function mismatch(path: string, wanted: string, found: string): ProvisionError {
  return new ProvisionError(
    'CHECKSUM_MISMATCH',
    `${path} has ${found}, the catalog names ${wanted}`,
    'Replace the file, which is damaged or another one; or register the model under the digest that you mean.',
  );
}
