/**
 * Opens a model file that a caller of the API has named. It may lie in certain folders only, links are followed before that
 * is asked, and what was asked about is what is read: the open file itself is looked at once more.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readlink, realpath } from 'node:fs/promises';
import { resolve, sep } from 'node:path';
import { errnoOf } from '../startupError.js';
import { ProvisionError } from './provisionError.js';

/** Absolute paths. */
export interface ReadableFiles {
  readonly folders: readonly string[];
  readonly files: readonly string[];
}

export interface OpenFile {
  /** Real path, links resolved. */
  readonly path: string;
  readonly file: FileHandle;
}

const NEVER = ['/proc', '/sys', '/dev'];

function isIn(folder: string, path: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : `${folder}${sep}`);
}

async function realOf(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map((path) => realpath(path).catch(() => null)));
  return found.filter((path) => path !== null);
}

function mayRead(path: string, { folders, files }: ReadableFiles): boolean {
  if (NEVER.some((folder) => isIn(folder, path))) return false;
  return files.includes(path) || folders.some((folder) => isIn(folder, path));
}

function outside(path: string): ProvisionError {
  const fix = 'Put the file into one of the folders of catalog.model_roots, or add its folder there.';
  return new ProvisionError('POLICY_REFUSED', `${path} is not in a folder that models may be read from`, fix);
}

function missing(path: string): ProvisionError {
  return new ProvisionError('MODEL_MISSING', `${path} is no file`, 'Put the file there, or correct its path.');
}

/** Close what it gives. Rejects with a ProvisionError; of a path outside it does not tell whether it exists. */
export async function openModelFile(path: string, readable: ReadableFiles): Promise<OpenFile> {
  const named = resolve(path);
  const real = { folders: await realOf(readable.folders), files: await realOf(readable.files) };
  if (!mayRead(named, readable) && !mayRead(named, real)) throw outside(named);
  const target = await realpath(named).catch((error: unknown) => {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) throw missing(named);
    throw outside(named);
  });
  if (!mayRead(target, real)) throw outside(named);
  // Without O_NONBLOCK a pipe would wait for its writer.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(target, flags).catch((error: unknown) => {
    const message = `${target} cannot be read: ${errnoOf(error) ?? 'unknown error'}`;
    throw new ProvisionError('FILE_UNREADABLE', message, 'Check its permissions and the disk.', { cause: error });
  });
  try {
    if (!(await file.stat()).isFile()) throw missing(target);
    if ((await readlink(`/proc/self/fd/${file.fd}`)) !== target) throw outside(named);
    return { path: target, file };
  } catch (error) {
    await file.close();
    throw error;
  }
}
