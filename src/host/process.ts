/**
 * Engine processes: each leads its own process group, writes its log by itself and carries an ownership mark, so it
 * survives our death and can be recognised, and ended whole, by the next start.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { logSizeBytes, openLog, tailLines, watchLog } from './logFile.js';
import { groupMembers, hasEnvironment, isAlive, listPids, readStat, sendSignal, waitUntil } from './procfs.js';
import { errnoOf, messageOf, StartupError } from './startupError.js';

export const markVariable = 'LLAMA_ORCH_MARK';

/** Once its leader is gone, what is left of a group gets this long to follow. */
const orphanGraceMs = 1000;
/** A process that SIGKILL does not end sits in the kernel, as a rule in a GPU driver. */
const killDeadlineMs = 30_000;

export interface EngineSpawn {
  /** Absolute path, or a name to look up in PATH. */
  readonly file: string;
  readonly args: readonly string[];
  /** Added to the minimal environment; nothing else of ours reaches the engine. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly logFile: string;
  /** Who owns the process, unique among those that run: what carries it is ended with it, and `reapOrphan` demands it. */
  readonly mark: string;
}

/** Neither is known of a process that is not our child. */
export interface ExitFacts {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface EngineProcess {
  readonly pid: number;
  /** See ProcessStat; 0 when the process was gone before it could be read. */
  readonly startTimeTicks: number;
  /** Resolves once when the leader ends; never rejects. Its helpers may still run: `stop` clears them. */
  readonly exited: Promise<ExitFacts>;
  /** Whether its end has been told already. */
  readonly hasExited: boolean;
  /**
   * SIGTERM to the leader, up to `graceMs`, then SIGKILL to the group and to helpers outside it. Resolves only when all
   * are gone; `forced` tells whether SIGKILL was needed. Safe to repeat, and right after a crash too. Rejects when one
   * outlives SIGKILL by 30 s.
   */
  stop(options: { readonly graceMs: number }): Promise<{ forced: boolean }>;
  /** Last lines that this process wrote, oldest first, free of control characters. */
  tail(lines: number, maxBytes?: number): Promise<readonly string[]>;
}

/** Starts an engine. Throws StartupError when the program or its folder is missing or cannot be run. */
export function spawnEngineProcess(spec: EngineSpawn): EngineProcess {
  const file = findExecutable(spec.file, spec.env.PATH ?? process.env.PATH ?? '');
  if (statSync(spec.cwd, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new StartupError(`The engine's working folder ${spec.cwd} does not exist.`, 'Create it.');
  }
  const { child, logStart } = spawnLogged(file, spec);
  const pid = child.pid;
  const exited = new Promise<ExitFacts>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.once('error', () => resolve({ code: null, signal: null }));
  });
  if (pid === undefined) {
    throw new StartupError(
      `The engine ${file} could not be started: its interpreter is missing, or this user is out of processes or open files.`,
      `Run it by hand to see the reason: ${file} --help`,
    );
  }
  // A running engine must not keep us alive: it outlives us, and the next start finds it by pid and mark.
  child.unref();
  const endWatch = watchLog(spec.logFile);
  let hasExited = false;
  void exited.then(() => {
    hasExited = true;
    endWatch();
  });
  const startTimeTicks = readStat(pid)?.startTimeTicks ?? 0;
  let forced = false;
  return {
    pid,
    startTimeTicks,
    exited,
    get hasExited() {
      return hasExited;
    },
    stop: async ({ graceMs }) => {
      if (await stopEngine({ pid, startTimeTicks, mark: spec.mark, graceMs })) forced = true;
      // The report of the end must still reach us, also when nothing else keeps this process going.
      child.ref();
      await exited;
      return { forced };
    },
    tail: (lines, maxBytes) => tailLines(spec.logFile, lines, logStart, maxBytes),
  };
}

/** How often a process that is not our child is looked for; the system tells only parents of an end. */
const adoptedLookMs = 250;

