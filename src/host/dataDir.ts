/** The data directory: made when missing, held by one program at a time, and the home of what must outlive it. */
import { randomUUID } from 'node:crypto';
import { access, chmod, constants, mkdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type LockOwner, lockName, takeLock } from './dirLock.js';
import { errnoOf, messageOf, StartupError } from './startupError.js';

export interface DataDir extends AsyncDisposable {
  /** Real path, symbolic links resolved. */
  readonly path: string;
  readonly logsDir: string;
  readonly runDir: string;
  readonly modelsDir: string;
  /** UUID of this data directory, made once and kept. */
  readonly nodeId: string;
  /** Tells where this program serves, for the message a second program shows. */
  setAddress(url: string): void;
}

/**
 * Makes and locks a data directory. Throws StartupError when it cannot be made or written, and when another program
 * holds it. Disposing releases the lock.
 */
export async function openDataDir(path: string): Promise<DataDir> {
  const real = await makeWritable(path);
  const owner: { pid: number; startedAt: string; address?: string } = {
    pid: process.pid,
    startedAt: new Date(performance.timeOrigin).toISOString(),
  };
  const { uid } = await stat(real);
  const lock = await takeLock(lockName(real, uid, process.platform), () => owner);
  if (!lock.held) throw inUse(real, lock.owner);
  try {
    return {
      path: real,
      logsDir: join(real, 'logs'),
      runDir: join(real, 'run'),
      modelsDir: join(real, 'models'),
      nodeId: await readNodeId(join(real, 'run')),
      setAddress: (url) => {
        owner.address = url;
      },
      [Symbol.asyncDispose]: lock.release,
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** Creates what is missing and proves that each folder can be written. Returns the real path. */
async function makeWritable(path: string): Promise<string> {
  try {
    // PostgreSQL refuses to be root, so a root-run program gives its cluster to another user, who has to reach it.
    const mode = process.getuid?.() === 0 ? 0o711 : 0o700;
    const made = await mkdir(path, { recursive: true, mode });
    // mkdir's mode is cut by the umask.
    if (made !== undefined) await chmod(path, mode);
    const real = await realpath(path);
    for (const name of ['logs', 'run', 'models']) {
      const folder = join(real, name);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    }
    await access(real, constants.W_OK);
    // Permission bits do not tell of a read-only mount, nor of a full disk.
    const probe = join(real, 'run', `probe-${randomUUID()}`);
    await writeFile(probe, 'probe', { flag: 'wx' });
    await rm(probe);
    return real;
  } catch (error) {
    throw notWritable(path, error);
  }
}

function notWritable(path: string, error: unknown): StartupError {
  const user = process.getuid === undefined ? 'this user' : `uid ${process.getuid()}`;
  const fixes: Record<string, string> = {
    EACCES: `Give ${user} write access to it, or choose another data directory.`,
    EPERM: `Give ${user} write access to it, or choose another data directory.`,
    EROFS: 'The file system is read-only: remount it, or choose another data directory.',
    ENOSPC: 'The disk is full: free some space, or choose another data directory.',
    ENOTDIR: 'Part of this path is a file, not a folder: choose another data directory.',
    EEXIST: 'Part of this path is a file, not a folder: choose another data directory.',
  };
  return new StartupError(
    `The data directory ${path} cannot be used: ${messageOf(error)}.`,
    fixes[errnoOf(error) ?? ''] ?? 'Choose another data directory.',
    { cause: error },
  );
}

function inUse(path: string, owner: LockOwner | null): StartupError {
  if (owner === null) {
    return new StartupError(
      `The data directory ${path} is in use by another llama-orch, which does not answer.`,
      'Find it with `ps` (it may be stopped or stuck) and end it, or choose another data directory.',
    );
  }
  const where = owner.address === undefined ? '' : `, serving ${owner.address}`;
  return new StartupError(
    `The data directory ${path} is in use by another llama-orch: pid ${owner.pid}, running since ${owner.startedAt}${where}.`,
    `Use that one, or end it (kill ${owner.pid}), or choose another data directory.`,
  );
}

/** The persisted id; anything unreadable in its place is replaced. Runs under the lock. */
async function readNodeId(runDir: string): Promise<string> {
  const file = join(runDir, 'node-id');
  const known = (await readFile(file, 'utf8').catch(() => '')).trim();
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(known)) return known;
  const fresh = randomUUID();
  // Written aside and moved in place: a crash leaves the whole id or none.
  const draft = `${file}.${fresh}`;
  await writeFile(draft, `${fresh}\n`, { mode: 0o600, flush: true });
  await rename(draft, file);
  return fresh;
}
