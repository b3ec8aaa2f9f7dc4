/** Whether the kernel has just killed a process of ours because memory was short. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cgroupFolders, KERNEL_FOLDERS, type KernelFolders } from './hostMemory.js';

/** A kill is counted before its process is told to be gone, and several may go in one shortage. */
const LATELY_MS = 5_000;

/**
 * How many processes the kernel has killed for lack of memory: in the control group of this process and those below it,
 * or on the whole machine where groups do not count. Null: it does not tell.
 */
export function readOomKills(folders: KernelFolders = KERNEL_FOLDERS): number | null {
  const { v2, v1Memory } = cgroupFolders(folders);
  return (
    countIn(v2, 'memory.events') ?? countIn(v1Memory, 'memory.oom_control') ?? countIn(folders.proc, 'vmstat') ?? null
  );
}

function countIn(folder: string | null, file: string): number | null {
  if (folder === null) return null;
  try {
    const count = /^oom_kill (\d+)$/m.exec(readFileSync(join(folder, file), 'utf8'))?.[1];
    return count === undefined ? null : Number(count);
  } catch {
    return null;
  }
}

/** Follows the kernel's count. The more often it is asked, the less it takes an old kill for a new one. */
export class OomKills {
  readonly #read: () => number | null;
  readonly #nowMs: () => number;
  #count: number | null;
  #roseAtMs = Number.NEGATIVE_INFINITY;

  constructor(read: () => number | null = readOomKills, nowMs: () => number = () => performance.now()) {
    this.#read = read;
    this.#nowMs = nowMs;
    this.#count = read();
  }

  /** Whether it has risen within the last seconds, or since it was asked last; null: the kernel does not tell. */
  lately(): boolean | null {
    const before = this.#count;
    this.#count = this.#read();
    if (this.#count === null) return null;
    if (before !== null && this.#count > before) this.#roseAtMs = this.#nowMs();
    return this.#nowMs() - this.#roseAtMs <= LATELY_MS;
  }
}
