/** A completion: tokens into the log as they come, held against what an earlier attempt said as far as that went. */
import { Replay } from '../core/replay.js';
import { promptCache } from '../core/session.js';
import type { EngineEnd, EngineFrame } from '../engines/adapter.js';
import { DivergedError } from './attemptFailure.js';
import type { Work, WorkDeps, WorkEnd } from './attemptWork.js';

export class CompletionWork implements Work {
  readonly #deps: WorkDeps;
  readonly #replay: Replay;
  #firstTokenAtMs: number | null = null;

  constructor(deps: WorkDeps) {
    this.#deps = deps;
    this.#replay = new Replay(deps.log.tokens);
  }

  begin(again: boolean): void {
    const { log, report, seam } = this.#deps;
    if (!again) log.mark(report.frame(0));
    else if (this.#replay.done) seam();
  }

  measuredMs(): number {
    return this.#firstTokenAtMs === null ? 0 : Math.round(this.#deps.clock.monotonicMs() - this.#firstTokenAtMs);
  }

  async run(signal: AbortSignal): Promise<WorkEnd> {
    const { task, replica, requestId, checkHeld } = this.#deps;
    const request = {
      requestId,
      correlationId: task.correlationId,
      prompt: task.prompt,
      maxTokens: task.maxTokens,
      seed: task.seed,
      strict: task.determinism === 'strict',
      reusesCache: promptCache(task).used,
      slot: task.slot,
    };
    for await (const frames of replica.adapter.stream(request, signal)) {
      // After a pause of this whole process, what the socket held comes before the timer that would have noticed.
      checkHeld();
      const end = this.#accept(frames);
      if (end !== null) return endOf(end);
      if (this.#deps.budget.isOver(this.measuredMs())) return this.#cutOff();
    }
    throw new Error('an adapter ended a stream without its end');
  }

  /** The time that its session may spend has run out: what was said stands, as with max_tokens. */
  #cutOff(): WorkEnd {
    const tokensOut = this.#deps.log.tokens.length;
    const end = { finishReason: 'budget', tokensIn: null, tokensOut, decodeMs: this.measuredMs(), result: null };
    return { ...end, tokensPerSecond: null, cutOff: true };
  }

  /** Takes one group of frames; returns the engine's end when it is in it. */
  #accept(frames: readonly EngineFrame[]): EngineEnd | null {
    const { log, clock, report, task, touch } = this.#deps;
    const texts: string[] = [];
    let end: EngineEnd | null = null;
    for (const frame of frames) {
      if (frame.kind === 'token') texts.push(frame.text);
      else end = frame;
    }
    const fresh = this.#replay.done ? texts : this.#compare(texts);
    const room = task.maxTokens - log.tokens.length;
    if (fresh.length > 0 && room > 0) {
      this.#noteFirstToken(fresh.length);
      // An engine that runs past its limit is cut there: readers were promised no more.
      if (log.append(fresh.length > room ? fresh.slice(0, room) : fresh, clock.nowMs())) touch();
      const frame = report.frameDue(log.tokens.length);
      if (frame !== null) log.mark(frame);
    }
    if (end !== null && !this.#replay.finish()) throw new DivergedError(this.#replay.index);
    return end;
  }

  /** Holds the repeated run against the log; returns what continues it. */
  #compare(texts: readonly string[]): readonly string[] {
    const replayed = this.#replay.take(texts);
    if (replayed.verdict === 'diverged') throw new DivergedError(replayed.index);
    if (this.#replay.done) this.#deps.seam();
    return replayed.fresh;
  }

  #noteFirstToken(fresh: number): void {
    if (this.#firstTokenAtMs !== null) return;
    const { clock, heldMs, telemetry, facts, report, log } = this.#deps;
    this.#firstTokenAtMs = clock.monotonicMs();
    const sinceLeaseMs = heldMs();
    telemetry.firstToken(facts, sinceLeaseMs);
    report.firstTokenCame(sinceLeaseMs, log.tokens.length + fresh);
  }
}

function endOf(end: EngineEnd): WorkEnd {
  const { finishReason, tokensIn, tokensOut, decodeMs, disbelieved } = end;
  return {
    ...{ finishReason, tokensIn, tokensOut, decodeMs: Math.round(decodeMs), result: null },
    tokensPerSecond: decodeMs > 0 ? (tokensOut * 1000) / decodeMs : null,
    ...(disbelieved !== undefined && { disbelieved }),
  };
}
