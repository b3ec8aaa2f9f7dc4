/** Models of the catalog: written by their operators, read whole by every node, since there are few. */
import type { ModelState, VerificationResult } from '../core/catalog.js';
import type { Reason } from '../core/pool.js';
import type { SbomRef, SignatureMeta, TrustPolicy } from '../core/trust.js';
import type { Database, Statement } from './database.js';
import { jsonbText } from './jsonb.js';

export interface Manifest {
  readonly digest: string | null;
  readonly sizeBytes: number | null;
}

export interface NewCatalogModel {
  readonly id: string;
  readonly digest: string;
  readonly sourceUrl: string | null;
  readonly tags: readonly string[];
  readonly manifests: readonly Manifest[];
  readonly signatures: readonly SignatureMeta[];
  readonly sbom: SbomRef | null;
  readonly trustPolicy: TrustPolicy | null;
}

export interface StoredVerification {
  readonly result: VerificationResult;
  readonly reasons: readonly Reason[];
  /** sha256:hex that its file was found to have; null: it was not read. */
  readonly digest: string | null;
  readonly atMs: number;
}

export interface CatalogModelRow extends NewCatalogModel {
  readonly state: ModelState;
  readonly drainAtMs: number | null;
  readonly verification: StoredVerification | null;
}

const COLUMNS = `id, digest, source_url AS "sourceUrl", tags, manifests, signatures, sbom, trust_policy AS "trustPolicy",
  state, (extract(epoch FROM drain_at) * 1000)::float8 AS "drainAtMs", verification`;

// Nothing but ids and row versions is read as long as nothing changes, which is nearly always.
const VERSION: Statement = {
  name: 'catalog_version',
  text: `SELECT coalesce(md5(string_agg(id || ' ' || xmin::text, ',' ORDER BY id)), '') AS version FROM catalog_models`,
};

/** Another one after every change of the catalog. */
export async function catalogVersion(db: Database): Promise<string> {
  return (await db.query<{ version: string }>(VERSION, []))[0]?.version ?? '';
}

const RULES: Statement = {
  name: 'catalog_rules',
  text: `
SELECT id, digest, source_url AS "sourceUrl", signatures, sbom, trust_policy AS "trustPolicy", state,
  (extract(epoch FROM drain_at) * 1000)::float8 AS "drainAtMs", verification ->> 'digest' AS "readDigest"
FROM catalog_models ORDER BY created_at, id`,
};

/** A model as far as the rules ask for it. */
export interface CatalogRulesRow
  extends Pick<
    CatalogModelRow,
    'id' | 'digest' | 'sourceUrl' | 'signatures' | 'sbom' | 'trustPolicy' | 'state' | 'drainAtMs'
  > {
  /** sha256:hex that its file was found to have; null: it was not read. */
  readonly readDigest: string | null;
}

export async function listCatalogRules(db: Database): Promise<CatalogRulesRow[]> {
  return db.query(RULES, []);
}

const GET: Statement = { name: 'catalog_get', text: `SELECT ${COLUMNS} FROM catalog_models WHERE id = $1` };

export async function getCatalogModel(db: Database, id: string): Promise<CatalogModelRow | null> {
  return (await db.query<CatalogModelRow>(GET, [id]))[0] ?? null;
}

// Counted by what every node reads once a second; a few too many at the same moment do no harm.
const INSERT: Statement = {
  name: 'catalog_insert',
  text: `
INSERT INTO catalog_models (id, digest, source_url, tags, manifests, signatures, sbom, trust_policy)
SELECT $1, $2, $3, $4::text[], $5::jsonb, $6::jsonb, $7::jsonb, $8::jsonb
WHERE (SELECT count(*) FROM catalog_models) < $9
ON CONFLICT (id) DO NOTHING RETURNING ${COLUMNS}`,
};

/** @returns null when there is one of that id already, or there are `most`. */
export async function insertCatalogModel(
  db: Database,
  model: NewCatalogModel,
  most: number,
): Promise<CatalogModelRow | null> {
  const { id, digest, sourceUrl, tags, manifests, signatures, sbom, trustPolicy } = model;
  const orNull = (value: unknown) => (value === null ? null : jsonbText(value));
  const documents = [jsonbText(manifests), jsonbText(signatures), orNull(sbom), orNull(trustPolicy)];
  return (await db.query<CatalogModelRow>(INSERT, [id, digest, sourceUrl, tags, ...documents, most]))[0] ?? null;
}

const DELETE: Statement = {
  name: 'catalog_delete',
  text: 'DELETE FROM catalog_models WHERE id = $1 RETURNING id',
};

/** @returns false when there was none. */
export async function deleteCatalogModel(db: Database, id: string): Promise<boolean> {
  return (await db.query(DELETE, [id])).length > 0;
}

const SET_STATE: Statement = {
  name: 'catalog_state',
  text: `
UPDATE catalog_models SET state = $2::model_state, drain_at = now() + $3 * interval '1 millisecond'
WHERE id = $1 RETURNING ${COLUMNS}`,
};

/** @param drainInMs null: never. */
export async function setModelState(
  db: Database,
  id: string,
  state: ModelState,
  drainInMs: number | null,
): Promise<CatalogModelRow | null> {
  return (await db.query<CatalogModelRow>(SET_STATE, [id, state, drainInMs]))[0] ?? null;
}

const SET_VERIFICATION: Statement = {
  name: 'catalog_verification',
  text: 'UPDATE catalog_models SET verification = $3::jsonb WHERE id = $1 AND digest = $2 RETURNING id',
};

/** Of what was verified, and of nothing that has taken its id since. */
export async function writeVerification(
  db: Database,
  model: { readonly id: string; readonly digest: string },
  verification: StoredVerification,
): Promise<void> {
  await db.query(SET_VERIFICATION, [model.id, model.digest, jsonbText(verification)]);
}
