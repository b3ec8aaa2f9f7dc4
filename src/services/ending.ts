/** How a run is ended: its ending made durable, and its slot given back once the engine is seen to have let go of it. */
import { createHash } from 'node:crypto';
import { RefusalError, type TaskFailure } from '../core/errors.js';
import type { TerminalEvent } from '../core/frame.js';
import { isTerminal } from '../core/task.js';
import type { TaskResult, Workload } from '../core/workload.js';
import type { CancelOutcome } from '../engines/adapter.js';
import { delay } from '../runtime/wait.js';
import type { Database } from '../store/database.js';
import { releaseReason } from '../store/leases.js';
import {
  type Append,
  type ClaimedTask,
  endQueuedTask,
  type Finish,
  finishTask,
  getTask,
  type ResultArtifact,
  recordSlotFree,
  requeueTask,
  type TaskRow,
} from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Fleet, ReadyReplica } from './fleet.js';
import type { LeaseKeeper } from './leases.js';
import type { StreamHub } from './streams/hub.js';
import { terminalChunk } from './streams/log.js';
import { loggedText } from './streams/stored.js';
import { transcriptOf } from './transcript.js';

/** How long an engine may take to let go of a slot after its connection was closed, before it is recycled. */
const SLOT_FREE_DEADLINE_MS = 5_000;
const RETRY_MS = 500;

export interface EndingDeps {
  readonly db: Database;
  readonly leases: LeaseKeeper;
  readonly fleet: Fleet;
  readonly telemetry: Telemetry;
}

export interface Run {
  readonly task: ClaimedTask;
  readonly replica: ReadyReplica;
  readonly requestId: string;
}

/** What goes into the last write besides the ending: the end of the log, and what all of it says. */
export interface Said {
  readonly append: Append;
  readonly tokens: readonly string[];
  readonly chainHash: string;
}

export interface Ending {
  readonly status: Finish['status'];
  readonly event: TerminalEvent;
  readonly tokensIn: number | null;
  /** Generated: the engine's total, which may exceed the token events, or the events where it told none. */
  readonly tokensOut: number;
  readonly decodeMs: number;
  readonly finishReason: string;
  /** What a task without tokens gave; null: it gave tokens, or nothing. */
  readonly result: ResultArtifact | null;
  readonly error: TaskFailure | null;
  /** null: the slot is released once the engine is seen to be free. */
  readonly releaseReason: string | null;
}

/** What an engine gave at once, as it is kept: by content, so that the same result is kept once. */
export function resultArtifact(workload: Workload, result: TaskResult): ResultArtifact {
  const content = JSON.stringify(result);
  return { id: `sha256:${createHash('sha256').update(content).digest('hex')}`, content, tags: ['result', workload] };
}

/**
 * Writes the last chunks, the terminal event, the transcript and the outcome. Tries for as long as the lease is ours; a
 * write whose answer was lost is recognised by what it left behind.
 * @returns false when fenced: nothing was written. @throws when the lease ran out before the database answered.
 */
export async function writeEnding(
  deps: EndingDeps,
  { task, replica }: Run,
  { append, tokens, chainHash }: Said,
  ending: Ending,
): Promise<boolean> {
  const { event, ...outcome } = ending;
  const { status, finishReason, error, tokensOut, result } = outcome;
  const resultId = result?.id ?? null;
  const facts = { status, finishReason, error, text: tokens.join(''), tokensOut, resultId };
  const coResidentMax = deps.leases.coResidentMax(task.leaseId);
  const engine = { ...replica.run, coResidentMax, tokens: tokens.length, chainHash };
  const transcript = transcriptOf(task, { ...facts, replicaId: replica.id, engine });
  const finish: Finish = { ...append, ...outcome, chunks: [...append.chunks, terminalChunk(event)], transcript };
  return whileTrusted(deps, finish.leaseId, 'task ending', async () => {
    if (await finishTask(deps.db, finish)) return true;
    const row = await getTask(deps.db, task.id);
    return row !== null && row.leaseId === finish.leaseId && isTerminal(row.status);
  });
}

