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

const MAX_HEARTBEAT_EVERY_MS = 2_000;
/** So many looks in the time that a stream may be silent: a stall is seen well before its streams are given up. */
const LOOKS_PER_IDLE_TIMEOUT = 8;
/** While it is not trusted. */
const SUSPECT_HEARTBEAT_EVERY_MS = 250;
const HEARTBEAT_DEADLINE_MS = 5_000;
/** So many heartbeats in a row without an answer, and the engine is started anew. */
const MISSED_HEARTBEATS = 3;
const MAX_CANARY_DEADLINE_MS = 30_000;
/** A connection that is cut, or a full queue, may be chance; so many in a row are not. */
const MAX_VAIN_CANARIES = 8;
/** One that was not away is asked who it is with every so many heartbeats. */
const RECHECKED_EVERY = 5;
/** Its counters are read with every so many heartbeats. */
const METRICS_EVERY = 5;

export interface WatchDeps {
  readonly clock: Clock;
  readonly adapter: EngineAdapter;
  /** Has the engine do as little as can be asked of it. Throws EngineError when that fails, or the reason of the signal. */
  readonly canary: (signal: AbortSignal) => Promise<void>;
  readonly logFile: string;
  readonly idleTimeoutMs: number;
  /** An engine that has nothing to do decodes one token this often; 0: only when it is suspect. */
  readonly canaryEveryMs: number;
  /** We started it, for us alone: who else could keep it busy? */
  readonly isOurs: boolean;
  /**
   * Whether it is still the engine that was tested. @param closely ask it: it was away, or was not asked for a while.
   * @returns why it may not go on.
   */
  readonly recheck: (closely: boolean, signal: AbortSignal) => Promise<Reason | null>;
  /** It answered, or its vitals changed. */
  readonly onBeat: () => void;
  /** 0 … 1; null: the engine does not tell. */
  readonly onKvUsage: (ratio: number | null) => void;
}

export class Watch {
  readonly #deps: WatchDeps;
  #wanted: Sign | null = null;
  #wantedSinceMs = 0;
  /** Canaries in a row that came back without a token, although the engine answers. */
  #vain = 0;
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
    if (sign === 'answer' && this.#wanted === 'token') return;
    if (sign === 'token') this.#wantedSinceMs = this.#deps.clock.monotonicMs();
    if (this.#wanted === sign) return;
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
      const failure = health?.ready === true ? await this.#judge(health, beats, stop) : this.#miss(health);
      if (failure !== null) return failure;
      if (health?.ready === true && beats % METRICS_EVERY === 0) await this.#readMetrics(stop);
    }
    return null;
  }

