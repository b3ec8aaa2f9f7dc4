/** One operation while it is carried out: its course, written down with every step. */
import { RefusalError } from '../../core/errors.js';
import {
  courseAfter,
  isOver,
  type OperationCourse,
  type OperationEnd,
  type OperationEvent,
  type OperationKind,
  progressOf,
  type StepName,
} from '../../core/operation.js';
import type { Reason } from '../../core/pool.js';
import type { Clock } from '../../runtime/clock.js';
import { delay } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { readOperation, updateOperation } from '../../store/operations.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { OperationFeed } from './feed.js';

const PERSIST_AGAIN_MS = 1_000;

/** How an operation ended, in words, and why where it did not do what was asked. */
export interface Outcome {
  readonly end: OperationEnd;
  readonly outcome: string;
  readonly error: Reason | null;
  /** Numbers that belong to it, for the journal. */
  readonly facts?: Readonly<Record<string, number | string>>;
}

/** A step that could not do its part, with a cause and a fix for people. */
export class StepFailure extends Error {
  readonly reason: Reason;

  constructor(reason: Reason, options?: { cause?: unknown }) {
    super(reason.message, options);
    this.name = 'StepFailure';
    this.reason = reason;
  }
}

export const INTERRUPTED: Reason = {
  code: 'INTERRUPTED',
  message: 'The control plane stopped while this was running.',
  fix: 'Start it again.',
};

export const CLOSED: Reason = {
  code: 'INTERRUPTED',
  message: 'Another node took this one for lost and closed the operation.',
  fix: 'Start it again.',
};

/** Steps of a reload that leave its pool whole: they are done whoever has closed its row. */
const WAY_BACK: ReadonlySet<StepName> = new Set(['stop_old', 'roll_back', 'grant_leases']);

export function reasonOf(error: unknown): Reason {
  if (error instanceof StepFailure) return error.reason;
  if (error instanceof RefusalError) {
    const { code, message, retriable } = error.refusal;
    return { code, message, fix: retriable ? 'Start it again.' : null };
  }
  return { code: 'INTERNAL', message: 'it failed inside the control plane', fix: 'Look at the log; start it again.' };
}

export interface RunDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly feed: OperationFeed;
  /** Aborted when the control plane stops. */
  readonly signal: AbortSignal;
}

export interface RunFacts {
  readonly id: string;
  readonly kind: OperationKind;
  readonly poolId: string;
}

export class OperationRun {
  readonly facts: RunFacts;
  readonly #deps: RunDeps;
  #course: OperationCourse;
  #revision = 0;
  #startedAtMs: number | null = null;
  #closed = false;

  constructor(facts: RunFacts, course: OperationCourse, deps: RunDeps) {
    this.facts = facts;
    this.#course = course;
    this.#deps = deps;
  }

  /** Aborted when the control plane stops; `checkStop` turns that into the end of the operation. */
  get signal(): AbortSignal {
    return this.#deps.signal;
  }

  checkStop(): void {
    if (this.signal.aborted) throw new StepFailure(INTERRUPTED);
  }

  /** Its row was closed by somebody else, and the pool may be in the hands of another operation. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** @throws StepFailure when its row is closed. */
  async begin(): Promise<void> {
    this.#startedAtMs = this.#deps.clock.nowMs();
    this.#take({ type: 'begin' });
    await this.#write();
    if (this.#closed) throw new StepFailure(CLOSED);
  }

  /**
   * Does one step; what `work` says becomes its detail, what it throws fails the step and goes on to the caller.
   * @throws StepFailure without doing it, when the control plane stops or its row is closed.
   */
  async step<Result>(name: StepName, work: (say: (detail: string) => void) => Promise<Result>): Promise<Result> {
    this.checkStop();
    const { clock } = this.#deps;
    this.#take({ type: 'step_began', name, atMs: clock.nowMs() });
    await this.#write();
    let detail: string | null = null;
    try {
      const isWayBack = this.facts.kind === 'RELOAD' && WAY_BACK.has(name);
      if (this.#closed && !isWayBack) throw new StepFailure(CLOSED);
      const result = await work((said) => {
        detail = said;
      });
      this.#take({ type: 'step_ended', name, state: 'SUCCEEDED', detail, atMs: clock.nowMs() });
      return result;
    } catch (error) {
      const { message } = reasonOf(error);
      this.#take({ type: 'step_ended', name, state: 'FAILED', detail: message, atMs: clock.nowMs() });
      throw error;
    } finally {
      await this.#write();
    }
  }

  /** A step that is not needed, and why. Written with the next change. */
  skip(name: StepName, detail: string): void {
    this.#take({ type: 'step_skipped', name, detail });
  }

  /** Writes the end down, however often that takes; the pool is not free for another operation before. */
  async end({ end, outcome, error }: Outcome): Promise<void> {
    const endedAtMs = this.#deps.clock.nowMs();
    this.#take({ type: end, atMs: endedAtMs });
    await this.insist('operation end', () => this.#update({ outcome, error, endedAtMs }));
  }

  /** Does what must not be left undone again and again, until it works or the control plane stops. */
  async insist(what: string, work: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        this.#deps.telemetry.backgroundFailure(what, error);
        if (this.signal.aborted) return;
      }
      await delay(PERSIST_AGAIN_MS, this.signal);
    }
  }

  #take(event: OperationEvent): void {
    const next = courseAfter(this.#course, event);
    if (next === null) throw new Error(`${event.type} does not fit a ${this.facts.kind} that is ${this.#course.state}`);
    this.#course = next;
  }

  /** A write that failed is made up by the next one, which carries every step. The work goes on. */
  async #write(): Promise<void> {
    await this.#update({ outcome: null, error: null, endedAtMs: null }).catch((error: unknown) =>
      this.#deps.telemetry.backgroundFailure('operation step', error),
    );
  }

  async #update(end: { outcome: string | null; error: Reason | null; endedAtMs: number | null }): Promise<void> {
    const { state, steps } = this.#course;
    this.#revision += 1;
    const record = await updateOperation(this.#deps.db, {
      id: this.facts.id,
      state,
      steps,
      progress: progressOf(steps),
      revision: this.#revision,
      startedAtMs: this.#startedAtMs,
      ...end,
    });
    if (record !== null) this.#deps.feed.publish(record);
    else await this.#findClosed(end.endedAtMs);
  }

  /** Nothing was taken: the end is there already, either ours, whose answer was lost, or somebody else's. */
  async #findClosed(endedAtMs: number | null): Promise<void> {
    const row = await readOperation(this.#deps.db, this.facts.id);
    if (row === null || !isOver(row.state)) return;
    const isOurs = endedAtMs !== null && row.state === this.#course.state && row.endedAt?.getTime() === endedAtMs;
    this.#closed = !isOurs;
    this.#deps.feed.publish(row);
  }
}
