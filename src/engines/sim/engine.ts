/**
 * The simulated engine behind the protocol: its configuration, slots, faults and counters, and the decode loop. It
 * knows no HTTP; a protocol turns its tokens into frames.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { OpenCalls, Traffic } from './calls.js';
import { type Death, type Deaths, EngineFailed, endProcess } from './deaths.js';
import type { FaultSet } from './faults.js';
import type { Sampling } from './model.js';
import { type Slot, SlotPool } from './slots.js';
import { AT_LENGTH, type DecodeEnd, type SimToken, type StopRules, TokenSource } from './tokens.js';

export interface SimConfig {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly model: string;
  /** What it calls its version; null: that of the engine which the protocol is of. */
  readonly version: string | null;
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
  /** Whether slots can be saved, restored and erased. */
  readonly slotActions: boolean;
  /** Whether completions are served; only a vLLM may be without. */
  readonly generates: boolean;
  /** Whether embeddings are served. */
  readonly embedding: boolean;
  readonly reranking: boolean;
  /** Numbers in a vector. */
  readonly embeddingDimensions: number;
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
  /** With a prompt cache: the ids of the prompt, and whether what the slot's cache has of them need not be read again. */
  readonly cache?: { readonly ids: readonly number[]; readonly used: boolean };
  readonly stop: StopRules;
  /** The request's parameters in the protocol's words, for its status page. */
  readonly settings: Readonly<Record<string, unknown>>;
}

/** What a protocol reports about a finished completion; filled in while it decodes. */
export interface DecodeReport {
  slotId: number;
  /** Spent waiting for a slot. */
  queueMs: number;
  /** Prompt tokens that the slot's cache had. */
  cachedTokens: number;
  promptMs: number;
  decodeMs: number;
  /** Decoded, the end-of-sequence token included. */
  tokens: number;
  hasNewLine: boolean;
  end: DecodeEnd;
}

export function emptyReport(): DecodeReport {
  const none = { slotId: -1, queueMs: 0, cachedTokens: 0, promptMs: 0, decodeMs: 0, tokens: 0 };
  return { ...none, hasNewLine: false, end: AT_LENGTH };
}

/** The one that a completion is decoded for. */
export interface DecodeClient {
  /** Ends the decoding wherever it is. */
  readonly signal: AbortSignal;
  /** Asked when a slot is had and before tokens are given: throws when the client is seen to have gone. */
  throwIfGone?(): void;
  onSlot?(): void | Promise<void>;
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
  readonly counters = {
    ...{ promptTokens: 0, cachedTokens: 0, decodedTokens: 0, promptMs: 0, decodeMs: 0, longestSequence: 0 },
    /** Finished completions that did not end by their length. */
    stopped: 0,
    /** Tokens decoded, and slots that were busy then, summed up. */
    ...{ decodeSteps: 0, busySlotSteps: 0 },
  };
  /** Completions that got a slot, decoded to their end, or left their slot before it. */
  readonly completions = { started: 0, finished: 0, abandoned: 0 };
  readonly calls = new OpenCalls();
  readonly traffic = new Traffic();
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
   * Waits for a slot, then decodes in it. Yields tokens in batches, in time with the configured speed; a caller
   * that is slow to ask for the next batch slows the decoding. The slot is free again before the end is
   * reported, as in the real server. Throws the abort reason when the signal aborts.
   */
  async *decode(
    completion: Completion,
    report: DecodeReport,
    client: DecodeClient,
  ): AsyncGenerator<readonly SimToken[], void, void> {
    const askedMs = performance.now();
    const slot = await this.slots.acquire(completion.idSlot, client.signal);
    let end: 'finished' | 'abandoned' | 'skipped' = 'skipped';
    try {
      client.throwIfGone?.();
      end = 'abandoned';
      this.completions.started += 1;
      report.slotId = slot.id;
      report.queueMs = performance.now() - askedMs;
      await client.onSlot?.();
      yield* this.#decodeIn(slot, completion, report, client);
      end = 'finished';
    } finally {
      this.slots.release(slot);
      if (end !== 'skipped') this.completions[end] += 1;
      if (end === 'finished' && report.end.reason !== 'length') this.counters.stopped += 1;
    }
  }

  async *#decodeIn(
    slot: Slot,
    completion: Completion,
    report: DecodeReport,
    client: DecodeClient,
  ): AsyncGenerator<readonly SimToken[], void, void> {
    const { signal } = client;
    const { tokens: total } = this.plan(completion);
    const { promptTokens, settings } = completion;
    const counts = { maxTokens: total, decoded: 0, hasNewLine: false };
    report.cachedTokens = cachedTokens(slot, completion);
    const { cachedTokens: cached } = report;
    const task = { id: this.slots.takeTaskId(), promptTokens, cachedTokens: cached, settings, ...counts };
    slot.task = task;
    const held = completion.cache === undefined ? [] : [...completion.cache.ids];
    slot.cache = held;
    const { model, splitCharacters } = this.config;
    const source = new TokenSource({ ...completion, model, splitCharacters, tokens: total });
    const acceptedMs = performance.now();
    if (this.config.firstTokenMs > 0) await setTimeout(this.config.firstTokenMs, undefined, { signal });
    const startedMs = performance.now();
    report.promptMs = startedMs - acceptedMs;
    try {
      for (;;) {
        const remaining = source.ended ? 0 : total - task.decoded;
        const due = remaining > 0 ? await this.#awaitDue(task.decoded, startedMs, signal) : 0;
        await this.#strike(task.decoded, signal);
        if (remaining <= 0) break;
        client.throwIfGone?.();
        const batch = this.#take(source, task.decoded, Math.min(due, remaining));
        task.decoded += batch.length;
        for (const { id } of batch) held.push(id);
        task.hasNewLine ||= batch.some(({ text }) => text.includes('\n'));
        report.end = batch.at(-1)?.end ?? report.end;
        yield batch;
      }
    } finally {
      report.decodeMs = performance.now() - startedMs;
      report.tokens = task.decoded;
      report.hasNewLine = task.hasNewLine;
      this.#count(completion, task.decoded, report);
    }
  }

  /** Up to so many tokens, none of them beyond one at which a fault strikes. */
  #take(source: TokenSource, decoded: number, most: number): readonly SimToken[] {
    const endsHere = this.faults.strikesAt('eos-at-token', decoded);
    const length = Math.min(most, this.faults.tokensUntilStrike(decoded));
    const batch = endsHere ? [source.endOfSequence()] : source.take(length);
    this.counters.decodeSteps += batch.length;
    this.counters.busySlotSteps += batch.length * this.slots.busyCount;
    return batch;
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
    counters.promptTokens += promptTokens - report.cachedTokens;
    counters.cachedTokens += report.cachedTokens;
    counters.decodedTokens += decoded;
    counters.promptMs += report.promptMs;
    counters.decodeMs += report.decodeMs;
    counters.longestSequence = Math.max(counters.longestSequence, promptTokens + decoded);
  }
}

/** How much of the prompt the slot holds; the last token is read in any case, since its output is what comes next. */
function cachedTokens(slot: Slot, { cache, promptTokens }: Completion): number {
  if (cache === undefined || !cache.used) return 0;
  const differs = cache.ids.findIndex((id, index) => slot.cache[index] !== id);
  return Math.min(differs === -1 ? cache.ids.length : differs, Math.max(0, promptTokens - 1));
}
