/** Log files that other programs write into: bounded, and readable from their end. */
import { copyFileSync, openSync, statSync, truncateSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { showable } from './logLines.js';

/** Above this a log moves to `<file>.1`, so one program holds at most twice this. */
const maxLogBytes = 32 * 1024 * 1024;
const tailBytes = 64 * 1024;

/** Where the engine of a replica writes. */
export function engineLogFile(logsDir: string, replicaId: string): string {
  return join(logsDir, `engine-${replicaId}.log`);
}

/** Opens a log for a child's stdout and stderr, appending. The caller closes the descriptor after the spawn. */
export function openLog(file: string): number {
  trimLog(file);
  return openSync(file, 'a', 0o600);
}

/**
 * Copies an oversized log to `<file>.1` and empties it. The writer keeps its descriptor: it appends, so it goes on at
 * the new end. What it writes between the two steps is lost, which is the price of not standing between it and its log.
 */
export function trimLog(file: string, maxBytes: number = maxLogBytes): void {
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) <= maxBytes) return;
  copyFileSync(file, `${file}.1`);
  truncateSync(file, 0);
}

/** Size of a log now, bytes; 0 when it is missing. With it `tailLines` can show only what came after. */
export function logSizeBytes(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

/**
 * The last `lines` lines, oldest first, out of the last `maxBytes` (64 KiB) and from byte `fromByte` on. Terminal escapes and
 * control characters are removed: the text goes to terminals and dashboards. A missing file has no lines.
 */
export async function tailLines(
  file: string,
  lines: number,
  fromByte = 0,
  maxBytes = tailBytes,
): Promise<readonly string[]> {
  const handle = await open(file, 'r').catch(() => null);
  if (handle === null) return [];
  try {
    const { size } = await handle.stat();
    const start = Math.max(fromByte <= size ? fromByte : 0, size - maxBytes);
    const buffer = Buffer.alloc(size - start);
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, start);
    const all = buffer.subarray(0, bytesRead).toString('utf8').split('\n').map(showable);
    if (all.at(-1) === '') all.pop();
    return lines > 0 ? all.slice(-lines) : [];
  } finally {
    await handle.close();
  }
}

/** Keeps a log bounded while its writer runs. Returns the function that ends the watch. */
export function watchLog(file: string): () => void {
  const timer = setInterval(() => {
    try {
      trimLog(file);
    } catch {
      // A full disk or a removed folder: the next round tries again, and the writer must not fall for it.
    }
  }, 30_000);
  timer.unref();
  return () => clearInterval(timer);
}
