/** A listening connection whose other end vanished without a word. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { expect, it } from 'vitest';
import { Wakes } from '../../src/services/cluster/wakes.js';
import { Database } from '../../src/store/database.js';
import { notify } from '../../src/store/notices.js';
import { createDatabase } from '../support/database.js';

it('is given up within 15 s, and after it everything is looked for', { timeout: 60_000 }, async () => {
  await using database = await createDatabase();
  const target = new URL(database.url);
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}));
    client.pipe(upstream).pipe(client);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no TCP address');
  const through = new URL(database.url);
  through.host = `127.0.0.1:${address.port}`;

  await using near = new Database(String(through), () => {});
  await using far = new Database(database.url, () => {});
  const heard = { queue: 0, stop: 0, log: 0 };
  const errors: string[] = [];
  const hear = (what: keyof typeof heard) => () => {
    heard[what] += 1;
  };
  const on = { queue: hear('queue'), stop: hear('stop'), log: hear('log') };
  const onError = (name: string) => void errors.push(name);
  const wakes = new Wakes({ db: near, nodeId: 'near', hasOthers: () => true, on, onError });
  wakes.start();
  try {
    await expect.poll(() => heard).toEqual({ queue: 1, stop: 1, log: 1 });
    await notify(far, ['queue far', 'stop near', 'nonsense']);
    await expect.poll(() => heard.queue).toBe(2);
    expect(heard).toEqual({ queue: 2, stop: 1, log: 1 });
    // Nothing comes through any more, and nobody says so.
    const half = [...sockets];
    for (const socket of half) socket.unpipe().pause();
    await notify(far, ['queue far']);
    await expect.poll(() => heard, { timeout: 15_000 }).toEqual({ queue: 3, stop: 2, log: 2 });
    expect(errors).toEqual(['wakes']);
  } finally {
    await wakes.stop();
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});
