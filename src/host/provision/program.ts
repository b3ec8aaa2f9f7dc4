/** Programs that prepare an engine: started without a shell, ended with all they started, their output in a log file. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { within } from '../../runtime/wait.js';
import { logSizeBytes, openLog, tailLines, watchLog } from '../logFile.js';
import { markVariable } from '../process.js';
import { groupMembers, hasEnvironment, listPids, sendSignal, waitUntil } from '../procfs.js';
import { ProvisionError } from './provisionError.js';

const GRACE_MS = 5_000;
const KILL_DEADLINE_MS = 10_000;
/** A start waits for them. */
const LEFTOVER_GRACE_MS = 2_000;
const SHOWN_LINES = 5;

export interface ProgramSpec {
  /** The program by its absolute path, then its arguments. */
  readonly argv: readonly [string, ...string[]];
  readonly cwd: string;
  readonly logFile: string;
  readonly deadlineMs: number;
  /** Carried by all that it starts, so that a later start of ours can end what a crash left running; null: by none. */
  readonly mark: string | null;
  readonly signal: AbortSignal;
}

/** What programs need of ours: where to find others, and where this user's containers are. */
const PASSED_ON = ['PATH', 'HOME', 'LANG', 'TMPDIR', ...['XDG_RUNTIME_DIR', 'DBUS_SESSION_BUS_ADDRESS', 'DOCKER_HOST']];

export function programEnvironment(names: readonly string[] = PASSED_ON): Record<string, string> {
  const entries = names.map((name) => [name, process.env[name]]);
  return Object.fromEntries(entries.filter((entry) => entry[1] !== undefined));
}

/** Where a container runtime finds the containers of this user. */
export function containerEnvironment(): Record<string, string> {
  return programEnvironment(['XDG_RUNTIME_DIR', 'DBUS_SESSION_BUS_ADDRESS', 'DOCKER_HOST']);
}

/** @returns the exit code, null when a signal ended it. Rejects with the signal's reason, or a ProvisionError when it is late. */
export async function runForExitCode(spec: ProgramSpec): Promise<number | null> {
  using deadline = within(spec.deadlineMs, spec.signal);
  const child = spawnLogged(spec);
  const endWatch = watchLog(spec.logFile);
  try {
    const code = await exitOf(child, deadline.signal);
    spec.signal.throwIfAborted();
    if (!deadline.signal.aborted) return code;
    const message = `${spec.argv[0]} took longer than ${spec.deadlineMs} ms`;
    throw new ProvisionError('PROGRAM_TIMEOUT', message, `Look at ${spec.logFile}.`);
  } finally {
    endWatch();
    await endGroup(child.pid);
  }
}

/** Rejects as `runForExitCode` does, and with the last lines of the program when it fails. */
export async function runProgram(spec: ProgramSpec): Promise<void> {
  const logStart = logSizeBytes(spec.logFile);
  const code = await runForExitCode(spec);
  if (code === 0) return;
  const lines = await tailLines(spec.logFile, SHOWN_LINES, logStart);
  const how = code === null ? 'was ended by a signal' : `ended with code ${code}`;
  const said = lines.length === 0 ? '' : `. Last lines: ${lines.join(' | ')}`;
  const fix = `Look at ${spec.logFile}; to see it again: ${spec.argv.join(' ')}`;
  throw new ProvisionError('PROGRAM_FAILED', `${spec.argv[0]} ${how}${said}`, fix);
}

/** Ends what carries the mark: an earlier start of ours was killed while it prepared an engine. */
export async function endLeftovers(mark: string): Promise<void> {
  const left = (): readonly number[] => listPids().filter((pid) => hasEnvironment(pid, markVariable, mark));
  const gone = (): boolean => left().length === 0;
  // Git takes its locks with it when it is asked to go.
  for (const pid of left()) sendSignal(pid, 'SIGTERM');
  if (await waitUntil(gone, LEFTOVER_GRACE_MS)) return;
  for (const pid of left()) sendSignal(pid, 'SIGKILL');
  await waitUntil(gone, KILL_DEADLINE_MS);
}

function spawnLogged({ argv: [file, ...args], cwd, logFile, mark }: ProgramSpec): ChildProcess {
  const log = openLog(logFile);
  try {
    const env = {
      ...programEnvironment(),
      // Git asks nobody, and takes no way that runs programs.
      ...{ GIT_TERMINAL_PROMPT: '0', GIT_ALLOW_PROTOCOL: 'https:http:file' },
      ...(mark !== null && { [markVariable]: mark }),
    };
    return spawn(file, args, { cwd, env, detached: true, stdio: ['ignore', log, log] });
  } finally {
    closeSync(log);
  }
}

/** Resolves with the exit code, or with null at the abort, whichever comes first. */
function exitOf(child: ChildProcess, signal: AbortSignal): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => resolve(null);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    child.once('exit', (code) => {
      signal.removeEventListener('abort', onAbort);
      resolve(code);
    });
    child.once('error', (cause) => {
      signal.removeEventListener('abort', onAbort);
      const message = `${child.spawnfile} cannot be started: ${cause.message}`;
      reject(new ProvisionError('PROGRAM_FAILED', message, 'Run it by hand to see the reason.', { cause }));
    });
  });
}

/** Compilers and the like that outlive their leader too. */
async function endGroup(pid: number | undefined): Promise<void> {
  if (pid === undefined) return;
  const gone = (): boolean => groupMembers(pid).length === 0;
  if (gone()) return;
  sendSignal(-pid, 'SIGTERM');
  if (await waitUntil(gone, GRACE_MS)) return;
  sendSignal(-pid, 'SIGKILL');
  await waitUntil(gone, KILL_DEADLINE_MS);
}
