/** The answer to the insert of an operation is lost on the way, after it was carried out. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { beginOperation, endOf } from '../support/operations.js';
import { simConfig, startWorld, type World } from '../support/world.js';

/** Answers to be lost: of the insert, and of the question what is under way. */
let toLose = 0;

/** The way to a database, on which an answer may get lost: the statement is carried out, and the connection is gone. */
async function lossyProxy(target: URL) {
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    let lost = false;
    client.on('data', (chunk) => {
      if (toLose > 0 && /operation_(insert|under_way)/.test(String(chunk))) {
        toLose -= 1;
        lost = true;
      }
      upstream.write(chunk);
    });
    upstream.on('data', (chunk) => (lost ? client.destroy() : client.write(chunk)));
    client.on('error', () => {}).once('close', () => upstream.destroy());
    upstream.on('error', () => {}).once('close', () => client.destroy());
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no TCP address');
  const url = new URL(target);
  url.host = `127.0.0.1:${address.port}`;
  return { url: String(url), close: () => server.close() };
}

let world: World;
let proxy: Awaited<ReturnType<typeof lossyProxy>>;
beforeAll(async () => {
  const databaseUrl = async (url: string) => {
    proxy = await lossyProxy(new URL(url));
    return proxy.url;
  };
  world = await startWorld({ config: simConfig({ replicas: 1 }), databaseUrl });
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  proxy.close();
});

const RESUME = 'resumePool(input: { pool: "sim" })';
const rows = () => world.database.query('SELECT kind, state, outcome FROM operations ORDER BY created_at');
const RESUMED = { kind: 'RESUME', state: 'SUCCEEDED', outcome: 'resumed' };

describe('an operation whose insert was not answered', () => {
  it('is known by its id, and carried out once', async () => {
    toLose = 1;
    expect(await endOf(world.url, await beginOperation(world.url, RESUME))).toMatchObject(RESUMED);
    expect(toLose).toBe(0);
    expect(await rows()).toEqual([RESUMED]);
  });

  it('and of which nothing could be learned does not stand in the way of the next', async () => {
    await world.database.query('DELETE FROM operations');
    toLose = 2;
    const document = `mutation { op: ${RESUME} { __typename ... on Refusal { code retriable } } }`;
    const refused = { __typename: 'Unavailable', code: 'POOL_UNAVAILABLE', retriable: true };
    expect((await gql(world.url, document)).data.op).toEqual(refused);
    expect(toLose).toBe(0);
    expect(await rows()).toEqual([{ kind: 'RESUME', state: 'PENDING', outcome: null }]);
    expect(await endOf(world.url, await beginOperation(world.url, RESUME))).toMatchObject(RESUMED);
    expect(await rows()).toEqual([{ kind: 'RESUME', state: 'FAILED', outcome: 'interrupted' }, RESUMED]);
  });
});
