/**
 * One run of one leased task on one engine: frames in, log out, and exactly one ending.
 *
 * The log's `seal()` decides races: whoever closes the door first writes the ending, be it the engine's end, a cancel,
 * a timeout or a loss. Everything this writes names its lease; when that is gone it stops and writes nothing.
 */
import type { TaskFailure } from '../core/errors.js';
import type { EndEvent, ErrorEvent } from '../core/frame.js';
import { predictStartMs } from '../core/prediction.js';
import { Replay } from '../core/replay.js';
import { afterLoss } from '../core/task.js';
import type { EngineEnd, EngineFrame } from '../engines/adapter.js';
import { EngineError } from '../engines/failure.js';
import type { Clock } from '../runtime/clock.js';
import type { Database } from '../store/database.js';
import { type ClaimedTask, requeueTask } from '../store/tasks.js';
import type { RunFacts, StartFacts, Telemetry } from '../telemetry/events.js';
import { DivergedError, diverged, mayRunAgain, OUR_FAULT, OUT_OF_TIME, requeueDelayMs } from './attemptFailure.js';
import { type Ending, freeSlot, settleSlot, writeEnding } from './ending.js';
import type { Fleet, ReadyReplica } from './fleet.js';
import type { LeaseKeeper } from './leases.js';
import type { Quotes } from './quotes.js';
import { RunReport } from './runReport.js';
import type { SessionPlaces } from './sessionPlaces.js';
import type { StreamHub } from './streams/hub.js';
import { StreamLog } from './streams/log.js';
import type { Recording, StreamRecorder } from './streams/recorder.js';
import { storedEvent, storedPages } from './streams/stored.js';

export interface AttemptDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly hub: StreamHub;
  readonly recorder: StreamRecorder;
  readonly leases: LeaseKeeper;
  readonly fleet: Fleet;
  readonly telemetry: Telemetry;
  readonly quotes: Quotes;
  readonly places: SessionPlaces;
  readonly queueDepth: (poolId: string) => number;
  /** A slot is free again, or the task waits again. */
  readonly onSettled: (attempt: Attempt, heldMs: number) => void;
}

type StopReason = 'running' | 'cancel' | 'fenced' | 'timeout' | 'interrupted';

export class Attempt {
  readonly task: ClaimedTask;
  readonly replica: ReadyReplica;
  /** Names this run to the engine. */
  readonly requestId: string;
  readonly #deps: AttemptDeps;
  readonly #log: StreamLog;
  readonly #recording: Recording;
  readonly #abort = new AbortController();
  readonly #facts: RunFacts;
  readonly #report: RunReport;
  readonly #leasedAtMs: number;
  #stop: StopReason = 'running';
  #interruption = '';
  #restored: Promise<void> = Promise.resolve();
  #replay = new Replay([]);
  #firstTokenAtMs: number | null = null;
  #started: StartFacts | null = null;
  /** Set when the task went back to its queue: it may be claimed again after so long, ms. */
  claimableInMs: number | null = null;
  /** Settles when the run is over, its ending durable and its slot given back; never rejects. */
  done: Promise<void> = Promise.resolve();
  #settling: Promise<unknown> = Promise.resolve();

