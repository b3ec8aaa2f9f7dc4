/**
 * Looks at every process of a home ten times a second: which engines live, whether one was started beside its
 * predecessor, and how much memory the control plane has.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isAlive, listPids, readStat } from '../../src/host/procfs.js';

const LOOK_EVERY_MS = 100;

export interface EngineSeen {
  readonly pid: number;
  readonly startTimeTicks: number;
  readonly replicaId: string;
  readonly mark: string;
  /** Of its process group: the engine itself, and not one of its helpers. */
  readonly leads: boolean;
}

export class ProcessWatch {
  /** In words, each pair once. */
  readonly doubleStarts = new Map<string, string>();
  /** Marks of all engines that were ever seen, by replica. */
  readonly marks = new Map<string, Set<string>>();
  peakRssBytes = 0;
  rssBytes = 0;
  looks = 0;
  slowestLookMs = 0;
  readonly #markPrefix: string;
  readonly #controlPlane: () => number;
  readonly #timer: NodeJS.Timeout;

  /** @param controlPlane its pid now. */
  constructor(home: string, controlPlane: () => number) {
    const nodeId = readFileSync(join(home, 'run', 'node-id'), 'utf8').trim();
    this.#markPrefix = `LLAMA_ORCH_MARK=${nodeId}/`;
    this.#controlPlane = controlPlane;
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Engines and their helpers that live now. */
  engines(): EngineSeen[] {
    return listPids().flatMap((pid) => this.#engineOf(pid) ?? []);
  }

  #engineOf(pid: number): EngineSeen | null {
    const environment = readOrEmpty(`/proc/${pid}/environ`);
    const found = environment.split('\0').find((entry) => entry.startsWith(this.#markPrefix));
    if (found === undefined) return null;
    const stat = readStat(pid);
    if (stat === null || stat.state === 'Z' || stat.state === 'X') return null;
    const mark = found.slice('LLAMA_ORCH_MARK='.length);
    const { startTimeTicks, groupId } = stat;
    return { pid, startTimeTicks, mark, replicaId: mark.split('/')[1] ?? '', leads: groupId === pid };
  }

  #look(): void {
    const startedMs = performance.now();
    const leaders = this.engines().filter(({ leads }) => leads);
    for (const engine of leaders) {
      const marks = this.marks.get(engine.replicaId) ?? new Set();
      this.marks.set(engine.replicaId, marks.add(engine.mark));
      for (const other of leaders) this.#compare(engine, other);
    }
    const rss = /VmRSS:\s+(\d+) kB/.exec(readOrEmpty(`/proc/${this.#controlPlane()}/status`))?.[1];
    this.rssBytes = Number(rss ?? 0) * 1024;
    this.peakRssBytes = Math.max(this.peakRssBytes, this.rssBytes);
    this.looks += 1;
    this.slowestLookMs = Math.max(this.slowestLookMs, performance.now() - startedMs);
  }

  /** One look takes time, in which one may go and its successor come: only two that both still live are two at once. */
  #compare(one: EngineSeen, other: EngineSeen): void {
    if (one.replicaId !== other.replicaId || one.mark >= other.mark) return;
    if (!isAlive(one.pid, one.startTimeTicks) || !isAlive(other.pid, other.startTimeTicks)) return;
    const text = `${one.replicaId}: pid ${one.pid} (${one.mark}) and pid ${other.pid} (${other.mark})`;
    this.doubleStarts.set(`${one.mark} ${other.mark}`, `${new Date().toISOString()} ${text}`);
  }
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
