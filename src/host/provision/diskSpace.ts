/** How much a download leaves of a disk: the database of the same machine may be on it, and stops when it is full. */
import { statfs } from 'node:fs/promises';
import { formatBytes } from '../../core/vram.js';
import { ProvisionError } from './provisionError.js';

const GIB_BYTES = 1024 ** 3;
const KEPT_BYTES = 5 * GIB_BYTES;
const KEPT_SHARE = 0.05;
/** Of a small disk; else nothing at all could be put there. */
const MOST_KEPT_SHARE = 0.25;

export interface DiskSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

export async function diskSpace(folder: string): Promise<DiskSpace> {
  const { bavail, blocks, bsize } = await statfs(folder);
  return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
}

/** Why so many more bytes are not written there; null: they may be. */
export function roomObstacle(folder: string, disk: DiskSpace, bytes: number): ProvisionError | null {
  const { freeBytes, totalBytes } = disk;
  const kept = Math.max(totalBytes * KEPT_SHARE, Math.min(KEPT_BYTES, totalBytes * MOST_KEPT_SHARE));
  if (freeBytes - bytes >= kept) return null;
  const need = bytes === 0 ? '' : `, the download needs ${formatBytes(bytes)}`;
  const message = `${folder} has ${formatBytes(freeBytes)} free${need}, and ${formatBytes(kept)} are kept free`;
  return new ProvisionError('DISK_FULL', message, 'Free space on that disk, or choose another folder.');
}
