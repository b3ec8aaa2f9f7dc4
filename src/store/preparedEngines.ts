/** Engines that were made ready on a node, and from what. */
import { randomUUID } from 'node:crypto';
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
ON CONFLICT (node_id, engine, mode, build_ref) DO UPDATE SET version = excluded.version, digest = excluded.digest,
  flags = excluded.flags, binary_path = excluded.binary_path, image = excluded.image, prepared_at = excluded.prepared_at
WHERE (p.version, p.digest, p.flags, p.binary_path, p.image)
  IS DISTINCT FROM (excluded.version, excluded.digest, excluded.flags, excluded.binary_path, excluded.image)`,
};

export async function upsertPreparedEngine(db: Database, row: PreparedEngineRow): Promise<void> {
  const { nodeId, engine, mode, version, buildRef, digest, flags, binaryPath, image } = row;
  const values = [randomUUID(), nodeId, engine, mode, version, buildRef, digest, flags, binaryPath, image];
  await db.query(UPSERT, values);
}