  constructor(deps: AttemptDeps, task: ClaimedTask, replica: ReadyReplica) {
    this.#deps = deps;
    this.task = task;
    this.replica = replica;
    this.requestId = `${task.id}-${task.attempts}`;
    this.#log = new StreamLog(task.id);
    this.#leasedAtMs = deps.clock.monotonicMs();
    const onError = (name: string, error: unknown) => deps.telemetry.backgroundFailure(name, error);
    this.#report = new RunReport({ ...deps, onError }, task, replica);
    this.#recording = { log: this.#log, leaseId: task.leaseId, nextOrd: task.chunks, onFenced: () => this.fence() };
    const { sessionId, correlationId, engine, modelRef, poolId, priority, seed } = task;
    this.#facts = {
      taskId: task.id,
      sessionId,
      correlationId,
      engine,
      modelRef,
      poolId,
      priority,
      seed,
      samplerProfileVersion: task.samplerProfileVersion,
      replicaId: replica.id,
      engineVersion: replica.engineVersion,
    };
  }

  /** How long it has held its slot, ms. */
  get heldMs(): number {
    return this.#deps.clock.monotonicMs() - this.#leasedAtMs;
  }

  start(): void {
    this.#restored = this.#restore();
    this.done = this.#run();
  }

  /**
   * Ends the task for its caller. The ending is durable when this answers.
   * @returns whether the engine was seen to have freed the slot; null when the task had ended by itself.
   */
  async cancel(): Promise<boolean | null> {
    await this.#restored;
    if (!this.#log.seal()) {
      await this.done;
      return null;
    }
    this.#halt('cancel');
    const event = this.#endEvent('canceled', true, this.#measuredDecodeMs());
    const settled = this.#finish({
      status: 'CANCELED',
      event,
      tokensIn: null,
      tokensOut: this.#log.tokens.length,
      decodeMs: event.decodeMs,
      finishReason: 'canceled',
      error: null,
      releaseReason: null,
    }).then((written) => (written ? settleSlot(this.#deps, this, 'canceled') : false));
    this.#settling = settled;
    return settled;
  }

  /** Stops the run for a reason of ours (drain deadline, shutdown, lost replica); the task runs again where it may. */
  async interrupt(cause: string): Promise<void> {
    this.#interruption = cause;
    this.#halt('interrupted');
    await this.done;
  }

  /** The lease is lost: stop at once, write nothing more. */
  fence(): void {
    this.#log.abandon();
    this.#halt('fenced');
  }

  #halt(reason: StopReason): void {
    if (this.#stop !== 'running') return;
    this.#stop = reason;
    this.#abort.abort();
  }

  async #run(): Promise<void> {
    const wallMs = Math.min(
      this.#deps.fleet.limits(this.task.poolId).wallMs,
      this.task.deadlineAt.getTime() - this.#deps.clock.nowMs(),
    );
    const wall = setTimeout(() => this.#halt('timeout'), Math.max(0, wallMs));
    try {
      await this.#restored;
      if (this.#log.state === 'open') await this.#stream();
    } catch (error) {
      // Sealed: it is the ending that could not be written. A cancel writes its own, and answers for it below.
      if (this.#log.state === 'sealed' && this.#stop !== 'cancel') this.#giveUp(error);
      else await this.#failed(error).catch((cause: unknown) => this.#giveUp(cause));
    } finally {
      clearTimeout(wall);
      await this.#settling.catch((cause: unknown) => this.#giveUp(cause));
      this.#deps.hub.detach(this.#log);
      this.#deps.leases.forget(this.task.leaseId);
      this.#deps.onSettled(this, this.heldMs);
    }
  }

  /** Brings back what earlier attempts made durable, and shows the log to readers. */
  async #restore(): Promise<void> {
    for await (const chunks of storedPages(this.#deps.db, this.task)) this.#log.restore(chunks.map(storedEvent));
    this.#replay = new Replay(this.#log.tokens);
    this.#deps.hub.attach(this.#log);
  }

  async #stream(): Promise<void> {
    const { task, replica } = this;
    this.#begin();
    const request = {
      requestId: this.requestId,
      correlationId: task.correlationId,
      prompt: task.prompt,
      maxTokens: task.maxTokens,
      seed: task.seed,
      strict: task.determinism === 'strict',
      slot: task.slot,
    };
    for await (const frames of replica.adapter.stream(request, this.#abort.signal)) {
      // After a pause of this whole process, what the socket held comes before the timer that would have noticed.
      if (!this.#deps.leases.isTrusted(task.leaseId)) this.fence();
      if (this.#abort.signal.aborted) throw new Error('stopped');
      const end = this.#accept(frames);
      if (end !== null) return await this.#succeed(end);
    }
    throw new Error('an adapter ended a stream without its end');
  }

  #begin(): void {
    const { task, replica } = this;
    const atMs = this.#deps.clock.nowMs();
    const predictedStartMs = predictStartMs(task.queuePosition, task.startBasis);
    const { kvWarmth } = this.#report;
    const { attempts, queuePosition } = task;
    const queueTimeMs = atMs - task.createdAt.getTime();
    const start = { attempt: attempts, queueTimeMs, queuePosition, predictedStartMs, kvWarmth };
    this.#started = start;
    this.#deps.telemetry.started(this.#facts, start);
    if (!this.#log.hasStarted) {
      this.#log.start({
        kind: 'started',
        seq: 0,
        atMs,
        queuePosition: task.queuePosition,
        replicaId: replica.id,
        seed: String(task.seed),
        predictedStartMs,
      });
      this.#log.mark(this.#report.frame(0));
    } else if (this.#replay.done) {
      this.#seam();
    }
    this.#deps.recorder.touch(this.#recording);
  }

  #seam(): void {
    const index = this.#log.tokens.length;
    const atMs = this.#deps.clock.nowMs();
    this.#log.mark({ kind: 'seam', seq: index, atMs, index, cause: 'engine_lost', attempt: this.task.attempts });
    this.#deps.recorder.touch(this.#recording);
  }

  /** Takes one group of frames; returns the engine's end when it is in it. */
  #accept(frames: readonly EngineFrame[]): EngineEnd | null {
    const texts: string[] = [];
    let end: EngineEnd | null = null;
    for (const frame of frames) {
      if (frame.kind === 'token') texts.push(frame.text);
      else end = frame;
    }
    const fresh = this.#replay.done ? texts : this.#compare(texts);
    const room = this.task.maxTokens - this.#log.tokens.length;
    if (fresh.length > 0 && room > 0) {
      this.#noteFirstToken(fresh.length);
      // An engine that runs past its limit is cut there: readers were promised no more.
      if (this.#log.append(fresh.length > room ? fresh.slice(0, room) : fresh, this.#deps.clock.nowMs())) {
        this.#deps.recorder.touch(this.#recording);
      }
      const frame = this.#report.frameDue(this.#log.tokens.length);
      if (frame !== null) this.#log.mark(frame);
    }
    if (end !== null && !this.#replay.finish()) throw new DivergedError(this.#replay.index);
    return end;
  }

  /** Holds the repeated run against the log; returns what continues it. */
  #compare(texts: readonly string[]): readonly string[] {
    const replayed = this.#replay.take(texts);
    if (replayed.verdict === 'diverged') throw new DivergedError(replayed.index);
    if (this.#replay.done) this.#seam();
    return replayed.fresh;
  }

  #noteFirstToken(fresh: number): void {
    if (this.#firstTokenAtMs !== null) return;
    this.#firstTokenAtMs = this.#deps.clock.monotonicMs();
    const sinceLeaseMs = this.#firstTokenAtMs - this.#leasedAtMs;
    this.#deps.telemetry.firstToken(this.#facts, sinceLeaseMs);
    this.#report.firstTokenCame(sinceLeaseMs, this.#log.tokens.length + fresh);
  }

  #measuredDecodeMs(): number {
    return this.#firstTokenAtMs === null ? 0 : Math.round(this.#deps.clock.monotonicMs() - this.#firstTokenAtMs);
  }

  async #succeed(end: EngineEnd): Promise<void> {
    if (!this.#log.seal()) return;
    if (end.disbelieved !== undefined) this.#deps.telemetry.disbelieved(this.#facts, end.disbelieved);
    const decodeMs = Math.round(end.decodeMs);
    const event: EndEvent = { ...this.#endEvent(end.finishReason, false, decodeMs), tokensOut: end.tokensOut };
    this.#report.ended(end.decodeMs > 0 ? (end.tokensOut * 1000) / end.decodeMs : null);
    await this.#finish({
      status: 'SUCCEEDED',
      event,
      tokensIn: end.tokensIn,
      tokensOut: end.tokensOut,
      decodeMs: event.decodeMs,
      finishReason: end.finishReason,
      error: null,
      releaseReason: 'completed',
    });
  }

  /** The run ended any other way than by the engine's word; decides what that means for the task. */
  async #failed(error: unknown): Promise<void> {
    if (this.#stop === 'fenced') return this.#log.abandon();
    if (this.#stop === 'interrupted')
      return this.#lose(this.#interruption, { slotIsFree: false, delayMs: 0, reason: 'interrupted' });
    if (this.#stop === 'timeout') return this.#fail(OUT_OF_TIME, false);
    if (this.#stop === 'cancel') return;
    if (error instanceof DivergedError) return this.#fail(diverged(error), false);
    if (error instanceof EngineError) return this.#engineFailed(error);
    this.#deps.telemetry.backgroundFailure('attempt', error);
    return this.#fail(OUR_FAULT, false);
  }

  async #engineFailed(error: EngineError): Promise<void> {
    // One that hung answers still: only a token shows that it decodes.
    if (error.engineLost) this.#deps.fleet.doubt(this.replica.id, error.fault === 'silent' ? 'token' : 'answer');
    if (mayRunAgain(error, this.task.attempts)) {
      const delayMs = error.engineLost ? 0 : requeueDelayMs(error, this.task.attempts);
      const reason = error.engineLost ? 'engine_lost' : 'engine_refused';
      return this.#lose(error.message, { slotIsFree: true, delayMs, reason });
    }
    const { code, message, retriable, retryAfterMs } = error;
    const failure = { code, message, retriable, engine: this.task.engine };
    // What hangs, or was cut off by us for what it sent, may still decode.
    const mayStillDecode = error.fault === 'silent' || error.fault === 'malformed';
    return this.#fail(retryAfterMs === null ? failure : { ...failure, retryAfterMs }, !mayStillDecode);
  }

  /** The engine or our hold on it is gone: run again where that is honest, else tell the readers. */
  async #lose(
    cause: string,
    how: { readonly slotIsFree: boolean; readonly delayMs: number; readonly reason: string },
  ): Promise<void> {
    const decision = afterLoss({
      cancelRequested: false,
      attempts: this.task.attempts,
      tokensLogged: this.#log.tokens.length,
      determinism: this.task.determinism,
      cause,
    });
    if (decision.next === 'fail') return this.#fail({ ...decision.error, engine: this.task.engine }, how.slotIsFree);
    if (!this.#log.seal()) return;
    if (!how.slotIsFree) await freeSlot(this.#deps, this);
    const append = await this.#deps.recorder.release(this.#recording);
    if (append === null) return;
    const taken = await requeueTask(this.#deps.db, append, { delayMs: how.delayMs, reason: how.reason });
    if (taken) {
      this.claimableInMs = how.delayMs;
      this.#deps.telemetry.requeued(this.task, cause);
    }
    this.#log.abandon();
  }

  async #fail(error: TaskFailure, slotIsFree: boolean): Promise<void> {
    if (!this.#log.seal()) return;
    const seq = this.#log.tokens.length + 1;
    const event: ErrorEvent = { kind: 'error', seq, atMs: this.#deps.clock.nowMs(), error };
    const written = await this.#finish({
      status: 'FAILED',
      event,
      tokensIn: null,
      tokensOut: this.#log.tokens.length,
      decodeMs: this.#measuredDecodeMs(),
      finishReason: 'error',
      error,
      releaseReason: slotIsFree ? 'failed' : null,
    });
    if (written && !slotIsFree) await settleSlot(this.#deps, this, 'failed');
  }

  #endEvent(finishReason: string, canceled: boolean, decodeMs: number): EndEvent {
    const tokensOut = this.#log.tokens.length;
    return {
      kind: 'end',
      seq: tokensOut + 1,
      atMs: this.#deps.clock.nowMs(),
      tokensOut,
      decodeMs,
      canceled,
      finishReason,
    };
  }

  /** Writes the ending, and only then lets readers see it. False: fenced, nothing was written. */
  async #finish(ending: Ending): Promise<boolean> {
    // Whoever sees the end may send the session's next task: its place is known by then.
    await this.#report.placed;
    const append = await this.#deps.recorder.release(this.#recording);
    const { tokens, chainHash } = this.#log;
    if (append === null || !(await writeEnding(this.#deps, this, { append, tokens, chainHash }, ending))) {
      this.#log.abandon();
      return false;
    }
    this.#log.end(ending.event);
    const { status: outcome, tokensIn, tokensOut, decodeMs, error } = ending;
    const facts = { outcome, tokensIn, tokensOut, decodeMs };
    this.#deps.telemetry.ended(this.#facts, this.#started, error === null ? facts : { ...facts, error });
    return true;
  }

  /** The ending could not be written: the lease will run out, and recovery ends the task. */
  #giveUp(error: unknown): void {
    this.#log.abandon();
    this.#deps.telemetry.backgroundFailure('attempt ending', error);
  }
}
