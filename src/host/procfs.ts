/**
 * What the operating system says about processes. Linux reads /proc, other systems ask `ps`. All reads are
 * synchronous: /proc never waits for a disk, and between a check and a signal nothing else should run.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const linux = process.platform === 'linux';

export interface ProcessStat {
  /** One letter as in ps: R, S, D, T, Z (dead, not yet reaped), … */
  readonly state: string;
  readonly groupId: number;
  /** Start time: clock ticks since boot on Linux, seconds since 1970 elsewhere. With the pid it names one process. */
  readonly startTimeTicks: number;
}

/** Facts of one process; null when no such pid exists. */
export function readStat(pid: number): ProcessStat | null {
  if (!linux) return psStat(pid);
  const text = readProc(pid, 'stat');
  if (text === null) return null;
  // The program name stands in brackets and may itself hold spaces and brackets: count from the last one.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, , groupId] = fields;
  const startTimeTicks = fields[19];
  if (state === undefined || groupId === undefined || startTimeTicks === undefined) return null;
  return { state, groupId: Number(groupId), startTimeTicks: Number(startTimeTicks) };
}

/** True while the process with this pid and start time runs; a zombie counts as gone. */
export function isAlive(pid: number, startTimeTicks: number): boolean {
  const stat = readStat(pid);
  return stat !== null && !isDead(stat) && stat.startTimeTicks === startTimeTicks;
}

/** Command line of a process, empty when it is gone. Servers that retitle themselves show one single string. */
export function readCmdline(pid: number): readonly string[] {
  if (!linux)
    return ps(['-ww', '-o', 'command=', '-p', String(pid)])
      .trim()
      .split(' ');
  const text = readProc(pid, 'cmdline') ?? '';
  return text.replace(/\0+$/, '').split('\0');
}

/** True when the process was started with `name=value` in its environment; false also when that cannot be read. */
export function hasEnvironment(pid: number, name: string, value: string): boolean {
  const entry = `${name}=${value}`;
  if (!linux) return ps(['-E', '-ww', '-o', 'command=', '-p', String(pid)]).includes(` ${entry}`);
  return (readProc(pid, 'environ') ?? '').split('\0').includes(entry);
}

/** A variable of the environment a process was started with; null when that cannot be read. */
export function readEnvironment(pid: number, name: string): string | null {
  if (!linux) return null;
  const entries = (readProc(pid, 'environ') ?? '').split('\0');
  return entries.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1) ?? null;
}

/** Living members of a process group. kill(-id, 0) alone would also count zombies nobody has reaped yet. */
export function groupMembers(groupId: number): readonly number[] {
  try {
    process.kill(-groupId, 0);
  } catch {
    return [];
  }
  if (!linux) return [groupId];
  return listPids().filter((pid) => {
    const stat = readStat(pid);
    return stat !== null && stat.groupId === groupId && !isDead(stat);
  });
}

/** Every pid of this machine (of this pid namespace); empty where there is no /proc. */
export function listPids(): readonly number[] {
  if (!linux) return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Sends a signal; false when there was nothing to receive it. A negative pid means a process group. */
export function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

/** Waits until `condition` holds, at most `timeoutMs`. Resolves whether it did; rejects with the signal's reason. */
export async function waitUntil(condition: () => boolean, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  let pauseMs = 5;
  while (!condition()) {
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) return false;
    try {
      await sleep(Math.min(pauseMs, leftMs), undefined, signal === undefined ? {} : { signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
    pauseMs = Math.min(pauseMs * 2, 50);
  }
  return true;
}

function isDead(stat: ProcessStat): boolean {
  return stat.state === 'Z' || stat.state === 'X';
}

function readProc(pid: number, file: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return null;
  }
}

function psStat(pid: number): ProcessStat | null {
  const match = /^\s*(\S)\S*\s+(\d+)\s+(.+?)\s*$/.exec(ps(['-o', 'state=,pgid=,lstart=', '-p', String(pid)]));
  const [, state, groupId, started] = match ?? [];
  if (state === undefined || groupId === undefined || started === undefined) return null;
  return { state, groupId: Number(groupId), startTimeTicks: Math.floor(Date.parse(started) / 1000) };
}

function ps(args: readonly string[]): string {
  try {
    return execFileSync('/bin/ps', args, { encoding: 'utf8', timeout: 2000, stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return '';
  }
}
