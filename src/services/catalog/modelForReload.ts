/** What a pool has to be given to serve the model that a caller names: a catalog entry, a digest, or a reference as it is. */
import { modelRefusal } from '../../core/catalog.js';
import { invalid, RefusalError, unavailable } from '../../core/errors.js';
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
export async function modelForReload(deps: ReloadModelDeps, pool: PoolModel, ref: string): Promise<string> {
  const { view } = deps;
  const model = view.find(ref);
  if (model === null) return uncatalogued(deps, ref);
  const refusal = modelRefusal(model, view.policy);
  if (refusal !== null) throw new RefusalError({ ...refusal, field: 'new_model_ref' });
  if (view.isServedBy(model, pool)) return pool.modelRef;
  return locate(deps, model);
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

async function locate({ files, staging }: ReloadModelDeps, model: KnownModel): Promise<string> {
  // Where nothing says how to come by it, its name is one that the engine knows.
  if (model.sourceUrl === null && !files.isCached(model)) return model.id;
  const repository = model.sourceUrl === null ? null : repositoryOf(model.sourceUrl);
  if (repository !== null) return repository;
  const path = files.sourcePath(model) ?? (files.isCached(model) ? files.cachePath(model) : null);
  if (path !== null) return `file:${path}`;
  const id = await staging.stage(model).catch((error: unknown) => {
    if (error instanceof RefusalError)
      throw new RefusalError(notHere(model.id, error.refusal.message), { cause: error });
    throw error;
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
