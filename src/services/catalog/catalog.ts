/** The models that an operator has described: registered, verified, retired, forgotten. */
import { canonicalJson } from '../../core/canonicalJson.js';
import { MAX_MODELS, type ModelState } from '../../core/catalog.js';
import { conflict, invalid, notFound, type Refusal, RefusalError } from '../../core/errors.js';
import { DIGEST, parseModelRef } from '../../core/modelRef.js';
import {
  type CatalogModelRow,
  deleteCatalogModel,
  getCatalogModel,
  insertCatalogModel,
  type NewCatalogModel,
  setModelState,
} from '../../store/catalog.js';
import type { Database } from '../../store/database.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { ModelVerification, Verified } from './verifyModel.js';
import type { CatalogView } from './view.js';

/** Every node holds the whole catalog in memory: at most 32 MiB of it. */
const MAX_DOCUMENT_BYTES = 32 * 1024;
const MAX_DEADLINE_MS = 365 * 24 * 3_600_000;
const MODEL_ID = /^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}$/;

export type CatalogModel = CatalogModelRow;
export type CatalogModelDraft = NewCatalogModel;

export interface CatalogDeps {
  readonly db: Database;
  readonly telemetry: Telemetry;
  readonly view: CatalogView;
  readonly verification: ModelVerification;
  /** Drains what serves a model whose time is over, soon. */
  readonly wakeRetirement: () => void;
}

export class Catalog {
  readonly #deps: CatalogDeps;

  constructor(deps: CatalogDeps) {
    this.#deps = deps;
  }

  /** Registering the same twice is the same as once. @throws RefusalError invalid; conflict: another one has that id. */
  async create(draft: CatalogModelDraft): Promise<CatalogModel> {
    const { db, view } = this.#deps;
    // What a caller says of its own signatures is no verification.
    const signatures = draft.signatures.map((signature) => ({ ...signature, verified: false }));
    const model = { ...draft, tags: [...new Set(draft.tags)], signatures };
    const broken = checkModel(model);
    if (broken !== null) throw new RefusalError(broken);
    const made = await insertCatalogModel(db, model, MAX_MODELS);
    if (made === null) return this.#standing(model);
    await view.refresh();
    return made;
  }

  /** @throws RefusalError not_found */
  async get(id: string): Promise<CatalogModel> {
    const model = id.includes('\0') ? null : await getCatalogModel(this.#deps.db, id);
    if (model === null) throw new RefusalError(notFound('id', `model ${id} not found`));
    return model;
  }

  /** Its file stays where it is. @throws RefusalError not_found */
  async delete(id: string): Promise<void> {
    await this.get(id);
    await deleteCatalogModel(this.#deps.db, id);
    await this.#deps.view.refresh();
  }

  /**
   * A retired model takes no new tasks from now on.
   * @param deadlineMs after which the pools that serve it are drained; null: they are not. Not for Active.
   * @throws RefusalError invalid, not_found
   */
  async setState(
    id: string,
    state: ModelState,
    deadlineMs: number | null,
    correlationId?: string,
  ): Promise<CatalogModel> {
    const broken = checkDeadline(deadlineMs);
    if (broken !== null) throw new RefusalError(broken);
    const { db, view, telemetry, wakeRetirement } = this.#deps;
    await this.get(id);
    const model = await setModelState(db, id, state, state === 'Retired' ? deadlineMs : null);
    if (model === null) throw new RefusalError(notFound('id', `model ${id} not found`));
    await view.refresh();
    telemetry.modelStateChanged({ modelId: id, correlationId }, state, deadlineMs);
    wakeRetirement();
    return model;
  }

  /**
   * Judges it by the trust policy and reads its file. What takes longer than a moment goes on by itself: null.
   * @throws RefusalError not_found; UNTRUSTED_ARTIFACT
   */
  async verify(id: string, correlationId?: string): Promise<Verified | null> {
    return this.#deps.verification.verify(await this.get(id), correlationId);
  }

  async #standing(model: CatalogModelDraft): Promise<CatalogModel> {
    const standing = await getCatalogModel(this.#deps.db, model.id);
    if (standing === null) {
      throw new RefusalError(conflict('id', `the catalog holds at most ${MAX_MODELS} models; delete some first`));
    }
    if (described(standing) === described(model)) return standing;
    throw new RefusalError(conflict('id', `model ${model.id} exists already with another description`));
  }
}

function described({ id, digest, sourceUrl, tags, manifests, signatures, sbom, trustPolicy }: NewCatalogModel): string {
  return canonicalJson({ id, digest, sourceUrl, tags, manifests, signatures, sbom, trustPolicy });
}

function checkModel(model: NewCatalogModel): Refusal | null {
  if (!MODEL_ID.test(model.id) || DIGEST.test(model.id)) {
    return invalid(
      'id',
      'must be 1 to 255 of A-Z a-z 0-9 . _ : / @ + -, beginning with a letter or digit, and no digest',
    );
  }
  if (!DIGEST.test(model.digest)) return invalid('digest', 'must be sha256: and 64 lower-case hex digits');
  const text = described(model);
  if (Buffer.byteLength(text) > MAX_DOCUMENT_BYTES) {
    return invalid('body', `is ${Buffer.byteLength(text)} bytes; at most ${MAX_DOCUMENT_BYTES} are kept`);
  }
  const badNumber = checkNumbers(model);
  if (badNumber !== null) return badNumber;
  const bad = model.tags.some((tag) => tag === '' || /\p{Cc}|\p{Surrogate}/u.test(tag));
  if (bad) return invalid('tags', 'must not be empty, nor hold control characters');
  return model.sourceUrl === null ? null : checkSource(model.sourceUrl);
}

/** GraphQL gives them as floats. */
function checkNumbers({ manifests, signatures }: NewCatalogModel): Refusal | null {
  const isWhole = (value: number | null) => value === null || (Number.isSafeInteger(value) && value >= 0);
  const range = `must be a whole number of 0 to ${Number.MAX_SAFE_INTEGER}`;
  const manifest = manifests.findIndex(({ sizeBytes }) => !isWhole(sizeBytes));
  if (manifest >= 0) return invalid(`manifests.${manifest}.size_bytes`, range);
  const signature = signatures.findIndex(({ timestampMs }) => !isWhole(timestampMs));
  return signature < 0 ? null : invalid(`signatures.${signature}.timestamp_ms`, range);
}

function checkSource(sourceUrl: string): Refusal | null {
  const source = parseModelRef(sourceUrl);
  if (source.kind === 'invalid') return invalid('source_url', source.why);
  if (source.kind !== 'name' && source.kind !== 'digest') return null;
  return invalid('source_url', 'must be file:, hf:, https:, s3: or oci:');
}

function checkDeadline(deadlineMs: number | null): Refusal | null {
  if (deadlineMs === null) return null;
  if (Number.isInteger(deadlineMs) && deadlineMs >= 0 && deadlineMs <= MAX_DEADLINE_MS) return null;
  return invalid('deadline_ms', `must be a whole number of 0 to ${MAX_DEADLINE_MS} ms, got ${deadlineMs}`);
}
