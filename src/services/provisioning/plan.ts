/** The plan of a pool from its configuration and this host, as both are now. Reads a few files, opens no socket, starts nothing. */
import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathOfFileUrl } from '../../config/fileUrl.js';
import type { PoolConfig } from '../../config/schema.js';
import type { ProvisionFacts, ProvisionPlan } from '../../core/provision/plan.js';
import { planFor } from '../../core/provision/planFor.js';
import { readPrepared } from '../../host/provision/preparedFile.js';
import { readHostTools } from '../../host/provision/tools.js';
import { hexOf, modelPath, promisedDigest } from './modelSource.js';

export interface ProvisionEnvironment {
  /** Real path of the data directory. */
  readonly homeDir: string;
  /** Relative paths of the configuration start here. */
  readonly configDir: string;
  readonly allowHosts: readonly string[];
  readonly simulatedGpus: boolean;
  /** Where programs are looked for, as in PATH. */
  readonly searchPath: string;
  /** Hex digests that the catalog names for a file. */
  readonly catalogDigests?: (path: string) => readonly string[];
}

/** @param present what an earlier preparation made is still there, as far as the caller has looked. */
export function planOf(
  pool: PoolConfig,
  env: ProvisionEnvironment,
  options: { readonly modelRef?: string; readonly present?: boolean } = {},
): ProvisionPlan {
  const facts = factsOf(pool, env, options.modelRef ?? pool.model);
  return planFor(facts, { ...readHostTools(env.searchPath), present: options.present ?? false });
}

/** The plan as a dry run shows it: what was prepared counts as long as it is where it was put. */
export async function shownPlan(pool: PoolConfig, env: ProvisionEnvironment): Promise<ProvisionPlan> {
  const { folder } = factsOf(pool, env, pool.model);
  const prepared = await readPrepared(folder);
  const plan = planOf(pool, env, { present: true });
  const { binaryPath } = plan.prepared;
  const isThere = binaryPath === null || statSync(binaryPath, { throwIfNoEntry: false })?.isFile() === true;
  return prepared?.buildRef === plan.buildRef && isThere ? plan : planOf(pool, env);
}

/** The folder that the engine of a pool is prepared in; two pools that want the same have the same. */
export function folderOf(pool: PoolConfig, env: ProvisionEnvironment): string {
  return factsOf(pool, env, pool.model).folder;
}

function factsOf(pool: PoolConfig, env: ProvisionEnvironment, modelRef: string): ProvisionFacts {
  const { mode, binary, source, container, package: wanted } = pool.provisioning;
  return {
    poolId: pool.id,
    engine: pool.engine,
    mode,
    policy: {
      allowBinaryDownloads: pool.provisioning.allow_binary_downloads,
      allowPackageInstalls: pool.provisioning.allow_package_installs,
      allowHosts: env.allowHosts,
    },
    cuda: !env.simulatedGpus,
    folder: join(parentOf(pool, env), `${pool.engine}-${mode}-${identityOf(pool, env)}`),
    binary:
      binary === undefined
        ? null
        : {
            url: binary.url,
            path: pathOfFileUrl(binary.url),
            sha256: binary.checksum === undefined ? null : hexOf(binary.checksum),
          },
    source:
      source === undefined
        ? null
        : {
            repo: source.repo,
            ref: source.ref,
            submodules: source.submodules,
            cmakeFlags: source.build.cmake_flags,
            generator: source.build.generator ?? null,
          },
    container: container === undefined ? null : { image: container.image, tag: container.tag ?? null },
    package:
      wanted === undefined ? null : { name: wanted.name, version: wanted.version ?? null, repo: wanted.repo ?? null },
    model: { path: modelPath(pool, env.configDir, modelRef), sha256s: expectedDigests(pool, env, modelRef) },
  };
}

/** Hex digest that the configuration promises of a model, or else those of the catalog. */
function expectedDigests(pool: PoolConfig, env: ProvisionEnvironment, modelRef: string): readonly string[] {
  const promised = promisedDigest(pool, modelRef);
  if (promised !== null) return [promised];
  const path = modelPath(pool, env.configDir, modelRef);
  return path === null ? [] : (env.catalogDigests?.(path) ?? []);
}

function parentOf(
  { provisioning: { mode, binary, source } }: PoolConfig,
  { homeDir, configDir }: ProvisionEnvironment,
): string {
  const chosen = mode === 'binary' ? binary?.install_dir : mode === 'source' ? source?.build.cache_dir : undefined;
  return chosen === undefined ? join(homeDir, 'engines') : resolve(configDir, chosen);
}

/** Of all that decides what is made; the sections of other modes do not. */
function identityOf({ provisioning }: PoolConfig, { simulatedGpus }: ProvisionEnvironment): string {
  const { mode } = provisioning;
  const section = mode === 'external' || mode === 'simulated' ? null : provisioning[mode];
  const text = JSON.stringify([mode, section, mode === 'source' ? simulatedGpus : null]);
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
