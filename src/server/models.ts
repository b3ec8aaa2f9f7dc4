/** The part of the house that knows models: catalog, verification, staging and retirement, put together. */

import { trustPolicyOf } from '../config/catalogSchema.js';
import { pathOfFileUrl } from '../config/fileUrl.js';
import type { Config } from '../config/schema.js';
import type { ServedModel } from '../core/modelRef.js';
import type { DataDir } from '../host/dataDir.js';
import type { Clock } from '../runtime/clock.js';
import type { Scope } from '../runtime/scope.js';
import { Catalog } from '../services/catalog/catalog.js';
import { ModelFiles } from '../services/catalog/modelFiles.js';
import { modelForReload } from '../services/catalog/modelForReload.js';
import { Retirement, type RetirementDeps } from '../services/catalog/retirement.js';
import { ModelVerification } from '../services/catalog/verifyModel.js';
import { CatalogView, type PoolModel } from '../services/catalog/view.js';
import type { Fleet } from '../services/fleet.js';
import { modelPath, promisedDigest } from '../services/provisioning/modelSource.js';
import { Staging } from '../services/staging/staging.js';
import type { Database } from '../store/database.js';
import type { Telemetry } from '../telemetry/events.js';

interface ModelsDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly config: Config;
  readonly configDir: string;
  readonly dataDir: Pick<DataDir, 'nodeId' | 'modelsDir'>;
  readonly fleet: Pick<Fleet, 'candidates'>;
  /** Pools of this node. */
  readonly here: RetirementDeps['pools'];
  readonly drain: RetirementDeps['drain'];
}

export interface Models {
  readonly catalog: Catalog;
  readonly view: CatalogView;
  readonly staging: Staging;
  /** To be started when there are operations. */
  readonly retirement: Retirement;
  readonly forReload: (pool: PoolModel, ref: string, correlationId?: string) => Promise<string>;
  /** Reads the catalog, then lets work on it begin. */
  start(scope: Scope): Promise<void>;
}

export function openModels(deps: ModelsDeps): Models {
  const { db, clock, telemetry, config, configDir, dataDir, fleet, here, drain } = deps;
  const { nodeId, modelsDir } = dataDir;
  const configured = config.pools.flatMap((pool) => modelPath(pool, configDir, pool.model) ?? []);
  const files = new ModelFiles({ modelsDir, configDir, roots: config.catalog.model_roots, configured });
  const policy = trustPolicyOf(config.catalog.trust_policy);
  const view = new CatalogView({ db, telemetry, files, policy, served: servedBy(config, configDir) });
  const onForgotten = (what: string, error: unknown) => telemetry.backgroundFailure(what, error);
  const shared = { db, nodeId, telemetry, files, view, onForgotten };
  const servers = (id: string) => fleet.candidates().filter((pool) => view.idsServedBy(pool).includes(id));
  const enginesOf = ({ id }: { readonly id: string }) => servers(id).map(({ engine }) => engine);
  const verification = new ModelVerification({ ...shared, clock, enginesOf });
  const { max_model_bytes: maxBytes, allow_any_format: allowAnyFormat } = config.catalog;
  const fetching = { allowHosts: config.network.allow_hosts, maxBytes, allowAnyFormat };
  const staging = new Staging({ ...shared, ...fetching, clock });
  const retirement = new Retirement({ clock, telemetry, view, pools: here, drain });
  const catalog = new Catalog({ db, telemetry, view, verification, wakeRetirement: () => retirement.wake() });
  return {
    catalog,
    view,
    staging,
    retirement,
    forReload: (pool, ref, correlationId) => modelForReload({ view, files, staging }, pool, ref, correlationId),
    start: async (scope) => {
      await view.start();
      scope.defer('catalog', () => view.stop());
      scope.defer('verification of models', () => verification.stop());
      staging.start();
      scope.defer('stagings', () => staging.stop());
    },
  };
}

/** What is known here of a model: of a pool that only others have, what its reference tells. */
function servedBy({ pools }: Config, configDir: string): (poolId: string, modelRef: string) => ServedModel {
  const byId = new Map(pools.map((pool) => [pool.id, pool]));
  return (poolId, modelRef) => {
    const pool = byId.get(poolId);
    if (pool === undefined) return { modelRef, digest: null, path: pathOfFileUrl(modelRef) };
    const digest = promisedDigest(pool, modelRef);
    return {
      modelRef,
      digest: digest === null ? null : `sha256:${digest}`,
      path: modelPath(pool, configDir, modelRef),
    };
  };
}
