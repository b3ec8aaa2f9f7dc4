/**
 * Health by progress: a ready engine is asked for signs of life, and judged by the tokens it gives. One that answers and
 * decodes nothing is worse than one that is gone: nobody sees it.
 */
import { isStalled, type Vitals } from '../../core/health.js';
import type { Reason } from '../../core/pool.js';
import type { EngineAdapter, EngineHealth } from '../../engines/adapter.js';
import { EngineError } from '../../engines/failure.js';
import type { Clock } from '../../runtime/clock.js';
import { delay, within } from '../../runtime/wait.js';
import type { Sign } from '../fleet.js';
import { decodeGate } from './gates.js';

const HEARTBEAT_EVERY_MS = 2_000;
/** While it is not trusted. */
const SUSPECT_HEARTBEAT_EVERY_MS = 250;
const HEARTBEAT_DEADLINE_MS = 5_000;
/** So many heartbeats in a row without an answer, and the engine is started anew. */
const MISSED_HEARTBEATS = 3;
const MAX_CANARY_DEADLINE_MS = 30_000;
/** Its counters are read with every so many heartbeats. */
const METRICS_EVERY = 5;

export interface WatchDeps {
  readonly clock: Clock;
  readonly adapter: EngineAdapter;
  readonly logFile: string;
  readonly idleTimeoutMs: number;
  /** An engine that has nothing to do decodes one token this often; 0: only when it is suspect. */
  readonly canaryEveryMs: number;
  /** It answered, or its vitals changed. */
  readonly onBeat: () => void;
  /** 0 … 1; null: the engine does not tell. */
  readonly onKvUsage: (ratio: number | null) => void;
}

export class Watch {
  readonly #deps: WatchDeps;
  #wanted: Sign | null = null;
  #look = new AbortController();
  #silentForMs: number | null = null;
  #canaryMs: number | null = null;
  #lastWorkMs: number;
  #missed = 0;

  constructor(deps: WatchDeps) {
    this.#deps = deps;
    this.#lastWorkMs = deps.clock.monotonicMs();
  }