/** Takes over an engine that an earlier life of this program started; null when it is not there, or not ours. */
export function adoptEngineProcess(facts: {
  readonly pid: number;
  readonly startTimeTicks: number;
  readonly mark: string;
  readonly logFile: string;
}): EngineProcess | null {
  const { pid, startTimeTicks, mark, logFile } = facts;
  if (!isAlive(pid, startTimeTicks) || !hasEnvironment(pid, markVariable, mark)) return null;
  const endWatch = watchLog(logFile);
  const logStart = logSizeBytes(logFile);
  const exited = new Promise<ExitFacts>((resolve) => {
    const timer = setInterval(() => {
      if (isAlive(pid, startTimeTicks)) return;
      clearInterval(timer);
      endWatch();
      resolve({ code: null, signal: null });
    }, adoptedLookMs).unref();
  });
  return {
    pid,
    startTimeTicks,
    exited,
    get hasExited() {
      return !isAlive(pid, startTimeTicks);
    },
    stop: async ({ graceMs }) => ({ forced: await stopEngine({ pid, startTimeTicks, mark, graceMs }) }),
    tail: (lines, maxBytes) => tailLines(logFile, lines, logStart, maxBytes),
  };
}

/** A process of an earlier life of this program, as it was written down when it was started. */
export interface OrphanFacts {
  readonly pid: number;
  readonly startTimeTicks: number;
  readonly mark: string;
  readonly graceMs: number;
}

/**
 * Ends an engine left behind by an earlier process. `gone`: neither it nor its helpers run. `reaped`: ended now, the
 * group is gone. `foreign`: the pid belongs to something else (other start time or mark) and was not touched.
 * Rejects when the group outlives SIGKILL.
 */
export async function reapOrphan(facts: OrphanFacts): Promise<'gone' | 'reaped' | 'foreign'> {
  const { pid, startTimeTicks, mark } = facts;
  // 0, 1 and negative numbers would address groups, everything, or init.
  if (!Number.isSafeInteger(pid) || pid <= 1) return 'foreign';
  if (isReused(pid, startTimeTicks)) return 'foreign';
  const members = groupMembers(pid);
  if (isAlive(pid, startTimeTicks)) {
    if (!hasEnvironment(pid, markVariable, mark)) return 'foreign';
  } else {
    if (members.length === 0) return (await endStrays(facts)) ? 'reaped' : 'gone';
    if (!members.some((member) => hasEnvironment(member, markVariable, mark))) return 'foreign';
  }
  await stopEngine(facts);
  return 'reaped';
}

/**
 * True when the pid runs something that started at another time. Its mark says nothing then: it may be a newer engine
 * of the same owner. The kernel gives out no number that is still a group's, so nothing of ours is left under it.
 */
function isReused(pid: number, startTimeTicks: number): boolean {
  const stat = readStat(pid);
  return stat !== null && stat.state !== 'Z' && stat.state !== 'X' && stat.startTimeTicks !== startTimeTicks;
}

function spawnLogged(file: string, spec: EngineSpawn): { readonly child: ChildProcess; readonly logStart: number } {
  const log = openLog(spec.logFile);
  const logStart = logSizeBytes(spec.logFile);
  try {
    // detached: its own group, so a terminal's Ctrl-C does not reach it and one signal ends it with all its helpers.
    const child = spawn(file, [...spec.args], {
      cwd: spec.cwd,
      env: engineEnvironment(spec),
      detached: true,
      stdio: ['ignore', log, log],
    });
    return { child, logStart };
  } finally {
    closeSync(log);
  }
}

function engineEnvironment(spec: EngineSpawn): Record<string, string> {
  const env: Record<string, string> = { LANG: process.env.LANG ?? 'C.UTF-8' };
  for (const name of ['PATH', 'HOME']) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  return { ...env, ...spec.env, [markVariable]: spec.mark };
}

