import { expect, it } from 'vitest';
import { Database } from '../../src/store/database.js';
import { startCutProxy } from '../support/cutProxy.js';
import { createDatabase } from '../support/database.js';

it('a database that falls silent, its connection still standing, is away after a deadline; the next statement has another', async () => {
  await using database = await createDatabase();
  const { hostname, port } = new URL(database.url);
  await using proxy = await startCutProxy({ host: hostname, port: Number(port) });
  await using db = new Database(
    Object.assign(new URL(database.url), { host: `127.0.0.1:${proxy.port}` }).href,
    () => {},
  );
  const statement = { name: 'who', text: 'SELECT pg_backend_pid() AS pid' };
  const ask = () => db.leaseQuery<{ pid: number }>(statement, []);
  const [before] = await ask();
  const silenced = proxy.cutAt({ name: 'who', fate: 'silent' });
  await expect(ask()).rejects.toMatchObject({ refusal: { family: 'unavailable', retriable: true } });
  await silenced;
  const [after] = await ask();
  expect(after?.pid).not.toBe(before?.pid);
});