/** Sends a task back to its queue with what its log has so far; tries, and returns, as `writeEnding` does. */
export function writeRequeue(
  deps: Pick<EndingDeps, 'db' | 'leases' | 'telemetry'>,
  append: Append,
  how: { readonly delayMs: number; readonly reason: string },
): Promise<boolean> {
  return whileTrusted(deps, append.leaseId, 'task requeue', async () => {
    if (await requeueTask(deps.db, append, how)) return true;
    // It may run elsewhere by now: what its lease was ended for tells whose write it was.
    return (await releaseReason(deps.db, append.leaseId)) === how.reason;
  });
}

async function whileTrusted<Result>(
  { leases, telemetry }: Pick<EndingDeps, 'leases' | 'telemetry'>,
  leaseId: string,
  what: string,
  write: () => Promise<Result>,
): Promise<Result> {
  for (;;) {
    try {
      return await write();
    } catch (failure) {
      if (!leases.isTrusted(leaseId) || isDataError(failure)) throw failure;
      telemetry.backgroundFailure(what, failure);
      await delay(RETRY_MS);
    }
  }
}

/** The database is well and will never take this (SQLSTATE class 22): trying again would hold the slot for ever. */
function isDataError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^22[0-9A-Z]{3}$/.test(String(error.code));
}

/** Ends the run at its engine by every means that has, and looks whether it is gone. */
function cancelAtEngine({ replica, requestId, task }: Run): Promise<CancelOutcome> {
  const slot = task.workload === 'completion' ? task.slot : null;
  return replica.adapter.cancel({ requestId, slot }, AbortSignal.timeout(SLOT_FREE_DEADLINE_MS));
}

/**
 * Ends the run at its engine; one that gives no sign of having let go is recycled, and one that answers for it but cannot
 * be looked into is believed, but not called confirmed.
 * @returns whether the slot was seen to be free.
 */
export async function freeSlot(deps: Pick<EndingDeps, 'fleet'>, run: Run): Promise<boolean> {
  const { outcome, verifiedBy } = await cancelAtEngine(run);
  if (outcome === 'unknown') {
    const { id, adapter } = run.replica;
    const message = `a cancelled request went on decoding (${verifiedBy})`;
    const fix = 'Nothing has to be done; when it happens often, look for a newer version of the engine.';
    await deps.fleet.recycle(id, { reason: { code: 'CANCEL_IGNORED', message, fix }, blame: true }, adapter);
  }
  return outcome === 'slot_free';
}

/** Gives the slot back once its engine has let go of it, by itself or by force. @returns whether that was seen. */
export async function settleSlot(deps: EndingDeps, run: Run, reason: string): Promise<boolean> {
  const free = await freeSlot(deps, run);
  const { id, leaseId } = run.task;
  if (free) await whileTrusted(deps, leaseId, 'slot free', () => recordSlotFree(deps.db, id));
  await whileTrusted(deps, leaseId, 'lease release', () => deps.leases.release(leaseId, reason));
  return free;
}

/**
 * Ends a task that waits, with what its log has so far: durable first, then its readers look.
 * @returns false when it did not wait any more; nothing was written then.
 */
export async function endQueued(
  deps: { readonly db: Database; readonly hub: StreamHub; readonly telemetry: Telemetry },
  task: TaskRow,
  ending: {
    readonly status: 'CANCELED' | 'EXPIRED' | 'DROPPED';
    readonly event: TerminalEvent;
    readonly finishReason: string;
    readonly error: TaskFailure | null;
  },
): Promise<boolean> {
  const { event, ...outcome } = ending;
  const text = await loggedText(deps.db, task);
  const ran = { replicaId: null, engine: null };
  const transcript = transcriptOf(task, { ...outcome, text, tokensOut: task.tokensOut, ...ran });
  const write = endQueuedTask(deps.db, { task, ...outcome, terminal: terminalChunk(event), transcript });
  const ended = await write.catch(async (failure: unknown) => {
    if (!(failure instanceof RefusalError)) throw failure;
    const row = await getTask(deps.db, task.id);
    if (row?.status !== outcome.status || row.chunks !== task.chunks + 1) throw failure;
    return true; // written, and its answer was lost
  });
  if (!ended) return false;
  deps.hub.changed(task.id);
  deps.telemetry.endedInQueue({ ...task, taskId: task.id }, outcome.status, outcome.finishReason);
  return true;
}
