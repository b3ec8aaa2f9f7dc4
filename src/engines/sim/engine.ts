/**
 * The simulated engine behind the protocol: its configuration, slots, faults and counters, and the decode loop. It
 * knows no HTTP; a protocol turns its tokens into frames.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { OpenCalls } from './calls.js';
import { type Death, type Deaths, EngineFailed, endProcess } from './deaths.js';
import type { FaultSet } from './faults.js';
import { Generator, type Sampling } from './model.js';
import { type Slot, SlotPool } from './slots.js';

export interface SimConfig {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly model: string;
  /** Context of one slot, tokens. */
  readonly contextTokens: number;
  readonly slots: number;
  /** Of each slot; 0: as fast as the reader takes them. */
  readonly tokensPerSecond: number;
  /** Time a prompt takes, ms. */
  readonly firstTokenMs: number;
  /** Time loading takes, ms. */
  readonly loadMs: number;
  readonly apiKey: string | null;
  /** Whether embeddings and rerankings are served. */
  readonly embedding: boolean;
  /** Now and then a character of four bytes comes as two tokens of two bytes. */
  readonly splitCharacters: boolean;
  /** GPU memory the model needs, and what is free; needing more than is free is out of memory at load. */
  readonly vramBytes: number;
  readonly vramFreeBytes: number;
}

/** A model that does not fit in the GPU's memory. */
export class OutOfMemoryAtLoad extends Error {}

export interface Completion {
  readonly prompt: string;
  readonly promptTokens: number;
  /** -1: until the context is full. */
  readonly maxTokens: number;
  readonly seed: number;
  readonly sampling: Sampling;
  readonly idSlot: number;
  /** The request's parameters in the protocol's words, for its status page. */
  readonly settings: Readonly<Record<string, unknown>>;
}

/** What a protocol reports about a finished completion; filled in while it decodes. */
export interface DecodeReport {
  slotId: number;
  promptMs: number;
  decodeMs: number;
}

export function emptyReport(): DecodeReport {
  return { slotId: -1, promptMs: 0, decodeMs: 0 };
}

/** Most tokens handed over at once, so that a fast stream still shares the process with the other requests. */
const MAX_BATCH_TOKENS = 256;
const MAX_WAIT_MS = 1_000;
/** How long a failing engine waits for its clients to have been told. */
const MAX_TELLING_MS = 1_000;

export class SimEngine {
  readonly config: SimConfig;
  readonly slots: SlotPool;
  readonly faults: FaultSet;
  readonly counters = { promptTokens: 0, decodedTokens: 0, promptMs: 0, decodeMs: 0, longestSequence: 0 };
  /** Completions that got a slot, decoded to their end, or left their slot before it. */
  readonly completions = { started: 0, finished: 0, abandoned: 0 };
  readonly calls = new OpenCalls();
  readonly startedAtMs = Date.now();
  readonly log: (line: string) => void;
  readonly #deaths: Deaths;
  #loaded = false;
  #stopping = false;

  constructor(config: SimConfig, faults: FaultSet, deaths: Deaths, log: (line: string) => void) {
    this.config = config;
    this.faults = faults;
    this.log = log;
    this.#deaths = deaths;
    this.slots = new SlotPool(config.slots);
  }

  get loaded(): boolean {
    return this.#loaded;
  }

  /** Whether it has been told to stop and only finishes what runs. */
  get stopping(): boolean {
    return this.#stopping;
  }

  stop(): void {
    this.#stopping = true;
  }

  /** The model's name as answers give it. */
  get toldModel(): string {
    return this.faults.has('other-model') ? `not-${this.config.model}` : this.config.model;
  }

  /** A token count as the usage of an answer gives it. */
  toldTokens(tokens: number): number {
    return this.faults.has('wrong-usage') ? tokens * 2 + 7 : tokens;
  }

  /** A time or a duration as answers give it. */
  toldMs(ms: number): number {
    return ms + this.faults.ms('clock-skew');
  }

  /** Throws OutOfMemoryAtLoad, or the abort reason. */
  async load(signal: AbortSignal): Promise<void> {
    const { loadMs, vramBytes, vramFreeBytes } = this.config;
    await setTimeout(loadMs + this.faults.ms('slow-load'), undefined, { signal });
    await this.faults.waitWhile(() => this.faults.has('never-ready'), signal);
    if (vramBytes > vramFreeBytes || this.faults.has('oom-at-load')) throw new OutOfMemoryAtLoad();
    this.#loaded = true;
  }

  /** How many tokens a completion will decode, and whether the context cuts it short. */
  plan({ promptTokens, maxTokens }: Completion): { readonly tokens: number; readonly truncated: boolean } {
    const room = this.config.contextTokens - promptTokens;
    const truncated = maxTokens < 0 || maxTokens > room;
    return { tokens: truncated ? room : maxTokens, truncated };
  }

