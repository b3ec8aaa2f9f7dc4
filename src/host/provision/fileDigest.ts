/** The SHA-256 of a file, and what tells cheaply that it is still the file that was read. */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { errnoOf } from '../startupError.js';
import { ProvisionError } from './provisionError.js';

const BUFFER_BYTES = 4 * 1024 * 1024;

export interface FileIdentity {
  readonly sizeBytes: bigint;
  /** Nanoseconds since 1970. */
  readonly mtimeNs: string;
}

/** Null when there is no such regular file. */
export async function fileIdentity(path: string): Promise<FileIdentity | null> {
  try {
    const found = await stat(path, { bigint: true });
    return found.isFile() ? { sizeBytes: found.size, mtimeNs: String(found.mtimeNs) } : null;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return null;
    throw unreadable(path, error);
  }
}

function unreadable(path: string, cause: unknown): ProvisionError {
  const message = `${path} cannot be read: ${errnoOf(cause) ?? 'unknown error'}`;
  return new ProvisionError('FILE_UNREADABLE', message, 'Check its permissions and the disk.', { cause });
}

/** Adds the first `bytes` of an open file to a hash; `onBytes` hears how many there are so far. Rejects with the signal's reason. */
export async function hashInto(
  hash: Hash,
  file: FileHandle,
  bytes: number,
  run: { readonly signal: AbortSignal; readonly onBytes: (done: number) => void },
): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.max(1, Math.min(bytes, BUFFER_BYTES)));
  for (let done = 0; done < bytes; ) {
    run.signal.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, bytes - done), done);
    if (bytesRead === 0) return;
    hash.update(buffer.subarray(0, bytesRead));
    done += bytesRead;
    run.onBytes(done);
  }
}

/**
 * Reads a whole file. Rejects with the signal's reason, or with a ProvisionError when the file cannot be read or changes
 * meanwhile.
 */
export async function sha256OfFile(
  path: string,
  run: { readonly signal: AbortSignal; readonly onBytes: (done: number, total: number) => void },
): Promise<FileIdentity & { readonly sha256: string }> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw unreadable(path, error);
  });
  try {
    return await sha256OfOpen({ path, file }, run);
  } finally {
    await file.close();
  }
}

/** The same of a file that is open already, and stays so. */
export async function sha256OfOpen(
  { path, file }: { readonly path: string; readonly file: FileHandle },
  run: { readonly signal: AbortSignal; readonly onBytes: (done: number, total: number) => void },
): Promise<FileIdentity & { readonly sha256: string }> {
  const before = await identityOfOpen(file);
  const total = Number(before.sizeBytes);
  const hash = createHash('sha256');
  await hashInto(hash, file, total, { signal: run.signal, onBytes: (done) => run.onBytes(done, total) });
  const after = await identityOfOpen(file);
  if (after.sizeBytes !== before.sizeBytes || after.mtimeNs !== before.mtimeNs) {
    throw new ProvisionError('FILE_CHANGED', `${path} changed while it was read`, 'Wait until it is complete.');
  }
  return { ...after, sha256: hash.digest('hex') };
}

export async function identityOfOpen(file: FileHandle): Promise<FileIdentity> {
  const { size, mtimeNs } = await file.stat({ bigint: true });
  return { sizeBytes: size, mtimeNs: String(mtimeNs) };
}
