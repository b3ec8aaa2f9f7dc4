/**
 * The cluster folder of the built-in PostgreSQL: where it lies, and making it. It holds `data` (PostgreSQL's own) and
 * `password`; both are made aside and moved in place together, so there is a whole cluster or none.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { chmod, chown, mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { PostgresBinaries } from './pgBinaries.js';
import { firstBarrier, type RunAs } from './reach.js';
import { messageOf, StartupError } from './startupError.js';
import { syncFolder } from './syncFolder.js';

const run = promisify(execFile);
const initTimeoutMs = 180_000;
const nobody: RunAs = { uid: 65534, gid: 65534 };
export const databaseUser = 'llama_orch';

/** A place for a cluster, whether or not one is there yet. */
export interface ClusterPlace {
  /** Absolute; its parent is a real path. */
  readonly folder: string;
  /** PGDATA */
  readonly pgData: string;
  readonly exists: boolean;
  /** As whom PostgreSQL runs on it; null: as ourselves. */
  readonly runAs: RunAs | null;
  /** `<dataDir>/postgres.location`, when the cluster lies outside of the data directory. */
  readonly pointer: string | null;
}

/**
 * Finds the cluster of a data directory, or chooses where it will be. As root that is outside of a data directory
 * PostgreSQL's user cannot reach. Throws StartupError when a known cluster has vanished or belongs to another user.
 */
export async function locateCluster(dataDir: string, systemDir: string): Promise<ClusterPlace> {
  const real = await realpath(dataDir);
  const pointer = join(real, 'postgres.location');
  const known = (await readFile(pointer, 'utf8').catch(() => '')).trim();
  const inside = join(real, 'postgres');
  if (known !== '') {
    const place = await placeAt(known, pointer);
    if (place.exists) return place;
    throw new StartupError(
      `The database of ${real} was at ${known} and is gone.`,
      `Restore that folder, or delete ${pointer} to begin with an empty database.`,
    );
  }
  const place = await placeAt(inside, null);
  if (place.exists || process.getuid?.() !== 0) return place;
  if ((await firstBarrier(real, nobody, 1)) === null) return place;
  const hash = createHash('sha256').update(real).digest('hex').slice(0, 12);
  const folder = join(systemDir, hash, 'postgres');
  // What may lie there without a pointer is of a deleted data directory at the same path: createCluster sets it aside.
  return { folder, pgData: join(folder, 'data'), exists: false, runAs: nobody, pointer };
}

async function placeAt(folder: string, pointer: string | null): Promise<ClusterPlace> {
  const pgData = join(folder, 'data');
  const owner = await stat(join(pgData, 'PG_VERSION')).catch(() => null);
  const self = process.getuid?.();
  const root = self === 0;
  const fresh = { folder, pgData, pointer, exists: false, runAs: root ? nobody : null };
  if (owner === null) return fresh;
  if (root) return { ...fresh, exists: true, runAs: owner.uid === 0 ? nobody : { uid: owner.uid, gid: owner.gid } };
  if (owner.uid === self) return { ...fresh, exists: true };
  throw new StartupError(
    `The database in ${folder} belongs to uid ${owner.uid}, and this is uid ${String(self)}.`,
    'Start as the user that made it (as root, if root did), or choose another data directory.',
  );
}

/** A name for the cluster in process titles and messages. */
export function clusterName(pgData: string): string {
  return `llama-orch-${createHash('sha256').update(pgData).digest('hex').slice(0, 12)}`;
}

/** Throws StartupError when the cluster was made by another major version of PostgreSQL. */
export async function checkMajor(place: ClusterPlace, binaries: PostgresBinaries): Promise<void> {
  const found = (await readFile(join(place.pgData, 'PG_VERSION'), 'utf8')).trim();
  if (found === binaries.major) return;
  throw new StartupError(
    `The database in ${place.folder} was made by PostgreSQL ${found}; this program brings PostgreSQL ${binaries.major}.`,
    `Dump it with the earlier release and load it into this one, or choose another data directory.`,
  );
}

