/** What a pool has to be given to serve the model that a caller names: a catalog entry, a digest, or a reference as it is. */
import { modelRefusal } from '../../core/catalog.js';
import { conflict, invalid, RefusalError, unavailable } from '../../core/errors.js';
import { parseModelRef, repositoryOf } from '../../core/modelRef.js';
import { untrusted } from '../../core/trust.js';
import { fetchUrl } from '../staging/stage.js';
import type { Staging } from '../staging/staging.js';
import type { ModelFiles } from './modelFiles.js';
import type { CatalogView, KnownModel, PoolModel } from './view.js';

export interface ReloadModelDeps {
  readonly view: CatalogView;
  readonly files: ModelFiles;
  readonly staging: Staging;
}

const STAGING_RETRY_MS = 5_000;

/**
 * @returns the reference by which the pool's engine finds it.
 * @throws RefusalError MODEL_DEPRECATED, UNTRUSTED_ARTIFACT; POOL_UNREADY while it is fetched, or with advice where it is not.
 */
export async function modelForReload(
  deps: ReloadModelDeps,
  pool: PoolModel,
  ref: string,
  correlationId?: string,
): Promise<string> {
  const { view } = deps;
  const model = view.find(ref);
  if (model === null) return uncatalogued(deps, ref);
  const refusal = modelRefusal(model, view.policy);
  if (refusal !== null) throw new RefusalError({ ...refusal, field: 'new_model_ref' });
  const path = pathOf(deps, model);
  const other = path === null ? null : view.contradicts(model, pool.id, path);
  if (other !== null) {
    const message = `${path} is to have the digest of model ${model.id}, and ${other} promises another; correct one of them`;
    throw new RefusalError(conflict('new_model_ref', message));
  }
  if (view.isServedBy(model, pool)) return pool.modelRef;
  return locate(deps, model, path, correlationId);
}

function uncatalogued({ view }: ReloadModelDeps, ref: string): string {
  const { kind } = parseModelRef(ref);
  if (kind === 'digest') throw new RefusalError(invalid('new_model_ref', 'no model of the catalog has this digest'));
  if (view.policy.mode === 'strict') {
    const message = 'the trust policy is strict and the catalog does not have this model; register it, signed';
    throw new RefusalError(untrusted('new_model_ref', message));
  }
  if (kind !== 's3' && kind !== 'oci') return ref;
  const from = fetchUrl(ref);
  throw new RefusalError(notHere(ref, 'refused' in from ? from.refused : ''));
}

/** Its file on this host; null: it is none, or is not here. */
function pathOf({ files }: ReloadModelDeps, model: KnownModel): string | null {
  return files.sourcePath(model) ?? (files.isCached(model) ? files.cachePath(model) : null);
}

async function locate(
  { files, staging }: ReloadModelDeps,
  model: KnownModel,
  path: string | null,
  correlationId: string | undefined,
): Promise<string> {
  // Where nothing says how to come by it, its name is one that the engine knows.
  if (model.sourceUrl === null && !files.isCached(model)) return model.id;
  const repository = model.sourceUrl === null ? null : repositoryOf(model.sourceUrl);
  if (repository !== null) return repository;
  if (path !== null) return `file:${path}`;
  const id = await staging.stage(model, correlationId).catch((error: unknown) => {
    // What keeps its source from being fetched; anything else is said as it is.
    if (!(error instanceof RefusalError) || error.refusal.field !== 'source_url') throw error;
    throw new RefusalError(notHere(model.id, error.refusal.message), { cause: error });
  });
  const message = `model ${model.id} is not on this host yet; it is being fetched (staging ${id})`;
  throw new RefusalError(unavailable('POOL_UNREADY', message, STAGING_RETRY_MS));
}

function notHere(model: string, why: string) {
  return unavailable(
    'POOL_UNREADY',
    `model ${model} is not on this host, and is not fetched: its source ${why}`,
    60_000,
  );
}
