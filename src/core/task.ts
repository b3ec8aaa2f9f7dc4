/**
 * The life of a task.
 *
 *   QUEUED ──claim──► LEASED ──first event──► STREAMING ──end──► SUCCEEDED
 *     │ ▲                │                        │  └──error──► FAILED
 *     │ └────requeue─────┴────────────────────────┘
 *     ├──cancel──► CANCELED ◄──cancel── (LEASED, STREAMING)
 *     ├──drop────► DROPPED
 *     └──expire──► EXPIRED
 *
 * 1. A terminal state is never left. 2. Only a holder of the current lease moves a task out of LEASED or STREAMING,
 * except the recovery of an expired lease. 3. `requeue` keeps the task's place: it goes back to the front of its lane.
 * The SQL in store/tasks obeys this table; a model test drives both.
 */
import type { TaskFailure } from './errors.js';

export const TASK_STATUSES = [
  'QUEUED',
  'LEASED',
  'STREAMING',
  'SUCCEEDED',
  'CANCELED',
  'FAILED',
  'DROPPED',
  'EXPIRED',
] as const;
export type TaskStatus = (typeof TASK_STATUSES)[number];

export type TaskCommand = 'claim' | 'stream' | 'end' | 'fail' | 'cancel' | 'requeue' | 'drop' | 'expire';

type Row = Readonly<Record<TaskCommand, TaskStatus | null>>;
const REFUSE_ALL: Row = {
  claim: null,
  stream: null,
  end: null,
  fail: null,
  cancel: null,
  requeue: null,
  drop: null,
  expire: null,
};
const HELD: Row = {
  ...REFUSE_ALL,
  stream: 'STREAMING',
  end: 'SUCCEEDED',
  fail: 'FAILED',
  cancel: 'CANCELED',
  requeue: 'QUEUED',
};

/** Total: every state × every command; null means refused. */
export const TASK_TABLE: Readonly<Record<TaskStatus, Row>> = {
  QUEUED: { ...REFUSE_ALL, claim: 'LEASED', cancel: 'CANCELED', drop: 'DROPPED', expire: 'EXPIRED' },
  LEASED: HELD,
  STREAMING: HELD,
  SUCCEEDED: REFUSE_ALL,
  CANCELED: REFUSE_ALL,
  FAILED: REFUSE_ALL,
  DROPPED: REFUSE_ALL,
  EXPIRED: REFUSE_ALL,
};

export function nextStatus(from: TaskStatus, command: TaskCommand): TaskStatus | null {
  return TASK_TABLE[from][command];
}

export function isTerminal(status: TaskStatus): boolean {
  return TASK_TABLE[status] === REFUSE_ALL;
}

export const PRIORITIES = ['interactive', 'batch'] as const;
export type Priority = (typeof PRIORITIES)[number];
export type Determinism = 'strict' | 'best_effort';

/** Who ends a task before it ends by itself: a caller, or that nobody reads it any more. */
export type CancelReason = 'client' | 'disconnect';

/** The finish reason of a cancelled task, and back. */
export function finishOfCancel(reason: CancelReason): string {
  return reason === 'disconnect' ? 'disconnect' : 'canceled';
}

export function cancelOfFinish(finishReason: string): CancelReason {
  return finishReason === 'disconnect' ? 'disconnect' : 'client';
}

/** A task may be started this often in all; after that the loss of its engine is final. */
export const MAX_ATTEMPTS = 4;

export type LossDecision =
  | { readonly next: 'cancel' }
  | { readonly next: 'requeue' }
  | { readonly next: 'fail'; readonly error: TaskFailure };

/**
 * What becomes of a task whose engine or holder is gone. Before the first token it may always be tried again; after it
 * only a strict task, whose repeated run can be compared token by token with what its readers already saw.
 */
export function afterLoss(task: {
  readonly cancelRequested: boolean;
  readonly attempts: number;
  readonly tokensLogged: number;
  readonly determinism: Determinism;
  readonly cause: string;
}): LossDecision {
  if (task.cancelRequested) return { next: 'cancel' };
  const repeatable = task.tokensLogged === 0 || task.determinism === 'strict';
  if (repeatable && task.attempts < MAX_ATTEMPTS) return { next: 'requeue' };
  const why = repeatable ? `it was started ${task.attempts} times` : 'best_effort output cannot be continued elsewhere';
  return {
    next: 'fail',
    error: { code: 'WORKER_RESET', message: `${task.cause}; ${why}.`, retriable: true, retryAfterMs: 1000 },
  };
}