/** The password of the cluster's only user. Throws StartupError when it cannot be read. */
export async function readPassword(place: ClusterPlace): Promise<string> {
  const file = join(place.folder, 'password');
  try {
    const password = (await readFile(file, 'utf8')).trim();
    if (password !== '') return password;
  } catch (error) {
    throw new StartupError(`The database password ${file} cannot be read: ${messageOf(error)}.`, 'Restore the file.', {
      cause: error,
    });
  }
  throw new StartupError(`The database password ${file} is empty.`, 'Restore the file.');
}

/**
 * Makes the cluster; the caller holds the lock of the data directory. What an interrupted attempt left behind is
 * removed first. Throws StartupError quoting initdb, or the signal's reason when it aborts.
 */
export async function createCluster(
  place: ClusterPlace,
  binaries: PostgresBinaries,
  signal: AbortSignal | undefined,
): Promise<void> {
  const parent = dirname(place.folder);
  try {
    await prepareParent(parent, place);
    await removeLeftovers(parent);
    const draft = `${place.folder}.init-${randomUUID()}`;
    await mkdir(draft, { mode: 0o700 });
    await writeFile(join(draft, 'password'), `${randomBytes(32).toString('base64url')}\n`, {
      mode: 0o600,
      flush: true,
    });
    for (const path of [join(draft, 'password'), draft]) {
      if (place.runAs !== null) await chown(path, place.runAs.uid, place.runAs.gid);
    }
    await initdb(draft, place.runAs, binaries, signal);
    await syncFolder(draft);
    await rename(draft, place.folder);
    await syncFolder(parent);
    if (place.pointer !== null) await writeFile(place.pointer, `${place.folder}\n`, { mode: 0o600, flush: true });
  } catch (error) {
    if (error instanceof StartupError || signal?.aborted === true) throw error;
    throw new StartupError(`The database folder ${place.folder} cannot be made: ${messageOf(error)}.`, notMadeFix, {
      cause: error,
    });
  }
}

const notMadeFix = 'Make room for it and let this user write there, or start with DATABASE_URL=postgresql://….';

/** The folder the cluster goes into. One outside of the data directory has to be passable for PostgreSQL's user. */
async function prepareParent(parent: string, place: ClusterPlace): Promise<void> {
  if (place.pointer === null) return;
  for (const folder of [dirname(parent), parent]) {
    if ((await mkdir(folder, { recursive: true, mode: 0o711 })) !== undefined) await chmod(folder, 0o711);
  }
  // A cluster nobody points to: kept, but not brought back.
  if (await stat(place.folder).catch(() => null)) await rename(place.folder, `${place.folder}.unused-${Date.now()}`);
}

async function removeLeftovers(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    // The initdb of a killed start may still be writing into it.
    if (name.startsWith('postgres.init-'))
      await rm(join(parent, name), { recursive: true, force: true, maxRetries: 10 });
  }
}

async function initdb(
  draft: string,
  runAs: RunAs | null,
  binaries: PostgresBinaries,
  signal: AbortSignal | undefined,
): Promise<void> {
  const args = [
    `--pgdata=${join(draft, 'data')}`,
    `--username=${databaseUser}`,
    `--pwfile=${join(draft, 'password')}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    // Byte order for sorting, Unicode for upper and lower case, and nothing of the machine's own locales.
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    '--no-instructions',
  ];
  const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };
  try {
    await run(binaries.initdb, args, { cwd: '/', env, timeout: initTimeoutMs, ...runAs, ...(signal && { signal }) });
  } catch (error) {
    // initdb clears what it made when it is told to end; the rest goes here.
    await rm(draft, { recursive: true, force: true, maxRetries: 10 });
    if (signal?.aborted === true) throw signal.reason;
    throw new StartupError(`PostgreSQL could not make its database folder: ${said(error)}`, notMadeFix, {
      cause: error,
    });
  }
}

/** What a failed program wrote to stderr, or the failure itself. */
function said(error: unknown): string {
  const text = error instanceof Error && 'stderr' in error && typeof error.stderr === 'string' ? error.stderr : '';
  return text.trim() === '' ? messageOf(error) : text.trim();
}
