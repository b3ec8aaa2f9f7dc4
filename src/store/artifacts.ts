/** Artifacts: kept under a hash of what they are, so that writing one twice is writing it once. */
import type { ArtifactKind } from '../core/artifact.js';
import type { Database, Statement } from './database.js';

export interface NewArtifact {
  readonly id: string;
  readonly digest: string;
  readonly kind: ArtifactKind;
  /** JSON texts. */
  readonly content: string;
  readonly metadata: string | null;
  readonly tags: readonly string[];
  readonly parent: string | null;
}

export interface ArtifactRow {
  readonly id: string;
  readonly kind: ArtifactKind;
  readonly digest: string;
  readonly tags: readonly string[];
  readonly parent: string | null;
  readonly createdAtMs: number;
}

const COLUMNS = `id, kind, coalesce(digest, id) AS digest, tags, parent,
  (extract(epoch FROM created_at) * 1000)::float8 AS "createdAtMs"`;

// What is old and written once more is young again, so that retention leaves it to those who rely on it now. Half an hour is
// less than the age at which it may take anything; a younger row is locked, and stays as it is.
export const OR_KEEP_ANEW = `
  ON CONFLICT (id) DO UPDATE SET created_at = now() WHERE artifacts.created_at < now() - interval '30 minutes'`;

// The parent is locked until the row is written, so that retention cannot take it away between.
const INSERT: Statement = {
  name: 'artifact_insert',
  text: `
WITH parent AS (SELECT id FROM artifacts WHERE id = $6 FOR KEY SHARE)
INSERT INTO artifacts (id, digest, kind, content, metadata, tags, parent)
SELECT $1, $2, $3, $4::json, $7::json, $5::text[], $6 WHERE $6::text IS NULL OR EXISTS (SELECT 1 FROM parent)
${OR_KEEP_ANEW} RETURNING ${COLUMNS}`,
};

const GET: Statement = { name: 'artifact_get', text: `SELECT ${COLUMNS} FROM artifacts WHERE id = $1` };

/** @returns what is kept under its id now; null: its parent is not there. */
export async function insertArtifact(db: Database, artifact: NewArtifact): Promise<ArtifactRow | null> {
  const { id, digest, kind, content, metadata, tags, parent } = artifact;
  const [made] = await db.query<ArtifactRow>(INSERT, [id, digest, kind, content, tags, parent, metadata]);
  return made ?? (await db.query<ArtifactRow>(GET, [id]))[0] ?? null;
}

const READ: Statement = {
  name: 'artifact_read',
  text: `SELECT ${COLUMNS}, content::text AS content, metadata::text AS metadata FROM artifacts WHERE id = $1`,
};

/** With its JSON texts; null when there is none. */
export async function readArtifact(
  db: Database,
  id: string,
): Promise<(ArtifactRow & { readonly content: string; readonly metadata: string | null }) | null> {
  return (await db.query<ArtifactRow & { content: string; metadata: string | null }>(READ, [id]))[0] ?? null;
}

const ANCESTORS: Statement = {
  name: 'artifact_ancestors',
  text: `
WITH RECURSIVE line AS (
  SELECT a.parent AS id, 1 AS n FROM artifacts a WHERE a.id = $1 AND a.parent IS NOT NULL
  UNION ALL
  SELECT a.parent, line.n + 1 FROM line JOIN artifacts a ON a.id = line.id WHERE a.parent IS NOT NULL AND line.n < $2
)
SELECT id FROM line ORDER BY n`,
};

/** From its parent upwards, at most `limit`. A hash is part of what it names, so a line has an end. */
export async function ancestorsOf(db: Database, id: string, limit: number): Promise<string[]> {
  return (await db.query<{ id: string }>(ANCESTORS, [id, limit])).map((row) => row.id);
}