  /**
   * Waits for a slot, then decodes in it. Yields token ids in batches, in time with the configured speed; a caller
   * that is slow to ask for the next batch slows the decoding. The slot is free again before the end is
   * reported, as in the real server. Throws the abort reason when the signal aborts.
   */
  async *decode(
    completion: Completion,
    report: DecodeReport,
    signal: AbortSignal,
    onSlot: () => void | Promise<void> = () => {},
  ): AsyncGenerator<readonly number[], void, void> {
    const slot = await this.slots.acquire(completion.idSlot, signal);
    this.completions.started += 1;
    let end: 'finished' | 'abandoned' = 'abandoned';
    try {
      report.slotId = slot.id;
      await onSlot();
      yield* this.#decodeIn(slot, completion, report, signal);
      end = 'finished';
    } finally {
      this.slots.release(slot);
      this.completions[end] += 1;
    }
  }

  async *#decodeIn(
    slot: Slot,
    completion: Completion,
    report: DecodeReport,
    signal: AbortSignal,
  ): AsyncGenerator<readonly number[], void, void> {
    const { tokens: total } = this.plan(completion);
    const { promptTokens, settings } = completion;
    const task = { id: this.slots.takeTaskId(), promptTokens, settings, maxTokens: total, decoded: 0 };
    slot.task = task;
    const { model, splitCharacters } = this.config;
    const generator = new Generator(model, completion.prompt, completion.seed, completion.sampling, splitCharacters);
    const acceptedMs = performance.now();
    if (this.config.firstTokenMs > 0) await setTimeout(this.config.firstTokenMs, undefined, { signal });
    const startedMs = performance.now();
    report.promptMs = startedMs - acceptedMs;
    try {
      for (;;) {
        const remaining = total - task.decoded;
        const due = remaining > 0 ? await this.#awaitDue(task.decoded, startedMs, signal) : 0;
        await this.#strike(task.decoded, signal);
        if (remaining <= 0) break;
        const length = Math.min(due, remaining, this.faults.tokensUntilStrike(task.decoded));
        const batch = Array.from({ length }, () => generator.next());
        task.decoded += length;
        yield batch;
      }
    } finally {
      report.decodeMs = performance.now() - startedMs;
      this.#count(completion, task.decoded, report);
    }
  }

  /** Tokens that are due now by the configured speed, at least one; waits until one is. */
  async #awaitDue(decoded: number, startedMs: number, signal: AbortSignal): Promise<number> {
    const { tokensPerSecond } = this.config;
    for (;;) {
      if (tokensPerSecond === 0) {
        await setImmediate(undefined, { signal });
        return MAX_BATCH_TOKENS;
      }
      // The first token is due at once, token n after n/speed.
      const dueTokens = Math.floor(((performance.now() - startedMs) * tokensPerSecond) / 1000) + 1 - decoded;
      if (dueTokens > 0) return Math.min(dueTokens, MAX_BATCH_TOKENS);
      const waitMs = startedMs + (decoded * 1000) / tokensPerSecond - performance.now();
      await setTimeout(Math.min(Math.max(waitMs, 1), MAX_WAIT_MS), undefined, { signal });
    }
  }

  async #strike(decoded: number, signal: AbortSignal): Promise<void> {
    await this.faults.waitWhile(() => this.faults.strikesAt('hang-at-token', decoded), signal);
    if (this.faults.strikesAt('crash-at-token', decoded)) await this.#die(this.#deaths.crash, signal);
    if (this.faults.strikesAt('cuda-error-at-token', decoded)) await this.#die(this.#deaths.cudaError, signal);
    if (this.faults.strikesAt('oom-at-token', decoded)) await this.#die(this.#deaths.runtimeOom, signal);
  }

  async #die({ lines, toldError, end }: Death, signal: AbortSignal): Promise<void> {
    for (const line of lines) this.log(line);
    if (toldError === null) return endProcess(end);
    this.calls.abortAll(new EngineFailed(toldError));
    // This completion is itself one of those that have to be told, so it does not wait.
    void this.calls.settle(MAX_TELLING_MS).then(() => endProcess(end));
    signal.throwIfAborted();
  }

  #count({ promptTokens }: Completion, decoded: number, report: DecodeReport): void {
    const { counters } = this;
    counters.promptTokens += promptTokens;
    counters.decodedTokens += decoded;
    counters.promptMs += report.promptMs;
    counters.decodeMs += report.decodeMs;
    counters.longestSequence = Math.max(counters.longestSequence, promptTokens + decoded);
  }
}
