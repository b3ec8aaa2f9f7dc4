/**
 * Owns the NVML helper: starts it, starts it again with backoff when it ends, and ends it by SIGKILL when it falls
 * silent, since a call that hangs in the driver cannot be interrupted otherwise. Never two helpers at a time.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { GpuPoll } from '../../core/gpu.js';
import { afterExit, type RestartPolicy } from '../../core/restart.js';
import { type NvmlMessage, nvmlMessage } from './nvmlMessages.js';

export interface NvmlClientOptions {
  readonly intervalMs: number;
  /** Default: what the dynamic linker finds, or the environment's LLAMA_ORCH_NVML_LIBRARY. */
  readonly libraryPath?: string;
  /** Default: the helper beside this file. */
  readonly helperFile?: string;
  /** Silence of a helper that has spoken before; longer than any poll takes. */
  readonly silenceMs?: number;
  /** Silence of a new one: NVML wakes up every GPU first, seconds each where persistence mode is off. */
  readonly firstSilenceMs?: number;
  readonly restart?: RestartPolicy;
  readonly onPoll: (poll: GpuPoll) => void;
  readonly onXid: (uuid: string | null, xid: number) => void;
  /** After each change of `status`. */
  readonly onStatus: (status: NvmlStatus) => void;
}

/**
 * `failing`: it answers, but NVML does not work, or it crashes; it is tried again. `hung`: it was silent for too long and
 * nothing has been heard since. `unavailable`: there is no NVML here; nothing more is tried.
 */
export interface NvmlStatus {
  readonly state: 'starting' | 'up' | 'failing' | 'hung' | 'unavailable' | 'closed';
  readonly reason: string | null;
  /** Why XIDs of some GPUs are not told; null: nothing is known against it. */
  readonly xidsUnavailable: string | null;
  /** Helpers started so far. */
  readonly starts: number;
}

const RESTART: RestartPolicy = { baseMs: 500, capMs: 30_000, stableMs: 60_000, maxFailures: Number.POSITIVE_INFINITY };
const CLOSE_DEADLINE_MS = 5000;
const MAX_STDERR_CHARS = 2000;
const FORWARDED = ['PATH', 'HOME', 'LD_LIBRARY_PATH', 'LLAMA_ORCH_NVML_LIBRARY'];

export class NvmlClient {
  readonly #options: NvmlClientOptions;
  readonly #helperFile: string;
  #status: NvmlStatus = { state: 'starting', reason: null, xidsUnavailable: null, starts: 0 };
  #child: ChildProcess | null = null;
  #timer: NodeJS.Timeout | null = null;
  #startedAtMs = 0;
  #failures = 0;
  #reopening = false;

  constructor(options: NvmlClientOptions) {
    this.#options = options;
    this.#helperFile = options.helperFile ?? fileURLToPath(new URL('./nvmlHelper.js', import.meta.url));
  }

  get status(): NvmlStatus {
    return this.#status;
  }

