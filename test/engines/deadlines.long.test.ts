/** The deadlines that calls to engines have where nobody sets others: 5 s for a connection, 30 s for an answer. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { DIALECTS } from '../../src/engines/dialects.js';

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

function adapterFor(port: number) {
  const adapter = DIALECTS.llamacpp.adapter({
    ...{ baseUrl: `http://127.0.0.1:${port}`, servedModel: 'm', slots: 1, contextLength: 512, otherUrls: [] },
  });
  ends.push(() => void adapter.close());
  return adapter;
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  await work().catch(() => {});
  return (performance.now() - before) / 1000;
}

const never = new AbortController().signal;

it('an engine that accepts and never answers is given up after 30 s', { timeout: 60_000 }, async () => {
  const server = createServer(() => {}).listen(0, '127.0.0.1');
  await once(server, 'listening');
  ends.push(() => void server.close());
  const address = server.address();
  const { port } = typeof address === 'object' && address !== null ? address : { port: 0 };
  // A question about now is asked once.
  const seconds = await secondsOf(() => adapterFor(port).health(never));
  expect(seconds).toBeGreaterThan(29);
  expect(seconds).toBeLessThan(40);
});

it('an engine that takes no connection is given up after 5 s', { timeout: 60_000 }, async () => {
  const script = `const s = require('node:net').createServer(() => {}).listen({ port: 0, host: '127.0.0.1', backlog: 1 },
    () => console.log(s.address().port))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  ends.push(() => void child.kill('SIGKILL'));
  const [line] = await once(child.stdout, 'data');
  child.kill('SIGSTOP');
  const port = Number(String(line));
  // What waits to be accepted is full with a few, and from then on the kernel lets nobody in.
  const waiting: Socket[] = Array.from({ length: 8 }, () => connect(port, '127.0.0.1').on('error', () => {}));
  ends.push(() => {
    for (const socket of waiting) socket.destroy();
  });
  await expect.poll(() => waiting.filter(({ connecting }) => !connecting).length).toBeGreaterThan(0);
  const seconds = await secondsOf(() => adapterFor(port).health(never));
  expect(seconds).toBeGreaterThan(4);
  expect(seconds).toBeLessThan(15);
});
