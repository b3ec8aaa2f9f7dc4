/** Asks nvidia-smi. One process at a time, ended by SIGKILL at its deadline; a driver that hangs is an answer too. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { GpuPoll } from '../../core/gpu.js';
import { errnoOf } from '../startupError.js';
import {
  isUnknownField,
  pollOfRun,
  processesOfRun,
  SMI_NAME_FIELD,
  SMI_OPTIONAL_FIELDS,
  SMI_PROCESS_FIELDS,
  SMI_REQUIRED_FIELDS,
  type SmiRun,
  withProcesses,
} from './smiOutput.js';

export interface NvidiaSmiOptions {
  /** Path, or a name to look up in PATH. */
  readonly file?: string;
  readonly timeoutMs?: number;
  /** False: only what every driver knows, in exactly one run. */
  readonly optionalFields?: boolean;
}

const DEFAULT_TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 256 * 1024;
/** Probes that say nothing about a field (a hang, say) before the optional fields are given up. */
const MAX_PROBES = 3;

export class NvidiaSmi {
  readonly #file: string;
  readonly #timeoutMs: number;
  readonly #asksProcesses: boolean;
  /** null: not known yet which of them this driver has. */
  #optional: readonly string[] | null;
  #probes = 0;
  #inFlight: Promise<GpuPoll> | null = null;
  /** Kept until it has really ended: one that sits in the kernel must not be joined by others. */
  #child: ChildProcess | null = null;
  #closed = false;

  constructor(options: NvidiaSmiOptions = {}) {
    this.#file = options.file ?? 'nvidia-smi';
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#optional = options.optionalFields === false ? [] : null;
    this.#asksProcesses = options.optionalFields !== false;
  }

  /** Never rejects. Calls during a poll get that poll's answer. */
  poll(): Promise<GpuPoll> {
    this.#inFlight ??= this.#pollAll().finally(() => {
      this.#inFlight = null;
    });
    return this.#inFlight;
  }

  /** Ends a run in progress; polls answer with a failure from now on. */
  close(): void {
    this.#closed = true;
    this.#child?.kill('SIGKILL');
  }

  async #pollAll(): Promise<GpuPoll> {
    const poll = await this.#poll();
    if (!poll.ok || poll.samples.length === 0 || !this.#asksProcesses) return poll;
    return withProcesses(poll, processesOfRun(await this.#run(SMI_PROCESS_FIELDS, 'compute-apps')));
  }

  async #poll(): Promise<GpuPoll> {
    const answer = await this.#ask([...SMI_REQUIRED_FIELDS, ...(this.#optional ?? []), SMI_NAME_FIELD]);
    if (this.#optional !== null || !answer.ok) return answer;
    this.#optional = await this.#probe();
    if (this.#optional === null || this.#optional.length === 0) return answer;
    const full = await this.#ask([...SMI_REQUIRED_FIELDS, ...this.#optional, SMI_NAME_FIELD]);
    return full.ok ? full : answer;
  }

  async #ask(fields: readonly string[]): Promise<GpuPoll> {
    return pollOfRun(await this.#run(fields), fields);
  }

  /** One unknown field fails the whole command: all at once where the driver is new, else one by one. */
  async #probe(): Promise<readonly string[] | null> {
    this.#probes += 1;
    const giveUp = this.#probes >= MAX_PROBES ? [] : null;
    const all = await this.#run(SMI_OPTIONAL_FIELDS);
    if (all.exitCode === 0) return SMI_OPTIONAL_FIELDS;
    if (!isUnknownField(all)) return giveUp;
    const known: string[] = [];
    for (const field of SMI_OPTIONAL_FIELDS) {
      const one = await this.#run([field]);
      if (one.exitCode === 0) known.push(field);
      else if (!isUnknownField(one)) return giveUp;
    }
    return known;
  }

  #run(fields: readonly string[], of: 'gpu' | 'compute-apps' = 'gpu'): Promise<SmiRun> {
    if (this.#closed) return Promise.resolve({ failure: 'closed', exitCode: null, output: '' });
    if (this.#child !== null) return Promise.resolve({ failure: 'busy', exitCode: null, output: '' });
    const child = spawn(this.#file, [`--query-${of}=${fields.join(',')}`, '--format=csv,noheader,nounits'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: smiEnvironment(),
    });
    this.#child = child;
    const ended = () => {
      this.#child = null;
    };
    child.once('exit', ended);
    child.once('error', ended);
    return collect(child, this.#timeoutMs);
  }
}

function smiEnvironment(): Record<string, string> {
  const env: Record<string, string> = { LC_ALL: 'C' };
  for (const name of ['PATH', 'HOME', 'LD_LIBRARY_PATH']) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  return env;
}

/** Resolves at the end of the process or at its deadline, whichever comes first. */
function collect(child: ChildProcess, timeoutMs: number): Promise<SmiRun> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const settle = (failure: SmiRun['failure'], exitCode: number | null): void => {
      clearTimeout(timer);
      resolve({ failure, exitCode, output: Buffer.concat(chunks).toString('utf8').replaceAll('\r', '') });
    };
    const kill = (failure: SmiRun['failure']): void => {
      settle(failure, null);
      child.kill('SIGKILL');
      // A process stuck in the kernel holds neither our pipes nor our exit.
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.unref();
    };
    const timer = setTimeout(() => kill('timeout'), timeoutMs);
    const take = (chunk: Buffer): void => {
      sizeBytes += chunk.length;
      if (sizeBytes > MAX_OUTPUT_BYTES) kill('too_long');
      else chunks.push(chunk);
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    child.once('close', (code) => settle(null, code));
    child.once('error', (error) => settle(errnoOf(error) === 'ENOENT' ? 'missing' : 'not_runnable', null));
  });
}
