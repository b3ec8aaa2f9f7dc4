/** Engines that were made ready on a node, and from what. */
import { createHash } from 'node:crypto';
import type { Engine } from '../core/errors.js';
import type { Database, Statement } from './database.js';

export interface PreparedEngineRow {
  readonly nodeId: string;
  readonly engine: Engine;
  readonly mode: string;
  readonly version: string | null;
  readonly buildRef: string;
  /** Hex, of the program or the image. */
  readonly digest: string | null;
  readonly flags: readonly string[];
  readonly binaryPath: string | null;
  readonly image: string | null;
}

// `prepared_at` is when what is there came to be: finding it again changes nothing.
const UPSERT: Statement = {
  name: 'prepared_engine_upsert',
  text: `
INSERT INTO prepared_engines AS p (id, node_id, engine, mode, version, build_ref, digest, flags, binary_path, image, prepared_at)
VALUES ($1, $2, $3::engine, $4, $5, $6, $7, $8::text[], $9, $10, now())
ON CONFLICT (id) DO UPDATE SET version = excluded.version, digest = excluded.digest, flags = excluded.flags,
  image = excluded.image, prepared_at = excluded.prepared_at
WHERE (p.version, p.digest, p.flags, p.image) IS DISTINCT FROM (excluded.version, excluded.digest, excluded.flags, excluded.image)`,
};

export async function upsertPreparedEngine(db: Database, row: PreparedEngineRow): Promise<void> {
  const { nodeId, engine, mode, version, buildRef, digest, flags, binaryPath, image } = row;
  const values = [idOf(row), nodeId, engine, mode, version, buildRef, digest, flags, binaryPath, image];
  await db.query(UPSERT, values);
}

/**
 * The same for what is found again. A unique index cannot say it: an engine in a container has no path, and to PostgreSQL
 * before 15 two such rows are never the same.
 */
function idOf({ nodeId, engine, mode, buildRef, binaryPath }: PreparedEngineRow): string {
  const hex = createHash('sha256')
    .update(JSON.stringify([nodeId, engine, mode, buildRef, binaryPath]))
    .digest('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5');
}
