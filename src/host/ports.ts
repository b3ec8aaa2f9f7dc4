/** Loopback TCP ports: free ones for what is to be started, and whether those of what has ended are free again. */
import { createServer, type Server } from 'node:net';
import { delay } from '../runtime/wait.js';

const LOOK_EVERY_MS = 50;

/**
 * Free loopback TCP ports, all different, picked by the kernel. Nothing reserves them: bind them soon and be ready to
 * ask again.
 */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  try {
    return await Promise.all(servers.map(listenAnywhere));
  } finally {
    for (const server of servers) server.close();
  }
}

export async function freePort(): Promise<number> {
  const [port = 0] = await freePorts(1);
  return port;
}

function listenAnywhere(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      if (address === null || typeof address === 'string') reject(new Error('no TCP address'));
      else resolve(address.port);
    });
  });
}

/** Of these, the ports that somebody still listens on when the deadline has passed. */
export async function heldPorts(ports: readonly number[], deadlineMs: number): Promise<readonly number[]> {
  let held: readonly number[] = ports;
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const looks = await Promise.all(held.map(async (port) => ({ port, free: await isFree(port) })));
    held = looks.filter(({ free }) => !free).map(({ port }) => port);
    if (held.length === 0 || performance.now() >= deadline) return held;
    await delay(LOOK_EVERY_MS);
  }
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
