/**
 * One program per data directory. The lock is a listening socket: binding it is atomic, the kernel lets go of it when
 * the process dies, and whoever finds it taken can ask it for the owner's name.
 */
import { createHash } from 'node:crypto';
import { mkdir, rm, rmdir, stat } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from './startupError.js';

const askTimeoutMs = 1000;
const attempts = 20;
const guardPauseMs = 50;
const guardLifeMs = 3000;
/** sun_path holds 104 bytes on macOS, 108 on Linux. */
const maxSocketPathBytes = 100;

export interface LockOwner {
  readonly pid: number;
  /** ISO 8601 */
  readonly startedAt: string;
  /** Where it serves; absent until it listens. */
  readonly address?: string;
}

export type LockResult =
  | { readonly held: true; readonly release: () => Promise<void> }
  /** `owner` is null when it did not answer within 1 s: stopped, or stuck. */
  | { readonly held: false; readonly owner: LockOwner | null };

export interface LockName {
  /** `abstract`: Linux, bound to no file. `file`: a socket file, which a dead owner leaves behind. */
  readonly kind: 'abstract' | 'file';
  readonly path: string;
}

/** The lock of a data directory. `ownerUid`: of the folder, so that root and its owner meet at the same lock. */
export function lockName(realPath: string, ownerUid: number, platform: NodeJS.Platform): LockName {
  const hash = createHash('sha256').update(realPath).digest('hex').slice(0, 32);
  if (platform === 'linux') return { kind: 'abstract', path: `\0llama-orch:${hash}:${ownerUid}` };
  const inside = join(realPath, 'run', 'lock.sock');
  const fits = Buffer.byteLength(inside) <= maxSocketPathBytes;
  return { kind: 'file', path: fits ? inside : join(tmpdir(), `llama-orch-${hash.slice(0, 16)}.sock`) };
}

/** Takes the lock, or tells who has it. `describe` is asked for the owner facts each time someone else knocks. */
export async function takeLock(name: LockName, describe: () => LockOwner): Promise<LockResult> {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const release = await tryListen(name, describe);
    if (release !== null) return { held: true, release };
    const answer = await ask(name.path);
    if (answer.state === 'answered') return { held: false, owner: answer.owner };
    // Nobody behind it: the owner died between our two calls, or long ago and left its file.
    if (name.kind === 'file') await removeStale(name.path);
  }
  return { held: false, owner: null };
}

async function tryListen(name: LockName, describe: () => LockOwner): Promise<(() => Promise<void>) | null> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    socket.setTimeout(askTimeoutMs, () => socket.destroy());
    socket.end(`${JSON.stringify(describe())}\n`);
    socket.resume();
  });
  if (!(await listen(server, name.path))) return null;
  // The lock lasts as long as the process; it is no reason for the process to last.
  server.unref();
  server.on('error', () => {});
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
}

/** False when the address is taken; rejects on any other failure. */
function listen(server: Server, path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      if (errnoOf(error) === 'EADDRINUSE') resolve(false);
      else reject(error);
    };
    server.once('error', failed);
    server.listen({ path, exclusive: true }, () => {
      server.off('error', failed);
      resolve(true);
    });
  });
}

type Answer = { readonly state: 'answered'; readonly owner: LockOwner | null } | { readonly state: 'nobody' };

function ask(path: string): Promise<Answer> {
  return new Promise((resolve) => {
    let text = '';
    let connected = false;
    const socket = connect({ path });
    const finish = (answer: Answer): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => finish({ state: 'answered', owner: null }), askTimeoutMs);
    socket.on('connect', () => {
      connected = true;
    });
    socket.on('data', (chunk) => {
      text += chunk.toString('utf8');
      if (text.includes('\n') || text.length > 4096) finish({ state: 'answered', owner: parseOwner(text) });
    });
    socket.on('error', (error) => {
      // Only a refused or vanished socket proves that nobody listens; a full backlog (EAGAIN) is a stuck owner.
      const refused = ['ECONNREFUSED', 'ENOENT'].includes(errnoOf(error) ?? '');
      finish(refused && !connected ? { state: 'nobody' } : { state: 'answered', owner: null });
    });
    socket.on('close', () => finish({ state: 'nobody' }));
  });
}

function parseOwner(text: string): LockOwner | null {
  try {
    const value: unknown = JSON.parse(text.slice(0, text.indexOf('\n')));
    if (typeof value !== 'object' || value === null) return null;
    const { pid, startedAt, address } = value as Record<string, unknown>;
    if (typeof pid !== 'number' || typeof startedAt !== 'string') return null;
    return typeof address === 'string' ? { pid, startedAt, address } : { pid, startedAt };
  } catch {
    return null;
  }
}

/**
 * Removes a dead owner's socket file. Several programs may have found it dead, and one of them may have bound a new one
 * since: so files are removed only under a guard, and only when still dead there. A dead one never comes back to life.
 */
async function removeStale(path: string): Promise<void> {
  const guard = `${path}.guard`;
  try {
    await mkdir(guard);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    const made = await stat(guard).catch(() => null);
    // Its holder needs a second at most; an older one was left by a program killed in that second.
    if (made !== null && Date.now() - made.mtimeMs > guardLifeMs) await rmdir(guard).catch(() => {});
    await sleep(guardPauseMs);
    return;
  }
  try {
    if ((await ask(path)).state === 'nobody') await rm(path, { force: true });
  } finally {
    await rmdir(guard).catch(() => {});
  }
}
