/** What a download has so far, in a file beside the one it becomes. */
import { readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Far more than a download may take; whoever wants it still has asked again by then. */
const FORGOTTEN_AFTER_MS = 7 * 86_400_000;

export function partFile(to: string, sha256: string): string {
  return join(dirname(to), `.${basename(to)}.${sha256.slice(0, 16)}.part`);
}

/** Removes those of a folder that nobody has gone on with for a week. A folder that is not there has none. */
export async function sweepPartFiles(folder: string, nowMs: number): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names) {
    if (!name.startsWith('.') || !name.endsWith('.part')) continue;
    const path = join(folder, name);
    const found = await stat(path).catch(() => null);
    if (found?.isFile() === true && nowMs - found.mtimeMs > FORGOTTEN_AFTER_MS) await rm(path, { force: true });
  }
}
