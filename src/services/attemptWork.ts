/**
 * The part of a run that differs by workload: what its engine is asked, and what of the answer goes into the log. Lease,
 * door and ending are the attempt's.
 */
import type { TaskResult } from '../core/workload.js';
import type { Clock } from '../runtime/clock.js';
import type { ClaimedTask } from '../store/tasks.js';
import type { RunFacts, Telemetry } from '../telemetry/events.js';
import type { BudgetMeter } from './budgetMeter.js';
import type { ReadyReplica } from './fleet.js';
import type { RunReport } from './runReport.js';
import type { StreamLog } from './streams/log.js';

export interface WorkDeps {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly task: ClaimedTask;
  readonly replica: ReadyReplica;
  readonly requestId: string;
  readonly facts: RunFacts;
  readonly report: RunReport;
  /** With what earlier attempts made durable in it. */
  readonly log: StreamLog;
  readonly budget: Pick<BudgetMeter, 'isOver'>;
  /** The log has something new. */
  readonly touch: () => void;
  /** Tells readers that the run goes on on this engine. */
  readonly seam: () => void;
  /** Throws when the run may go no further: it was stopped, or its lease cannot be relied on any more. */
  readonly checkHeld: () => void;
  /** How long the task has held its slot, ms. */
  readonly heldMs: () => number;
}

/** What the engine said in the end. */
export interface WorkEnd {
  readonly finishReason: string;
  readonly tokensIn: number | null;
  readonly tokensOut: number;
  readonly decodeMs: number;
  /** null: it gives no tokens, or too few to tell. */
  readonly tokensPerSecond: number | null;
  /** null: what it gave is in the log. */
  readonly result: TaskResult | null;
  /** The engine did not end it, and may still be at it. */
  readonly cutOff?: true;
  /** What the engine claimed and we did not believe. */
  readonly disbelieved?: string;
}

export interface Work {
  /** The first event of the stream stands, with this attempt or, where `again`, with one before it. */
  begin(again: boolean): void;
  /** To the engine's end. @throws EngineError, DivergedError, or anything once the run may go no further. */
  run(signal: AbortSignal): Promise<WorkEnd>;
  /** What its engine has spent on it so far, by our clock, ms. */
  measuredMs(): number;
}
