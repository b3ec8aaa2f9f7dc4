/**
 * Engines that an earlier life of this program started, and was killed before it could write them down: nothing names
 * them but the mark they carry.
 */
import { markVariable, type OrphanFacts, reapOrphan } from './process.js';
import { listPids, readEnvironment, readStat } from './procfs.js';

/**
 * Ends, all at once, what carries a mark that begins with `owner/` and that nobody knows. Finds nothing where there is no
 * /proc. @returns the marks that were ended. @param onSurvivor told of those that outlive SIGKILL.
 */
export async function reapUnrecorded(
  owner: string,
  isKnown: (mark: string) => boolean,
  graceMs: number,
  onSurvivor: (mark: string, error: unknown) => void,
): Promise<readonly string[]> {
  const found = new Map<string, OrphanFacts>();
  for (const pid of listPids()) {
    const mark = readEnvironment(pid, markVariable);
    if (mark === null || !mark.startsWith(`${owner}/`) || isKnown(mark)) continue;
    const stat = readStat(pid);
    if (stat === null || stat.state === 'Z' || stat.state === 'X') continue;
    // Told to end is the engine itself; its helpers carry the same mark and go with it.
    if (!found.has(mark) || stat.groupId === pid) {
      found.set(mark, { pid, startTimeTicks: stat.startTimeTicks, mark, graceMs });
    }
  }
  const ended: string[] = [];
  const reap = async ([mark, orphan]: [string, OrphanFacts]): Promise<void> => {
    await reapOrphan(orphan).then(
      () => ended.push(mark),
      (error: unknown) => onSurvivor(mark, error),
    );
  };
  await Promise.all([...found].map(reap));
  return ended;
}
