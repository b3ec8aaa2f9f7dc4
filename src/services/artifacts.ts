/** Artifacts that callers keep here: content-addressed, with lineage. */
import { createHash } from 'node:crypto';
import { type ArtifactDraft, type ArtifactKind, canonicalArtifact } from '../core/artifact.js';
import { invalid, notFound, RefusalError } from '../core/errors.js';
import { DIGEST } from '../core/modelRef.js';
import { ancestorsOf, insertArtifact, readArtifact } from '../store/artifacts.js';
import type { Database } from '../store/database.js';

const MAX_ANCESTORS = 100;

export interface ArtifactReference {
  readonly id: string;
  readonly kind: ArtifactKind;
  /** Of its content alone. */
  readonly digest: string;
  readonly tags: readonly string[];
  readonly createdAtMs: number;
}

export interface StoredArtifact extends ArtifactReference {
  readonly parent: string | null;
  /** JSON texts. */
  readonly content: string;
  readonly metadata: string | null;
}

export class Artifacts {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** The same again gives the first one. @throws RefusalError invalid: too large, no object, or its parent is unknown. */
  async create(draft: ArtifactDraft): Promise<ArtifactReference> {
    const canonical = canonicalArtifact(draft);
    if ('family' in canonical) throw new RefusalError(canonical);
    const { content, metadata, tags, whole } = canonical;
    const { kind, parent } = draft;
    const [id, digest] = [hashOf(whole), hashOf(content)];
    const made = await insertArtifact(this.#db, { id, digest, kind, content, metadata, tags, parent });
    if (made === null)
      throw new RefusalError(invalid('parent', `there is no artifact ${parent}; create that one first`));
    return made;
  }

  /** @throws RefusalError not_found */
  async get(id: string): Promise<StoredArtifact> {
    const artifact = DIGEST.test(id) ? await readArtifact(this.#db, id) : null;
    if (artifact === null) throw new RefusalError(notFound('id', `artifact ${id} not found`));
    return artifact;
  }

  /** Ids, from its parent upwards. */
  ancestors(id: string, limit: number): Promise<string[]> {
    return ancestorsOf(this.#db, id, Math.min(limit, MAX_ANCESTORS));
  }
}

function hashOf(text: string): string {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}