  start(): void {
    if (this.#child !== null || this.#status.state !== 'starting') return;
    if (existsSync(this.#helperFile)) this.#fork();
    else this.#set({ state: 'unavailable', reason: `the helper ${this.#helperFile} is not there; build the program` });
  }

  /** A new helper, at once: NVML sees a GPU that came back only in a new process. Nothing while none is up. */
  reopen(): void {
    if (this.#status.state !== 'up' || this.#child === null) return;
    this.#reopening = true;
    this.#child.kill('SIGKILL');
  }

  /** Ends the helper. Waits for that, but not for one that the kernel holds. */
  async close(): Promise<void> {
    if (this.#status.state !== 'closed') this.#set({ state: 'closed', reason: null });
    this.#clearTimer();
    const child = this.#child;
    if (child === null) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_DEADLINE_MS);
      child.once('exit', () => {
        clearTimeout(timer);
        resolve();
      });
      child.kill('SIGKILL');
    });
    if (child.connected) child.disconnect();
    child.unref();
  }

  #set(change: Partial<NvmlStatus>): void {
    this.#status = { ...this.#status, ...change };
    this.#options.onStatus(this.#status);
  }

  #fork(): void {
    const child = fork(this.#helperFile, [String(this.#options.intervalMs)], {
      execArgv: [],
      env: this.#environment(),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#child = child;
    this.#startedAtMs = performance.now();
    this.#status = { ...this.#status, starts: this.#status.starts + 1 };
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr = `${stderr}${chunk.toString()}`.slice(-MAX_STDERR_CHARS);
    });
    child.on('message', (message) => this.#heard(child, message));
    // Not `exit`: its last words may come after that.
    child.once('close', (code, signal) => {
      const last = stderr.trim().split('\n').at(-1) ?? '';
      this.#ended(child, `the NVML helper ended (${signal ?? `code ${code}`})${last === '' ? '' : `: ${last}`}`);
    });
    child.once('error', (error) => {
      // Without a pid it never ran, and no exit will be told.
      if (child.pid === undefined) this.#ended(child, `the NVML helper could not be started: ${error.message}`);
    });
    this.#watchSilence(child, this.#options.firstSilenceMs ?? 60_000);
  }

  /** What the native code needs, and none of our secrets. */
  #environment(): Record<string, string> {
    const env: Record<string, string> = {};
    for (const name of FORWARDED) {
      const value = process.env[name];
      if (value !== undefined) env[name] = value;
    }
    const { libraryPath } = this.#options;
    return libraryPath === undefined ? env : { ...env, LLAMA_ORCH_NVML_LIBRARY: libraryPath };
  }

  #watchSilence(child: ChildProcess, silenceMs: number): void {
    this.#clearTimer();
    this.#timer = setTimeout(() => {
      this.#set({
        state: 'hung',
        reason: `NVML has not answered for ${silenceMs / 1000} s; the driver hangs, as a rule`,
      });
      child.kill('SIGKILL');
    }, silenceMs);
  }

  #heard(child: ChildProcess, raw: unknown): void {
    if (child !== this.#child || this.#status.state === 'closed' || this.#status.state === 'unavailable') return;
    const parsed = nvmlMessage.safeParse(raw);
    if (!parsed.success) return;
    const message = parsed.data;
    this.#watchSilence(child, this.#options.silenceMs ?? Math.max(8000, 3 * this.#options.intervalMs));
    this.#act(message);
  }

  #act(message: NvmlMessage): void {
    if (message.type === 'unavailable') {
      this.#clearTimer();
      this.#set({ state: 'unavailable', reason: message.reason });
    } else if (message.type === 'xid') {
      this.#options.onXid(message.uuid, message.xid);
    } else if (message.type === 'xids_unavailable') {
      if (message.reason !== this.#status.xidsUnavailable) this.#set({ xidsUnavailable: message.reason });
    } else {
      this.#options.onPoll(message.poll);
      if (!message.poll.ok) this.#set({ state: 'failing', reason: message.poll.message });
      else if (this.#status.state !== 'up') this.#set({ state: 'up', reason: null, xidsUnavailable: null });
    }
  }

  #ended(child: ChildProcess, reason: string): void {
    if (child !== this.#child) return;
    this.#child = null;
    this.#clearTimer();
    const { state } = this.#status;
    if (state === 'closed' || state === 'unavailable') return;
    if (this.#reopening) {
      this.#reopening = false;
      return this.#fork();
    }
    if (state !== 'hung' && state !== 'failing') this.#set({ state: 'failing', reason });
    const readyForMs = performance.now() - this.#startedAtMs;
    const decision = afterExit(
      this.#options.restart ?? RESTART,
      { failuresBefore: this.#failures, readyForMs },
      Math.random(),
    );
    this.#failures = decision.failures;
    if (decision.next === 'quarantine') return this.#set({ state: 'unavailable', reason });
    this.#timer = setTimeout(() => this.#fork(), decision.delayMs);
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
