/**
 * One run of one leased task on one engine: its work in, log out, and exactly one ending.
 *
 * The log's `seal()` decides races: whoever closes the door first writes the ending, be it the engine's end, a cancel,
 * a timeout or a loss. Everything this writes names its lease; when that is gone it stops and writes nothing.
 */
import { predictStartMs } from '../core/prediction.js';
import { promptCache } from '../core/session.js';
import type { CancelReason } from '../core/task.js';
import { EngineError } from '../engines/failure.js';
import type { Clock } from '../runtime/clock.js';
import type { Database } from '../store/database.js';
import type { ClaimedTask } from '../store/tasks.js';
import type { RunFacts, StartFacts, Telemetry } from '../telemetry/events.js';
import { CompletionWork } from './attemptCompletion.js';
import { AttemptDoor, type Loss } from './attemptDoor.js';
import {
  DivergedError,
  diverged,
  mayRunAgain,
  OUR_FAULT,
  OUT_OF_TIME,
  OVERSIZED,
  OversizedResultError,
  requeueDelayMs,
} from './attemptFailure.js';
import { UnaryWork } from './attemptUnary.js';
import type { Work, WorkDeps } from './attemptWork.js';
import { BudgetMeter } from './budgetMeter.js';
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
  readonly #door: AttemptDoor;
  readonly #abort = new AbortController();
  readonly #facts: RunFacts;
  readonly #report: RunReport;
  readonly #budget: BudgetMeter;
  readonly #leasedAtMs: number;
  #stop: StopReason = 'running';
  #started: StartFacts | null = null;
  #interruption = '';
  #restored: Promise<void> = Promise.resolve();
  /** Of a log that is restored. */
  #work: Work | null = null;
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
    this.#log = new StreamLog(task.id, task.disconnectGraceMs !== null);
    this.#leasedAtMs = deps.clock.monotonicMs();
    const onError = (name: string, error: unknown) => deps.telemetry.backgroundFailure(name, error);
    this.#budget = new BudgetMeter({ ...deps, onError }, task);
    this.#report = new RunReport({ ...deps, onError, budgetLeft: () => this.#budget.left() }, task, replica);
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
    const [log, recording, report, facts] = [this.#log, this.#recording, this.#report, this.#facts];
    const measuredMs = () => this.#work?.measuredMs() ?? 0;
    this.#door = new AttemptDoor(deps, {
      run: this,
      log,
      recording,
      report,
      facts,
      measuredMs,
      started: () => this.#started,
    });
  }

  /** How long it has held its slot, ms. */
  get heldMs(): number {
    return this.#deps.clock.monotonicMs() - this.#leasedAtMs;
  }

  /** It wrote the ending of its task: it was not fenced, and the task does not wait again. */
  get hasEnded(): boolean {
    return this.#log.state === 'ended';
  }

  start(): void {
    this.#restored = this.#restore();
    this.done = this.#run();
  }

  /**
   * Ends the task for its caller. The ending is durable when this answers.
   * @returns whether the engine was seen to have freed the slot; null when the task had ended by itself.
   */
  async cancel(reason: CancelReason): Promise<boolean | null> {
    await this.#restored;
    if (!this.#door.close()) {
      await this.done;
      return null;
    }
    this.#halt('cancel');
    const settled = this.#door.canceled(reason);
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
      if (this.#log.state === 'open') await this.#doWork();
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
    await this.#budget.read();
    this.#work = this.#workHere();
    this.#deps.hub.attach(this.#log);
  }

  #workHere(): Work {
    const { clock, telemetry, leases, recorder } = this.#deps;
    const workDeps: WorkDeps = {
      ...{ clock, telemetry, task: this.task, replica: this.replica, requestId: this.requestId },
      ...{ facts: this.#facts, report: this.#report, log: this.#log, heldMs: () => this.heldMs, budget: this.#budget },
      touch: () => recorder.touch(this.#recording),
      seam: () => this.#seam(),
      checkHeld: () => {
        if (!leases.isTrusted(this.task.leaseId)) this.fence();
        if (this.#abort.signal.aborted) throw new Error('stopped');
      },
    };
    return this.task.workload === 'completion' ? new CompletionWork(workDeps) : new UnaryWork(workDeps);
  }

  async #doWork(): Promise<void> {
    const work = this.#work;
    if (work === null) throw new Error('the log of a task was not restored');
    this.#begin(work);
    await this.#door.succeeded(await work.run(this.#abort.signal));
  }

  #begin(work: Work): void {
    const { task, replica } = this;
    const atMs = this.#deps.clock.nowMs();
    const predictedStartMs = predictStartMs(task.queuePosition, task.startBasis);
    const { kvWarmth } = this.#report;
    const { attempts, queuePosition } = task;
    const queueTimeMs = atMs - task.createdAt.getTime();
    const start = { attempt: attempts, queueTimeMs, queuePosition, predictedStartMs, kvWarmth };
    this.#started = start;
    this.#deps.telemetry.started(this.#facts, start);
    const again = this.#log.hasStarted;
    if (!again) {
      this.#log.start({
        kind: 'started',
        seq: 0,
        atMs,
        queuePosition: task.queuePosition,
        replicaId: replica.id,
        seed: String(task.seed),
        predictedStartMs,
        ...(task.workload === 'completion' && { promptCache: promptCache(task) }),
      });
    }
    work.begin(again);
    this.#deps.recorder.touch(this.#recording);
  }

  #seam(): void {
    const index = this.#log.tokens.length;
    const atMs = this.#deps.clock.nowMs();
    this.#log.mark({ kind: 'seam', seq: index, atMs, index, cause: 'engine_lost', attempt: this.task.attempts });
    this.#deps.recorder.touch(this.#recording);
  }

  /** The run ended any other way than by the engine's word; decides what that means for the task. */
  async #failed(error: unknown): Promise<void> {
    if (this.#stop === 'fenced') return this.#log.abandon();
    // What earlier runs left could not be read: with a part of it, or none, any ending would contradict what readers have.
    if (this.#work === null) return this.#giveUp(error);
    if (this.#stop === 'interrupted')
      return this.#lost(this.#interruption, { slotIsFree: false, delayMs: 0, reason: 'interrupted' });
    if (this.#stop === 'timeout') return this.#door.failed(OUT_OF_TIME, false);
    if (this.#stop === 'cancel') return;
    if (error instanceof DivergedError) return this.#door.failed(diverged(error), false);
    if (error instanceof OversizedResultError)
      return this.#door.failed({ ...OVERSIZED, engine: this.task.engine }, true);
    if (error instanceof EngineError) return this.#engineFailed(error);
    this.#deps.telemetry.backgroundFailure('attempt', error);
    return this.#door.failed(OUR_FAULT, false);
  }

  async #engineFailed(error: EngineError): Promise<void> {
    // One that hung answers still: only a token shows that it decodes.
    if (error.engineLost) this.#deps.fleet.doubt(this.replica.id, error.fault === 'silent' ? 'token' : 'answer');
    if (mayRunAgain(error, this.task.attempts)) {
      const delayMs = error.engineLost ? 0 : requeueDelayMs(error, this.task.attempts);
      const reason = error.engineLost ? 'engine_lost' : 'engine_refused';
      return this.#lost(error.message, { slotIsFree: true, delayMs, reason });
    }
    const { code, message, retriable, retryAfterMs } = error;
    const failure = { code, message, retriable, engine: this.task.engine };
    // What hangs, or was cut off by us for what it sent, may still decode.
    const mayStillDecode = error.fault === 'silent' || error.fault === 'malformed';
    return this.#door.failed(retryAfterMs === null ? failure : { ...failure, retryAfterMs }, !mayStillDecode);
  }

  async #lost(cause: string, how: Loss): Promise<void> {
    this.claimableInMs = await this.#door.lost(cause, how);
  }

  /** The ending could not be written: the lease will run out, and recovery ends the task. */
  #giveUp(error: unknown): void {
    this.#log.abandon();
    this.#deps.telemetry.backgroundFailure('attempt ending', error);
  }
}
