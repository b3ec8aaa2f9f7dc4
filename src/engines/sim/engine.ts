/**
 * The simulated engine behind the protocol: its configuration, slots, faults and counters, and the decode loop. It
 * knows no HTTP; a protocol turns its tokens into frames.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate, setTimeout } from 'node:timers/promises';
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
  /** Time loading takes, ms, during which every route answers 503. */
  readonly loadMs: number;
  readonly apiKey: string | null;
}

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

export class SimEngine {
  readonly config: SimConfig;
  readonly slots: SlotPool;
  readonly faults: FaultSet;
  readonly counters = { promptTokens: 0, decodedTokens: 0, promptMs: 0, decodeMs: 0, longestSequence: 0 };
  readonly log: (line: string) => void;
  #loaded = false;

  constructor(config: SimConfig, faults: FaultSet, log: (line: string) => void) {
    this.config = config;
    this.faults = faults;
    this.log = log;
    this.slots = new SlotPool(config.slots);
  }

  get loaded(): boolean {
    return this.#loaded;
  }

  async load(signal: AbortSignal): Promise<void> {
    await setTimeout(this.config.loadMs, undefined, { signal });
    await this.faults.waitWhile(() => this.faults.has('never-ready'), signal);
    this.#loaded = true;
    this.log('srv  llama_server: model loaded');
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
    onSlot: () => void = () => {},
  ): AsyncGenerator<readonly number[], void, void> {
    const slot = await this.slots.acquire(completion.idSlot, signal);
    try {
      report.slotId = slot.id;
      onSlot();
      yield* this.#decodeIn(slot, completion, report, signal);
    } finally {
      this.slots.release(slot);
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
    const generator = new Generator(this.config.model, completion.prompt, completion.seed, completion.sampling);
    const acceptedMs = performance.now();
    if (this.config.firstTokenMs > 0) await setTimeout(this.config.firstTokenMs, undefined, { signal });
    const startedMs = performance.now();
    report.promptMs = startedMs - acceptedMs;
    try {
      for (;;) {
        await this.#strike(task.decoded, signal);
        if (task.decoded >= total) break;
        const count = Math.min(await this.#awaitDue(task.decoded, startedMs, signal), total - task.decoded);
        const length = Math.min(count, this.faults.tokensUntilStrike(task.decoded));
        const batch = Array.from({ length }, () => generator.next());
        task.decoded += batch.length;
        if (batch.length > 0) yield batch;
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
    if (this.faults.strikesAt('crash-at-token', decoded)) {
      this.log('CUDA error: an illegal memory access was encountered');
      this.log('ggml-cuda.cu:103: CUDA error');
      process.kill(process.pid, 'SIGABRT');
      await new Promise(() => {}); // the signal takes effect before anything else can happen
    }
    await this.faults.waitWhile(() => this.faults.strikesAt('hang-at-token', decoded), signal);
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
