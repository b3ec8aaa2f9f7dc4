/** Where the engine of a pool finds a model. No effects. */
import { isAbsolute, resolve } from 'node:path';
import { pathOfFileUrl } from '../../config/fileUrl.js';
import type { PoolConfig } from '../../config/schema.js';
import { DIALECTS } from '../../engines/dialects.js';

/**
 * `provisioning.model.ref` for the model of the configuration, else the reference itself. `file:/abs`, `file:rel` and,
 * where the engine reads files only, plain paths; relative ones start at the configuration file. Anything else is a name
 * that the engine resolves. Null for a broken file URL, and for a name that an engine would take for an option.
 */
export function modelSource(pool: PoolConfig, configDir: string, modelRef: string): string | null {
  const dialect = DIALECTS[pool.engine];
  const { ref } = pool.provisioning.model ?? {};
  // A repository holds many models, so it stays when another of them is loaded.
  const source = ref !== undefined && (dialect.servesRepository || modelRef === pool.model) ? ref : modelRef;
  if (source.startsWith('file://')) return pathOfFileUrl(source);
  if (source.startsWith('file:')) return resolve(configDir, source.slice('file:'.length));
  if (dialect.readsFilesOnly) return resolve(configDir, source);
  return [source, modelRef].some((name) => name.startsWith('-')) ? null : source;
}

/** The file or folder that a model is read from; null where the engine resolves a name. */
export function modelPath(pool: PoolConfig, configDir: string, modelRef: string): string | null {
  const source = modelSource(pool, configDir, modelRef);
  return source !== null && isAbsolute(source) ? source : null;
}

/** Hex digest that the configuration promises of a model; null where it promises none of this one. */
export function promisedDigest(pool: PoolConfig, modelRef: string): string | null {
  const checksum = modelRef === pool.model ? pool.provisioning.model?.checksum : undefined;
  return checksum === undefined ? null : hexOf(checksum);
}

export function hexOf(checksum: string): string {
  return checksum.slice('sha256:'.length);
}