  /** It is not trusted with work again before it is known to be the same. */
  async #judge(health: EngineHealth, beats: number, stop: AbortSignal): Promise<Reason | null> {
    const closely = this.#missed > 0 || this.#wanted !== null || beats % RECHECKED_EVERY === 0;
    using deadline = within(HEARTBEAT_DEADLINE_MS, stop);
    const other = await this.#deps.recheck(closely, deadline.signal);
    if (other !== null || stop.aborted) return other;
    return await this.#beat(health, stop);
  }

  async #pause(stop: AbortSignal): Promise<void> {
    using either = within(null, stop, this.#look.signal);
    await delay(this.#everyMs(), either.signal);
    if (this.#look.signal.aborted) this.#look = new AbortController();
  }

  #everyMs(): number {
    if (this.suspect) return SUSPECT_HEARTBEAT_EVERY_MS;
    const forStalls = this.#deps.idleTimeoutMs / LOOKS_PER_IDLE_TIMEOUT;
    return Math.min(MAX_HEARTBEAT_EVERY_MS, Math.max(SUSPECT_HEARTBEAT_EVERY_MS, forStalls));
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

  async #beat({ silentForMs, frameAgoMs }: EngineHealth, stop: AbortSignal): Promise<Reason | null> {
    this.#missed = 0;
    const stalledBefore = isStalled(this.vitals);
    this.#silentForMs = silentForMs;
    // The streams that stood still are gone now; whether the engine decodes is not known yet.
    if (stalledBefore && silentForMs === null) this.#want('token');
    // A doubt that is younger than this answer waits for the next one.
    if (!this.#look.signal.aborted) this.#answered(frameAgoMs);
    this.#deps.onBeat();
    if (!this.#canaryIsDue()) return null;
    const failure = await this.#canary(stop);
    this.#deps.onBeat();
    return failure;
  }

  #want(sign: Sign): void {
    this.#wanted = sign;
    this.#wantedSinceMs = this.#deps.clock.monotonicMs();
  }

  #answered(frameAgoMs: number | null): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const lastFrameMs = frameAgoMs === null ? Number.NEGATIVE_INFINITY : nowMs - frameAgoMs;
    if (lastFrameMs > this.#lastWorkMs) {
      this.#lastWorkMs = lastFrameMs;
      this.#canaryMs = null;
      this.#vain = 0;
    }
    if (this.#wanted === 'answer' || lastFrameMs > this.#wantedSinceMs) this.#wanted = null;
  }

  #canaryIsDue(): boolean {
    if (this.#silentForMs !== null) return false;
    if (this.#wanted === 'token') return true;
    const { canaryEveryMs, clock } = this.#deps;
    return canaryEveryMs > 0 && clock.monotonicMs() - this.#lastWorkMs >= canaryEveryMs;
  }

  /** One token from an engine that has nothing to do. */
  async #canary(stop: AbortSignal): Promise<Reason | null> {
    const { canary, clock, idleTimeoutMs } = this.#deps;
    const deadlineMs = Math.min(idleTimeoutMs, MAX_CANARY_DEADLINE_MS);
    const startedMs = clock.monotonicMs();
    using deadline = within(deadlineMs, stop);
    try {
      await canary(deadline.signal);
    } catch (error) {
      return stop.aborted ? null : await this.#canaryFailed(error, deadlineMs, stop);
    }
    this.#vain = 0;
    this.#canaryMs = clock.monotonicMs() - startedMs;
    this.#lastWorkMs = clock.monotonicMs();
    this.#wanted = null;
    return null;
  }

  async #canaryFailed(error: unknown, deadlineMs: number, stop: AbortSignal): Promise<Reason | null> {
    // Others may have come in before it, and do get their tokens.
    const health = await this.#heartbeat(stop);
    if (stop.aborted || health?.progressing === true) return null;
    const lost = error instanceof EngineError && error.fault !== 'silent' && (error.engineLost || isBusy(error));
    if (!lost) return stalled(error, deadlineMs, this.#deps.logFile);
    // Whoever else uses it keeps it busy, which is a sign of life.
    if (isBusy(error) && !this.#deps.isOurs) this.#wanted = null;
    else this.#want('token');
    this.#vain += 1;
    this.#lastWorkMs = this.#deps.clock.monotonicMs();
    if (this.#vain < MAX_VAIN_CANARIES || (isBusy(error) && !this.#deps.isOurs)) return null;
    return stalled(error, deadlineMs, this.#deps.logFile);
  }

  async #readMetrics(stop: AbortSignal): Promise<void> {
    using deadline = within(HEARTBEAT_DEADLINE_MS, stop);
    const metrics = await this.#deps.adapter.metrics(deadline.signal).catch(() => null);
    if (metrics !== null) this.#deps.onKvUsage(metrics.kvUsage);
  }
}

function stalled(error: unknown, deadlineMs: number, logFile: string): Reason {
  const why = error instanceof EngineError && error.fault !== 'silent' ? error.message : `no token in ${deadlineMs} ms`;
  return {
    code: 'ENGINE_STALLED',
    message: `the engine answers and does not decode: ${why}`,
    fix: `Look at ${logFile} and at its GPU (nvidia-smi, dmesg).`,
  };
}

/** It takes no more for now. */
function isBusy(error: unknown): boolean {
  return error instanceof EngineError && error.code === 'POOL_UNREADY';
}
