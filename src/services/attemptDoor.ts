/**
 * The one-way door of a run. Whoever closes it first says how the run ends: by its engine's word, by a cancel, by a failure,
 * or back in the queue. All that is written names the lease; when that is gone nothing is written.
 */
import type { TaskFailure } from '../core/errors.js';
import type { EndEvent } from '../core/frame.js';
import { afterLoss, type CancelReason, finishOfCancel } from '../core/task.js';
import type { Clock } from '../runtime/clock.js';
import type { RunFacts, StartFacts } from '../telemetry/events.js';
import type { WorkEnd } from './attemptWork.js';
import {
  type Ending,
  type EndingDeps,
  freeSlot,
  type Run,
  resultArtifact,
  settleSlot,
  writeEnding,
  writeRequeue,
} from './ending.js';
import type { RunReport } from './runReport.js';
import type { StreamLog } from './streams/log.js';
import type { Recording, StreamRecorder } from './streams/recorder.js';

interface DoorDeps extends EndingDeps {
  readonly clock: Clock;
  readonly recorder: StreamRecorder;
}

interface DoorOf {
  readonly run: Run;
  readonly log: StreamLog;
  readonly recording: Recording;
  readonly report: RunReport;
  readonly facts: RunFacts;
  /** null: it has not begun. */
  readonly started: () => StartFacts | null;
  /** What its engine has spent on it so far, ms. */
  readonly measuredMs: () => number;
}

/** How the engine, or our hold on it, was lost. */
export interface Loss {
  /** False: the engine may still be at it. */
  readonly slotIsFree: boolean;
  /** Before the task may be claimed again, ms. */
  readonly delayMs: number;
  /** Of the release of the lease. */
  readonly reason: string;
}

export class AttemptDoor {
  readonly #deps: DoorDeps;
  readonly #of: DoorOf;

  constructor(deps: DoorDeps, of: DoorOf) {
    this.#deps = deps;
    this.#of = of;
  }

  /** @returns false when somebody was first. */
  close(): boolean {
    return this.#of.log.seal();
  }

  /** Ends the task for its caller, who has closed the door. @returns whether the engine was seen to have let go. */
  async canceled(reason: CancelReason): Promise<boolean> {
    const event = this.#endEvent(finishOfCancel(reason), true, this.#of.measuredMs());
    const written = await this.#finish({
      ...{ status: 'CANCELED', event, tokensIn: null, tokensOut: event.tokensOut, decodeMs: event.decodeMs },
      ...{ finishReason: event.finishReason, result: null, error: null, releaseReason: null },
    });
    return written ? settleSlot(this.#deps, this.#of.run, 'canceled') : false;
  }

  async succeeded(end: WorkEnd): Promise<void> {
    if (!this.close()) return;
    const { run, facts, report } = this.#of;
    const { finishReason, tokensIn, tokensOut, decodeMs } = end;
    if (end.disbelieved !== undefined) this.#deps.telemetry.disbelieved(facts, end.disbelieved);
    const result = end.result === null ? null : resultArtifact(run.task.workload, end.result);
    const named = result === null ? {} : { resultId: result.id };
    const event: EndEvent = { ...this.#endEvent(finishReason, false, decodeMs), tokensOut, ...named };
    report.ended(end);
    const written = await this.#finish({
      ...{ status: 'SUCCEEDED', event, tokensIn, tokensOut, decodeMs, finishReason, result },
      ...{ error: null, releaseReason: end.cutOff === true ? null : 'completed' },
    });
    if (written && end.cutOff === true) await settleSlot(this.#deps, run, 'budget');
  }

  /** @param slotIsFree false: the engine may still be at it, and is made to let go. */
  async failed(error: TaskFailure, slotIsFree: boolean): Promise<void> {
    if (!this.close()) return;
    const tokensOut = this.#of.log.tokens.length;
    const written = await this.#finish({
      event: { kind: 'error', seq: tokensOut + 1, atMs: this.#deps.clock.nowMs(), error },
      ...{ status: 'FAILED', tokensIn: null, tokensOut, decodeMs: this.#of.measuredMs(), finishReason: 'error' },
      ...{ result: null, error, releaseReason: slotIsFree ? 'failed' : null },
    });
    if (written && !slotIsFree) await settleSlot(this.#deps, this.#of.run, 'failed');
  }

  /**
   * The engine or our hold on it is gone: run again where that is honest, else tell the readers.
   * @returns after how long the task may be claimed again, ms; null: it does not wait again.
   */
  async lost(cause: string, { slotIsFree, delayMs, reason }: Loss): Promise<number | null> {
    const { run, log, recording } = this.#of;
    const { attempts, determinism, engine } = run.task;
    const lost = { cancelRequested: false, attempts, tokensLogged: log.tokens.length, determinism, cause };
    const decision = afterLoss(lost);
    if (decision.next === 'fail') {
      await this.failed({ ...decision.error, engine }, slotIsFree);
      return null;
    }
    if (!this.close()) return null;
    if (!slotIsFree) await freeSlot(this.#deps, run);
    const append = await this.#deps.recorder.release(recording);
    if (append === null) return null;
    const taken = await writeRequeue(this.#deps, append, { delayMs, reason });
    if (taken) this.#deps.telemetry.requeued(run.task, cause);
    log.abandon();
    return taken ? delayMs : null;
  }

  #endEvent(finishReason: string, canceled: boolean, decodeMs: number): EndEvent {
    const tokensOut = this.#of.log.tokens.length;
    const atMs = this.#deps.clock.nowMs();
    return { kind: 'end', seq: tokensOut + 1, atMs, tokensOut, decodeMs, canceled, finishReason };
  }

  /** Writes the ending, and only then lets readers see it. False: fenced, nothing was written. */
  async #finish(ending: Ending): Promise<boolean> {
    const { run, log, recording, report, facts, started } = this.#of;
    // Whoever sees the end may send the session's next task: its place is known by then.
    await report.placed;
    const append = await this.#deps.recorder.release(recording);
    const { tokens, chainHash } = log;
    if (append === null || !(await writeEnding(this.#deps, run, { append, tokens, chainHash }, ending))) {
      log.abandon();
      return false;
    }
    log.end(ending.event);
    const { status: outcome, tokensIn, tokensOut, decodeMs, finishReason, error } = ending;
    const ended = { outcome, finishReason, tokensIn, tokensOut, decodeMs };
    this.#deps.telemetry.ended(facts, started(), error === null ? ended : { ...ended, error });
    return true;
  }
}
