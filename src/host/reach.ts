/** Whether another user could get at a path: what decides where a root-run program puts things for PostgreSQL. */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** User and group a program runs as. */
export interface RunAs {
  readonly uid: number;
  readonly gid: number;
}

/** The bits of a file's status that decide. */
export interface Ownership {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** True when permission bits grant all of `want` (4 read, 2 write, 1 search or execute). Access lists are not seen. */
export function grants(file: Ownership, user: RunAs, want: number): boolean {
  const shift = file.uid === user.uid ? 6 : file.gid === user.gid ? 3 : 0;
  return ((file.mode >> shift) & want) === want;
}

/**
 * The outermost folder above `realPath` that `user` may not pass, or `realPath` itself when it may not be used as
 * `want` says; null when all is open. Rejects when the path does not exist.
 */
export async function firstBarrier(realPath: string, user: RunAs, want: number): Promise<string | null> {
  const above: string[] = [];
  for (let folder = dirname(realPath); ; folder = dirname(folder)) {
    above.unshift(folder);
    if (folder === dirname(folder)) break;
  }
  for (const folder of above) {
    if (!grants(await stat(folder), user, 1)) return folder;
  }
  return grants(await stat(realPath), user, want) ? null : realPath;
}
