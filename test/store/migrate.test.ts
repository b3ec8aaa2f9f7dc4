import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { schemaDiff } from '../../scripts/schema-diff.mjs';
import { migrate, readMigrations } from '../../src/store/migrate.js';
import { createDatabase } from '../support/database.js';

const FOLDER = 'prisma/migrations';

describe('migrations', () => {
  it('make the database that prisma/schema.prisma describes', async () => {
    await using database = await createDatabase();
    expect(await schemaDiff(database.url)).toBe('');
    await database.query('ALTER TABLE sessions ADD COLUMN extra int');
    expect(await schemaDiff(database.url)).toContain('DROP COLUMN "extra"');
  });

  it('are applied once, also by many at the same time, and recorded as Prisma does', async () => {
    await using database = await createDatabase({ empty: true });
    const names = readMigrations(FOLDER).map((migration) => migration.name);
    const runs = await Promise.all([1, 2, 3].map(() => migrate(database.url, FOLDER)));
    expect(runs.flat()).toEqual(names);
    const rows = await database.query<{ migration_name: string; checksum: string }>(
      `SELECT migration_name, checksum FROM _prisma_migrations WHERE finished_at IS NOT NULL AND applied_steps_count = 1`,
    );
    expect(rows).toEqual(readMigrations(FOLDER).map(({ name, checksum }) => ({ migration_name: name, checksum })));
  });

  it('are refused on drift, on the unknown and on the unfinished', async () => {
    await using database = await createDatabase();
    await database.query(`UPDATE _prisma_migrations SET finished_at = NULL`);
    await expect(migrate(database.url, FOLDER)).rejects.toThrow('never finished');
    await database.query(`UPDATE _prisma_migrations SET finished_at = now(), checksum = 'x'`);
    await expect(migrate(database.url, FOLDER)).rejects.toThrow('was changed after it was applied');
    await database.query(`UPDATE _prisma_migrations SET migration_name = '29990101_future'`);
    await expect(migrate(database.url, FOLDER)).rejects.toThrow('does not know');
  });

  it('are undone as a whole when one fails', async () => {
    await using database = await createDatabase();
    const folder = await mkdtemp(join(tmpdir(), 'llama-orch-migrations-'));
    await cp(FOLDER, folder, { recursive: true });
    await cp(join(folder, readMigrations(FOLDER)[0]?.name ?? ''), join(folder, '29990101_bad'), { recursive: true });
    await writeFile(join(folder, '29990101_bad', 'migration.sql'), 'CREATE TABLE half (id int); SELECT nonsense();');
    await expect(migrate(database.url, folder)).rejects.toThrow('29990101_bad');
    expect(await database.query(`SELECT 1 FROM pg_tables WHERE tablename = 'half'`)).toEqual([]);
    await rm(folder, { recursive: true });
  });
});