  get vitals(): Omit<Vitals, 'speed'> {
    const { idleTimeoutMs } = this.#deps;
    return { silentForMs: this.#silentForMs, canaryMs: this.#canaryMs, idleTimeoutMs };
  }

  /** It is not to be given work: it stalls, or owes a sign of life. */
  get suspect(): boolean {
    return this.#wanted !== null || isStalled(this.vitals);
  }

  /** Asks for a sign of life now. A token says more than an answer. */
  doubt(sign: Sign): void {
    if (this.#wanted === sign || this.#wanted === 'token') return;
    this.#wanted = sign;
    this.#look.abort();
    this.#deps.onBeat();
  }

  /** A task got tokens from it, or ended well. */
  progressed(): void {
    this.#lastWorkMs = this.#deps.clock.monotonicMs();
    this.#canaryMs = null;
  }

  /** Until the engine gives no sign of life or decodes nothing, and says which; null once the run is over. */
  async run(stop: AbortSignal): Promise<Reason | null> {
    for (let beats = 1; !stop.aborted; beats += 1) {
      await this.#pause(stop);
      if (stop.aborted) break;
      const health = await this.#heartbeat(stop);
      if (stop.aborted) break;
      const failure = health?.ready === true ? await this.#beat(health, stop) : this.#miss(health);
      if (failure !== null) return failure;
      if (health?.ready === true && beats % METRICS_EVERY === 0) await this.#readMetrics(stop);
    }
    return null;
  }

  async #pause(stop: AbortSignal): Promise<void> {
    using either = within(null, stop, this.#look.signal);
    await delay(this.suspect ? SUSPECT_HEARTBEAT_EVERY_MS : HEARTBEAT_EVERY_MS, either.signal);
    if (this.#look.signal.aborted) this.#look = new AbortController();
  }

  async #heartbeat(stop: AbortSignal): Promise<EngineHealth | null> {
    using deadline = within(HEARTBEAT_DEADLINE_MS, stop);
    return await this.#deps.adapter.health(deadline.signal).catch(() => null);
  }

  #miss(health: EngineHealth | null): Reason | null {
    this.#missed += 1;
    if (this.#missed < MISSED_HEARTBEATS) return null;
    return {
      code: 'ENGINE_SILENT',
      message: `no sign of life in ${this.#missed} heartbeats: ${health?.detail ?? 'no answer'}`,
      fix: `Look at ${this.#deps.logFile}.`,
    };
  }

  async #beat({ silentForMs }: EngineHealth, stop: AbortSignal): Promise<Reason | null> {
    this.#missed = 0;
    const stalledBefore = isStalled(this.vitals);
    this.#silentForMs = silentForMs;
    // The streams that stood still are gone now; whether the engine decodes is not known yet.
    if (stalledBefore && silentForMs === null) this.#wanted = 'token';
    // A doubt that is younger than this answer waits for the next one.
    if (!this.#look.signal.aborted) this.#answered();
    this.#deps.onBeat();
    if (!this.#canaryIsDue()) return null;
    const failure = await this.#canary(stop);
    this.#deps.onBeat();
    return failure;
  }

  #answered(): void {
    const decodes = this.#silentForMs !== null && !isStalled(this.vitals);
    if (this.#silentForMs !== null) this.#lastWorkMs = this.#deps.clock.monotonicMs();
    if (decodes) this.#canaryMs = null;
    if (this.#wanted === 'answer' || decodes) this.#wanted = null;
  }

  #canaryIsDue(): boolean {
    if (this.#silentForMs !== null) return false;
    if (this.#wanted === 'token') return true;
    const { canaryEveryMs, clock } = this.#deps;
    return canaryEveryMs > 0 && clock.monotonicMs() - this.#lastWorkMs >= canaryEveryMs;
  }

  /** One token from an engine that has nothing to do. */
  async #canary(stop: AbortSignal): Promise<Reason | null> {
    const { adapter, clock, idleTimeoutMs } = this.#deps;
    const deadlineMs = Math.min(idleTimeoutMs, MAX_CANARY_DEADLINE_MS);
    const startedMs = clock.monotonicMs();
    using deadline = within(deadlineMs, stop);
    try {
      await decodeGate(adapter, deadline.signal);
    } catch (error) {
      if (stop.aborted || isBusy(error)) return null;
      // Others may have come in before it, and do get their tokens.
      const health = await this.#heartbeat(stop);
      return stop.aborted || health?.progressing === true ? null : this.#stalled(error, deadlineMs);
    }
    this.#canaryMs = clock.monotonicMs() - startedMs;
    this.#lastWorkMs = clock.monotonicMs();
    this.#wanted = null;
    return null;
  }

  #stalled(error: unknown, deadlineMs: number): Reason {
    if (error instanceof EngineError && error.engineLost && error.fault !== 'silent') throw error;
    const why =
      error instanceof EngineError && error.fault !== 'silent' ? error.message : `no token in ${deadlineMs} ms`;
    return {
      code: 'ENGINE_STALLED',
      message: `the engine answers and does not decode: ${why}`,
      fix: `Look at ${this.#deps.logFile} and at its GPU (nvidia-smi, dmesg).`,
    };
  }

  async #readMetrics(stop: AbortSignal): Promise<void> {
    using deadline = within(HEARTBEAT_DEADLINE_MS, stop);
    const metrics = await this.#deps.adapter.metrics(deadline.signal).catch(() => null);
    if (metrics !== null) this.#deps.onKvUsage(metrics.kvUsage);
  }
}

/** It refuses for now, because others keep it busy: that is a sign of life. */
function isBusy(error: unknown): boolean {
  return error instanceof EngineError && error.code === 'POOL_UNREADY';
}
