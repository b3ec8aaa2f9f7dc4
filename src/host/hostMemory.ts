/** How much host memory is left for this process: the machine's, or what its control group (container) allows. */
import { existsSync, readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';

export interface HostMemory {
  readonly totalBytes: number;
  readonly availableBytes: number;
  /** Whose limit both numbers tell: a control group's when it leaves less than the machine has. */
  readonly limitedBy: 'machine' | 'cgroup';
}

interface Amounts {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

/** Where the kernel shows them. */
export interface KernelFolders {
  readonly proc: string;
  readonly cgroup: string;
}

export const KERNEL_FOLDERS: KernelFolders = { proc: '/proc', cgroup: '/sys/fs/cgroup' };
const KIB = 1024;
/** Groups nest; deeper than this nobody nests them. */
const MAX_DEPTH = 32;

/** Synchronous: these files are made by the kernel in memory and never wait for a disk. */
export function readHostMemory(folders: KernelFolders = KERNEL_FOLDERS): HostMemory {
  const machine = parseMeminfo(read(join(folders.proc, 'meminfo')) ?? '') ?? {
    totalBytes: totalmem(),
    availableBytes: freemem(),
  };
  let memory: HostMemory = { ...machine, limitedBy: 'machine' };
  for (const group of readGroups(folders)) {
    const totalBytes = Math.min(memory.totalBytes, group.totalBytes);
    const availableBytes = Math.min(memory.availableBytes, group.availableBytes);
    if (totalBytes === memory.totalBytes && availableBytes === memory.availableBytes) continue;
    memory = { totalBytes, availableBytes, limitedBy: 'cgroup' };
  }
  return memory;
}

/** Null without a total. A kernel that does not know MemAvailable (before 3.14) gets what is free or reclaimable. */
export function parseMeminfo(text: string): Amounts | null {
  const field = (name: string): number | null => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1];
    return kib === undefined ? null : Number(kib) * KIB;
  };
  const totalBytes = field('MemTotal');
  if (totalBytes === null || totalBytes === 0) return null;
  const reclaimable = ['MemFree', 'Buffers', 'Cached'].reduce((sum, name) => sum + (field(name) ?? 0), 0);
  return { totalBytes, availableBytes: Math.min(totalBytes, field('MemAvailable') ?? reclaimable) };
}

/** The paths of a process's control groups in /proc/PID/cgroup; null where it has none of that version. */
export function parseCgroups(text: string): { readonly v2: string | null; readonly v1Memory: string | null } {
  let v2: string | null = null;
  let v1Memory: string | null = null;
  for (const line of text.split('\n')) {
    const [, hierarchy, controllers, path] = /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    if (hierarchy === '0' && controllers === '') v2 = path;
    if (controllers?.split(',').includes('memory') === true) v1Memory = path;
  }
  return { v2, v1Memory };
}

/** The number of a limit or usage file; null for `max` and whatever is no number. */
export function parseCgroupBytes(text: string): number | null {
  return /^\d+\s*$/.test(text) ? Number(text) : null;
}

/** Cached file pages that are given up first, out of memory.stat; they count as used and are not. */
export function parseInactiveFileBytes(text: string, version: 1 | 2): number {
  // Version 1 has both: the group's own, and with the groups below it, as its usage is.
  const name = version === 2 ? 'inactive_file' : 'total_inactive_file';
  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
}

/** Where the control groups of this process show themselves, by version; null where it has none. In a container that is the mount. */
export function cgroupFolders({ proc, cgroup }: KernelFolders): {
  readonly v2: string | null;
  readonly v1Memory: string | null;
} {
  const { v2, v1Memory } = parseCgroups(read(join(proc, 'self', 'cgroup')) ?? '');
  const folderOf = (mount: string, path: string | null) =>
    path === null ? null : (ancestors(mount, path).findLast((folder) => existsSync(folder)) ?? null);
  return { v2: folderOf(cgroup, v2), v1Memory: folderOf(join(cgroup, 'memory'), v1Memory) };
}

/** Every limit above this process: a group is held by those it lies in too. */
function readGroups({ proc, cgroup }: KernelFolders): Amounts[] {
  const { v2, v1Memory } = parseCgroups(read(join(proc, 'self', 'cgroup')) ?? '');
  return [
    ...(v2 === null ? [] : ancestors(cgroup, v2).map((folder) => readGroup(folder, 2))),
    ...(v1Memory === null ? [] : ancestors(join(cgroup, 'memory'), v1Memory).map((folder) => readGroup(folder, 1))),
  ].filter((group) => group !== null);
}

/** The group's folder and those above it. In a container some do not exist here: the mount shows its own as the root. */
function ancestors(mount: string, path: string): string[] {
  const names = path.split('/').filter((name) => name !== '' && name !== '.' && name !== '..');
  const depth = Math.min(names.length, MAX_DEPTH);
  return Array.from({ length: depth + 1 }, (_, length) => join(mount, ...names.slice(0, length)));
}

function readGroup(folder: string, version: 1 | 2): Amounts | null {
  const [limitFile, usageFile] =
    version === 2 ? ['memory.max', 'memory.current'] : ['memory.limit_in_bytes', 'memory.usage_in_bytes'];
  const totalBytes = parseCgroupBytes(read(join(folder, limitFile)) ?? '');
  const usedBytes = parseCgroupBytes(read(join(folder, usageFile)) ?? '');
  if (totalBytes === null || usedBytes === null) return null;
  const inactiveBytes = parseInactiveFileBytes(read(join(folder, 'memory.stat')) ?? '', version);
  const busyBytes = Math.max(0, usedBytes - inactiveBytes);
  return { totalBytes, availableBytes: Math.max(0, totalBytes - busyBytes) };
}

function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}
