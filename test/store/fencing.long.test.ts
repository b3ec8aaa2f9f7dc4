import { expect, it } from 'vitest';
import { Database } from '../../src/store/database.js';
import { startOwnPostgres } from '../support/ownPostgres.js';

it('a crash of the database loses claims, and gives none of their numbers again', async () => {
  await using postgres = await startOwnPostgres();
  await using db = new Database(postgres.url, () => {});
  const next = async () => {
    const rows = await db.relaxedQuery<{ id: string }>(
      { name: 'n', text: `SELECT nextval('leases_id_seq') AS id` },
      [],
    );
    return Number(rows[0]?.id);
  };
  const given = new Set<number>();
  for (let crash = 0; crash < 4; crash += 1) {
    const numbers = await Promise.all(Array.from({ length: 200 }, next));
    for (const number of numbers) {
      expect(given).not.toContain(number);
      given.add(number);
    }
    await postgres.stop('immediate');
    await postgres.start();
    await expect.poll(() => db.query({ name: 'one', text: 'SELECT 1' }, []).catch(() => null)).not.toBeNull();
  }
}, 120_000);

it('connections that come at the same moment, of any node, give no number twice', async () => {
  await using postgres = await startOwnPostgres();
  const given: string[] = [];
  for (let round = 0; round < 5; round += 1) {
    const nodes = Array.from({ length: 8 }, () => new Database(postgres.url, () => {}));
    const claim = (db: Database) =>
      db.relaxedQuery<{ id: string }>({ name: 'n', text: `SELECT nextval('leases_id_seq') AS id` }, []);
    const claims = nodes.flatMap((db) => Array.from({ length: 20 }, () => claim(db)));
    for (const rows of await Promise.all(claims)) given.push(...rows.map(({ id }) => id));
    await Promise.all(nodes.map((db) => db.close()));
  }
  expect(new Set(given).size).toBe(given.length);
}, 120_000);
