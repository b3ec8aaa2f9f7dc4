/**
 * How a model may be named: as its pool calls it, by the id of a catalog entry, by the digest of its file, or by where it
 * comes from. Pure.
 */

export type ModelSource =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'digest'; readonly digest: string }
  /** A path as it was written; relative ones start at the configuration file. */
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'hf'; readonly repo: string; readonly revision: string; readonly file: string | null }
  /** http is for a server on this machine. */
  | { readonly kind: 'https'; readonly url: string }
  | { readonly kind: 's3' | 'oci'; readonly rest: string }
  | { readonly kind: 'invalid'; readonly why: string };

export const DIGEST = /^sha256:[0-9a-f]{64}$/;
const MAX_REF_CHARS = 4096;
const HF_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,95})$/;
const HF_REVISION = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
/** A repository's name, a revision after an @, and the path of a file in it; no part of that begins with a dot. */
const HF_REF = /^([^/@]+)\/([^/@]+)(?:@([^/]+))?(?:\/(.+))?$/;
const HF_PART = /^[A-Za-z0-9_][A-Za-z0-9 ._+,()-]{0,254}$/;

function invalid(why: string): ModelSource {
  return { kind: 'invalid', why };
}

/** Total: what is no reference says why. */
export function parseModelRef(text: string): ModelSource {
  if (text === '') return invalid('must not be empty');
  if (text.length > MAX_REF_CHARS || /\p{Cc}/u.test(text)) {
    return invalid(`must be at most ${MAX_REF_CHARS} characters, without control characters`);
  }
  if (text.startsWith('sha256:')) {
    return DIGEST.test(text)
      ? { kind: 'digest', digest: text }
      : invalid('is no digest: sha256: and 64 lower-case hex digits');
  }
  const [, scheme = '', rest = ''] = /^([a-z0-9]+):(.*)$/s.exec(text) ?? [];
  switch (scheme) {
    case 'file':
      return fileSource(rest);
    case 'hf':
    case 'repo':
      return hfSource(rest);
    case 'https':
    case 'http':
      return urlSource(text);
    case 's3':
    case 'oci':
      return { kind: scheme, rest: rest.replace(/^\/\//, '') };
    default:
      return { kind: 'name', name: text };
  }
}

/** `file:///path` is a URL, with its escapes; `file:path` is a path as it is. */
function fileSource(rest: string): ModelSource {
  if (rest.startsWith('//') && !rest.startsWith('///'))
    return invalid('names another host; write file:///absolute/path');
  const path = rest.startsWith('///') ? unescaped(rest.slice(2)) : rest;
  if (path === null || path === '') return invalid('names no file');
  return path.split('/').includes('..') ? invalid('must not hold ".."') : { kind: 'file', path };
}

function unescaped(path: string): string | null {
  try {
    const text = /%2f|%00/i.test(path) ? null : decodeURIComponent(path);
    return text !== null && /\p{Cc}/u.test(text) ? null : text;
  } catch {
    return null;
  }
}

function hfSource(rest: string): ModelSource {
  const [, organisation = '', name = '', revision = 'main', file] = HF_REF.exec(rest.replace(/^\/\//, '')) ?? [];
  if (!HF_NAME.test(organisation) || !HF_NAME.test(name) || !HF_REVISION.test(revision)) {
    return invalid('is not hf:organisation/repository[@revision][/file]');
  }
  if (file !== undefined && !file.split('/').every((part) => HF_PART.test(part))) {
    return invalid('names a file with characters that are not taken');
  }
  return { kind: 'hf', repo: `${organisation}/${name}`, revision, file: file ?? null };
}

function urlSource(text: string): ModelSource {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || url.pathname === '/') return invalid('is no URL of a file');
  if (url.username !== '' || url.password !== '') return invalid('holds a user name or password; remove them');
  return { kind: 'https', url: url.href };
}

/** Where Hugging Face serves a file; null for a whole repository, which is many files. */
export function hfUrl({ repo, revision, file }: Extract<ModelSource, { kind: 'hf' }>): string | null {
  if (file === null) return null;
  const path = file.split('/').map(encodeURIComponent).join('/');
  return `https://huggingface.co/${repo}/resolve/${revision}/${path}`;
}

/** What engines that fetch for themselves call a whole repository; null: the source is none. */
export function repositoryOf(sourceUrl: string): string | null {
  const source = parseModelRef(sourceUrl);
  return source.kind === 'hf' && source.file === null ? source.repo : null;
}

/** One spelling for what may be written in two ways. */
export function canonicalRef(ref: string): string {
  return ref.replace(/^repo:/, 'hf:').replace(/^file:\/\/(?=\/)/, 'file:');
}

/** A model that a pool serves. */
export interface ServedModel {
  /** What its pool calls it. */
  readonly modelRef: string;
  /** sha256:hex that its file was verified to have; null: none was promised. */
  readonly digest: string | null;
  /** The file that it is read from; null where the engine resolves a name. */
  readonly path: string | null;
}

/** A model of the catalog, as far as it can be told to be one that is served. */
export interface NamedModel {
  readonly id: string;
  readonly digest: string;
  readonly sourceUrl: string | null;
  /** The files that it is on this host: where its source is, and where it was staged. */
  readonly paths: readonly string[];
  /** Its file was read, and has its digest. */
  readonly verified: boolean;
}

/** Whether an entry of the catalog and a model that is served are the same. Where both have a digest, a place tells nothing. */
export function isServedAs(model: NamedModel, served: ServedModel): boolean {
  if (model.id === served.modelRef || model.digest === served.digest) return true;
  if (served.digest !== null) return false;
  const ref = canonicalRef(served.modelRef);
  return (
    (model.sourceUrl !== null && [canonicalRef(model.sourceUrl), repositoryOf(model.sourceUrl)].includes(ref)) ||
    (served.path !== null && model.paths.includes(served.path))
  );
}

/**
 * Every name by which a task may ask for a model that is served, its own first. A digest is one of them once the file was
 * found to have it: who pins a digest wants these bytes and no others.
 */
export function namesOf(served: ServedModel, catalog: readonly NamedModel[]): string[] {
  const same = catalog.filter((model) => isServedAs(model, served));
  const names = same.flatMap(({ id, digest, verified }) => (verified ? [id, digest] : [id]));
  return [...new Set([served.modelRef, ...(served.digest === null ? [] : [served.digest]), ...names])];
}

/** Whether a pool whose model goes by these names has what was asked for. */
export function isNamed(ref: string, pool: { readonly modelRef: string; readonly names?: readonly string[] }): boolean {
  return (
    pool.modelRef === ref || (pool.names?.includes(ref) ?? false) || canonicalRef(pool.modelRef) === canonicalRef(ref)
  );
}
