/** Everything the bench opens, closed in reverse order whatever happens; child processes are ended by their own pid. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const STOP_GRACE_MS = 10_000;
const START_DEADLINE_MS = 60_000;
const KEPT_OUTPUT_CHARS = 20_000;
/** USER_HZ: the unit of the times in /proc/<pid>/stat, the same on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

export class Scope {
  /** @type {{ name: string, close: () => Promise<unknown> }[]} */
  #closers = [];
  /** @type {Promise<void> | null} */
  #closing = null;

  /** @param {string} name @param {() => Promise<unknown>} close */
  defer(name, close) {
    this.#closers.push({ name, close });
  }

  /** Closes all, newest first. One that fails is told on stderr and does not keep the others open. */
  close() {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll() {
    for (const { name, close } of this.#closers.reverse()) {
      await close().catch((error) => process.stderr.write(`closing ${name}: ${error.message}\n`));
    }
  }
}

/**
 * A Node child process with an IPC channel, up once a line of its output matches `ready`.
 * @typedef {{ pid: number, url: string, stop: () => Promise<void>, memory: () => Promise<NodeJS.MemoryUsage> }} Child
 * @param {Scope} scope
 * @param {{ name: string, args: string[], ready: RegExp, env?: Record<string, string> }} options `ready` captures its url.
 * @returns {Promise<Child>}
 */
export async function startChild(scope, { name, args, ready, env = {} }) {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, args, {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    env: { PATH, HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const stop = () => stopChild(child, exited);
  scope.defer(name, stop);
  const url = await awaitLine(name, child, exited, ready);
  return { pid: child.pid ?? 0, url, stop, memory: () => askMemory(name, child, exited) };
}

/** SIGTERM, then SIGKILL for one that does not go. */
async function stopChild(child, exited) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_GRACE_MS);
  await exited;
  clearTimeout(timer);
}

function awaitLine(name, child, exited, pattern) {
  return new Promise((resolve, reject) => {
    let output = '';
    const fail = (what) => reject(new Error(`${name} ${what}:\n${output}`));
    const timer = setTimeout(() => fail('was not up in time'), START_DEADLINE_MS);
    // The listener stays for the life of the process, so that a full pipe never blocks it.
    const look = (chunk) => {
      if (output.length < KEPT_OUTPUT_CHARS) output += String(chunk);
      const url = pattern.exec(output)?.[1];
      if (url === undefined) return;
      clearTimeout(timer);
      resolve(url);
    };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    void exited.then(() => {
      clearTimeout(timer);
      fail('ended before it was up');
    });
  });
}

/** Asks the memory hook of the child (memoryHook.mjs): a full collection, then what is left. */
function askMemory(name, child, exited) {
  return new Promise((resolve, reject) => {
    child.once('message', resolve);
    void exited.then(() => reject(new Error(`${name} ended while it was measured`)));
    child.send('memory', (error) => error && reject(error));
  });
}

/** CPU time a process has used so far in all its threads, seconds; resolution 10 ms. */
export function cpuSeconds(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  // The name in parentheses may hold spaces; utime and stime are fields 14 and 15, counted from 1.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
