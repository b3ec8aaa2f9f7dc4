/** Digests of files that were read whole, so that a file which is still the same need not be read again. */
import type { Database, Statement } from './database.js';

export interface FileDigestRow {
  readonly sizeBytes: bigint;
  /** Nanoseconds since 1970. */
  readonly mtimeNs: string;
  /** Hex. */
  readonly sha256: string;
}

const READ: Statement = {
  name: 'file_digest_read',
  text: `
SELECT size_bytes::text AS size, mtime_ns AS "mtimeNs", sha256 FROM file_digests WHERE node_id = $1 AND path = $2`,
};

/** Null when the file was never read, whatever it holds now. */
export async function readFileDigest(db: Database, nodeId: string, path: string): Promise<FileDigestRow | null> {
  const [row] = await db.query<{ size: string; mtimeNs: string; sha256: string }>(READ, [nodeId, path]);
  return row === undefined ? null : { sizeBytes: BigInt(row.size), mtimeNs: row.mtimeNs, sha256: row.sha256 };
}

const WRITE: Statement = {
  name: 'file_digest_write',
  text: `
INSERT INTO file_digests (node_id, path, size_bytes, mtime_ns, sha256, at) VALUES ($1, $2, $3, $4, $5, now())
ON CONFLICT (node_id, path) DO UPDATE SET size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns,
  sha256 = excluded.sha256, at = excluded.at`,
};

export async function writeFileDigest(db: Database, nodeId: string, path: string, row: FileDigestRow): Promise<void> {
  await db.query(WRITE, [nodeId, path, String(row.sizeBytes), row.mtimeNs, row.sha256]);
}
