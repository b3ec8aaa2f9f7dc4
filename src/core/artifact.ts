/** Artifacts: what plans, runs and comparisons leave behind, kept under a hash of all that they are. Pure. */
import { canonicalJson, NotCanonicalError } from './canonicalJson.js';
import { invalid, type Refusal } from './errors.js';
import { DIGEST } from './modelRef.js';

export const ARTIFACT_KINDS = ['plan', 'summary', 'diff', 'trace', 'other'] as const;
export type ArtifactKind = (typeof ARTIFACT_KINDS)[number];

export interface ArtifactDraft {
  readonly kind: ArtifactKind;
  readonly content: unknown;
  readonly tags: readonly string[];
  readonly parent: string | null;
  readonly metadata: unknown;
}

/** Of content and metadata together, as canonical JSON. */
export const MAX_ARTIFACT_BYTES = 1024 * 1024;
const MAX_TAGS = 32;
const MAX_TAG_CHARS = 128;

/** What is hashed and kept. */
export interface CanonicalArtifact {
  readonly content: string;
  readonly metadata: string | null;
  readonly tags: readonly string[];
  /** The hash of this text is the id. */
  readonly whole: string;
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(field: string, value: unknown): string | Refusal {
  if (!isObject(value)) return invalid(field, 'must be a JSON object');
  try {
    return canonicalJson(value);
  } catch (error) {
    if (!(error instanceof NotCanonicalError)) throw error;
    return invalid(field, error.message);
  }
}

function checkTags(tags: readonly string[]): Refusal | null {
  if (tags.length > MAX_TAGS) return invalid('tags', `are ${tags.length}; at most ${MAX_TAGS} are taken`);
  const bad = tags.some((tag) => tag === '' || tag.length > MAX_TAG_CHARS || /\p{Cc}|\p{Surrogate}/u.test(tag));
  return bad ? invalid('tags', `must be of 1 to ${MAX_TAG_CHARS} characters, without control characters`) : null;
}

/** The one form of a draft, or what is wrong with it. The order and repetition of tags mean nothing. */
export function canonicalArtifact(draft: ArtifactDraft): CanonicalArtifact | Refusal {
  const { kind, parent } = draft;
  const content = textOf('content', draft.content);
  if (typeof content !== 'string') return content;
  const metadata = draft.metadata === null ? null : textOf('metadata', draft.metadata);
  if (metadata !== null && typeof metadata !== 'string') return metadata;
  const bytes = utf8Bytes(content) + utf8Bytes(metadata ?? '');
  if (bytes > MAX_ARTIFACT_BYTES) {
    return invalid('content', `is ${bytes} bytes with its metadata; at most ${MAX_ARTIFACT_BYTES} are kept`);
  }
  if (parent !== null && !DIGEST.test(parent)) return invalid('parent', 'is not the id of an artifact (sha256:…)');
  const tags = [...new Set(draft.tags)].sort();
  const refusal = checkTags(tags);
  if (refusal !== null) return refusal;
  const members = [
    `"content":${content}`,
    `"kind":${canonicalJson(kind)}`,
    `"metadata":${metadata ?? 'null'}`,
    `"parent":${canonicalJson(parent)}`,
    `"tags":${canonicalJson(tags)}`,
  ];
  return { content, metadata, tags, whole: `{${members.join(',')}}` };
}

function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}
