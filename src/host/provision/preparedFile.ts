/** What a preparation left beside its result, so that the next start knows it again without a database. */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

const Prepared = z.object({ buildRef: z.string(), digest: z.string().nullable(), version: z.string().nullable() });
export type PreparedFile = z.infer<typeof Prepared>;

const FILE_NAME = 'prepared.json';

/** Null when there is none, or it cannot be read: then everything is prepared anew. */
export async function readPrepared(folder: string): Promise<PreparedFile | null> {
  try {
    const parsed = Prepared.safeParse(JSON.parse(await readFile(join(folder, FILE_NAME), 'utf8')));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

/** Whole or not at all, on the disk when it resolves. */
export async function writePrepared(folder: string, prepared: PreparedFile): Promise<void> {
  await mkdir(folder, { recursive: true });
  const temporary = join(folder, `.${FILE_NAME}.new`);
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(JSON.stringify(prepared));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, join(folder, FILE_NAME));
}

/** The commit that a clone stands at; null where git left none. */
export async function clonedCommit(folder: string): Promise<string | null> {
  const head = await readFile(join(folder, 'source', '.git', 'HEAD'), 'utf8').catch(() => '');
  return /^[0-9a-f]{40,64}$/.exec(head.trim())?.[0] ?? null;
}