/** Absolute path of a program that may be executed. Throws StartupError naming what is wrong with it. */
function findExecutable(file: string, searchPath: string): string {
  const candidates = file.includes('/') ? [file] : searchPath.split(delimiter).map((folder) => join(folder, file));
  let found: unknown;
  for (const candidate of candidates) {
    try {
      if (!statSync(candidate).isFile()) continue;
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch (error) {
      if (errnoOf(error) === 'EACCES' || found === undefined) found = error;
    }
  }
  if (errnoOf(found) === 'EACCES') {
    throw new StartupError(`The engine binary ${file} may not be executed.`, `Make it executable: chmod +x ${file}`, {
      cause: found,
    });
  }
  const reason = found === undefined || errnoOf(found) === 'ENOENT' ? 'it does not exist' : messageOf(found);
  throw new StartupError(
    `The engine binary ${file} is missing: ${reason}.`,
    'Install the engine, or set the path of its program in the configuration.',
    { cause: found },
  );
}

/**
 * Ends what an engine consists of: the group it leads, and helpers that lead groups of their own (TGI's shards do),
 * which are known by the mark they inherited. Returns whether SIGKILL was needed.
 */
async function stopEngine(facts: OrphanFacts): Promise<boolean> {
  const deadline = performance.now() + facts.graceMs;
  const forced = await stopGroup(facts);
  const restMs = Math.min(orphanGraceMs, Math.max(0, deadline - performance.now()));
  return (await endStrays({ ...facts, graceMs: restMs })) || forced;
}

/** Ends what carries the mark wherever it is; true when SIGKILL was needed. */
async function endStrays({ pid, mark, graceMs }: OrphanFacts): Promise<boolean> {
  // By pid, with the start: one that is dying has lost its environment before it has ended.
  const seen = new Map<number, number>();
  const strays = (): readonly number[] => {
    for (const other of listPids()) {
      if (other === process.pid || !hasEnvironment(other, markVariable, mark)) continue;
      seen.set(other, readStat(other)?.startTimeTicks ?? 0);
    }
    return [...seen].filter(([other, startTimeTicks]) => isAlive(other, startTimeTicks)).map(([other]) => other);
  };
  const noneLeft = (): boolean => strays().length === 0;
  if (await waitUntil(noneLeft, graceMs)) return false;
  for (const stray of strays()) sendSignal(stray, 'SIGKILL');
  if (await waitUntil(noneLeft, killDeadlineMs)) return true;
  throw unkillable(pid, strays());
}

/** Ends a group we own; see EngineProcess.stop. Returns whether SIGKILL was needed. */
async function stopGroup({ pid, startTimeTicks, mark, graceMs }: OrphanFacts): Promise<boolean> {
  const deadline = performance.now() + graceMs;
  const leads = (): boolean => isAlive(pid, startTimeTicks);
  const gone = (): boolean => groupMembers(pid).length === 0;
  if (leads()) sendSignal(pid, 'SIGTERM');
  const left = await waitUntil(() => !leads(), graceMs);
  const restMs = left ? Math.min(orphanGraceMs, Math.max(0, deadline - performance.now())) : 0;
  if (await waitUntil(gone, restMs)) return false;
  // Without its leader a group is ours only by its mark: the number may have been given to another group since.
  if (isReused(pid, startTimeTicks)) return false;
  if (!leads() && !groupMembers(pid).some((member) => hasEnvironment(member, markVariable, mark))) return false;
  sendSignal(-pid, 'SIGKILL');
  if (await waitUntil(gone, killDeadlineMs)) return true;
  throw unkillable(pid, groupMembers(pid));
}

function unkillable(pid: number, survivors: readonly number[]): Error {
  return new Error(
    `Processes ${survivors.join(', ')} of engine ${pid} survived SIGKILL for ${killDeadlineMs / 1000} s; a hung device driver is the usual cause.`,
  );
}
