/** A PostgreSQL server process of a given folder: recognising it, and ending it, without ever touching another one. */
import { readFileSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isAlive, listPids, readCmdline, readStat, sendSignal, waitUntil } from './procfs.js';
import type { RunAs } from './reach.js';

const fastDeadlineMs = 10_000;
/** On an immediate stop the server itself kills its helpers after 5 s. */
const immediateDeadlineMs = 8_000;
const killDeadlineMs = 5_000;

export interface Postmaster {
  readonly pid: number;
  readonly startTimeTicks: number;
  readonly port: number;
  /** As the server writes it: `starting`, `stopping`, `ready`, `standby`; empty in its first moments. */
  readonly status: string;
}

/** The server that runs on `pgData`, by its own pid file; null when none does. */
export function findPostmaster(pgData: string): Postmaster | null {
  const file = readPidFile(pgData);
  if (file === null) return null;
  const stat = readStat(file.pid);
  if (stat === null || !isAlive(file.pid, stat.startTimeTicks) || !serves(file.pid, pgData)) return null;
  return { ...file, startTimeTicks: stat.startTimeTicks };
}

/**
 * Removes a pid file whose server is gone. PostgreSQL does so too, except when the pid now belongs to another process
 * of the same user: common in containers, where numbers start small, and it would then refuse to start.
 */
export function removeStalePidFile(pgData: string): void {
  if (findPostmaster(pgData) === null) rmSync(join(pgData, 'postmaster.pid'), { force: true });
}

function readPidFile(pgData: string): { pid: number; port: number; status: string } | null {
  let lines: string[];
  try {
    lines = readFileSync(join(pgData, 'postmaster.pid'), 'utf8').split('\n');
  } catch {
    return null;
  }
  const pid = Number(lines[0]);
  if (!Number.isSafeInteger(pid) || pid <= 1) return null;
  return { pid, port: Number(lines[3]), status: (lines[7] ?? '').trim() };
}

/** True when the process is a postgres with this folder: by its working folder, or, where that is hidden, its -D. */
function serves(pid: number, pgData: string): boolean {
  const [program, ...args] = readCmdline(pid);
  if (basename(program ?? '') !== 'postgres') return false;
  if (args.some((arg, index) => arg === '-D' && args[index + 1] === pgData)) return true;
  try {
    const [its, ours] = [statSync(`/proc/${pid}/cwd`), statSync(pgData)];
    return its.ino === ours.ino && its.dev === ours.dev;
  } catch {
    return false;
  }
}

/**
 * Ends a server: `fast` lets it write everything out and ends connections, `immediate` leaves recovery to the next
 * start; each falls back on the next harsher way at its deadline. Signals only the very process it was given. Rejects
 * when it outlives SIGKILL.
 */
export async function stopPostmaster(
  server: { readonly pid: number; readonly startTimeTicks: number },
  mode: 'fast' | 'immediate',
): Promise<void> {
  const steps: (readonly [NodeJS.Signals, number])[] = [
    ['SIGQUIT', immediateDeadlineMs],
    ['SIGKILL', killDeadlineMs],
  ];
  if (mode === 'fast') steps.unshift(['SIGINT', fastDeadlineMs]);
  const gone = (): boolean => !isAlive(server.pid, server.startTimeTicks);
  for (const [signal, deadlineMs] of steps) {
    if (gone()) return;
    sendSignal(server.pid, signal);
    if (await waitUntil(gone, deadlineMs)) return;
  }
  throw new Error(`PostgreSQL (pid ${server.pid}) survived SIGKILL for ${killDeadlineMs / 1000} s.`);
}

/**
 * Ends helpers whose server was killed. They notice by themselves, but as long as one runs the shared memory counts as
 * in use and the next start is refused. Told apart by the cluster's name in their title, and by their user.
 */
export async function clearStrays(name: string, runAs: RunAs | null): Promise<void> {
  const uid = runAs?.uid ?? process.getuid?.();
  const strays = listPids().flatMap((pid) => {
    if (!(readCmdline(pid)[0] ?? '').startsWith(`postgres: ${name}: `)) return [];
    const stat = readStat(pid);
    return stat !== null && ownerOf(pid) === uid ? [{ pid, startTimeTicks: stat.startTimeTicks }] : [];
  });
  const living = (): typeof strays => strays.filter(({ pid, startTimeTicks }) => isAlive(pid, startTimeTicks));
  for (const signal of ['SIGQUIT', 'SIGKILL'] as const) {
    for (const { pid } of living()) sendSignal(pid, signal);
    if (await waitUntil(() => living().length === 0, killDeadlineMs)) return;
  }
}

function ownerOf(pid: number): number | undefined {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid;
}
