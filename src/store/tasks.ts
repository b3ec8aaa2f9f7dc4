/** Tasks and their event logs. Every function is one SQL statement; the story of each stands above it. */
import type { Engine, TaskFailure } from '../core/errors.js';
import type { StartBasis } from '../core/queue.js';
import type { CancelReason, Determinism, Priority, TaskStatus } from '../core/task.js';
import type { Workload } from '../core/workload.js';
import { OR_KEEP_ANEW } from './artifacts.js';
import type { Database, Statement } from './database.js';

export interface TaskRow {
  readonly id: string;
  readonly sessionId: string;
  readonly poolId: string;
  readonly workload: Workload;
  readonly priority: Priority;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly ctx: number;
  readonly prompt: string;
  readonly inputs: readonly string[];
  readonly maxTokens: number;
  readonly seed: bigint;
  readonly determinism: Determinism;
  readonly samplerProfileVersion: string | null;
  readonly kvHint: 'reuse' | 'cold' | null;
  readonly followsPool: boolean;
  readonly disconnectGraceMs: number | null;
  readonly correlationId: string;
  readonly requestHash: string;
  readonly status: TaskStatus;
  readonly queuePosition: number;
  readonly startBasis: StartBasis;
  readonly createdAt: Date;
  readonly deadlineAt: Date;
  readonly attempts: number;
  readonly leaseId: string | null;
  readonly replicaId: string | null;
  readonly chunks: number;
  readonly tokensOut: number;
  readonly cancelRequestedAt: Date | null;
  /** Of the first request; null: none was made, or none is known. */
  readonly cancelReason: CancelReason | null;
  /** When its engine was seen to have let go of a cancelled task. */
  readonly cancelSlotFreeAt: Date | null;
  readonly finishReason: string | null;
  /** Its session has a budget, of which it reserved something. */
  readonly hasBudget: boolean;
  /** How long it may decode before it needs more of that, ms; 0: as long as it likes. */
  readonly budgetTimeMs: number;
}

/** One row of a task's log. `payload` is the event's own fields; for tokens the array of their texts. */
export interface LogChunk {
  readonly kind: string;
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly payload: unknown;
  readonly atMs: number;
}

export interface StoredChunk extends LogChunk {
  readonly ord: number;
}

export interface ClaimedTask extends TaskRow {
  readonly leaseId: string;
  readonly replicaId: string;
  readonly slot: number;
}

export interface Append {
  readonly taskId: string;
  readonly leaseId: string;
  readonly firstOrd: number;
  readonly chunks: readonly LogChunk[];
  readonly tokensOut: number;
}

export interface Transcript {
  /** `sha256:` + hex of the content. */
  readonly id: string;
  /** JSON text. */
  readonly content: string;
}

/** What a task gave where that is no text, kept by content as a transcript is. */
export interface ResultArtifact extends Transcript {
  readonly tags: readonly string[];
}

export interface Finish extends Append {
  readonly status: 'SUCCEEDED' | 'CANCELED' | 'FAILED';
  readonly tokensIn: number | null;
  readonly decodeMs: number | null;
  readonly finishReason: string | null;
  readonly error: TaskFailure | null;
  readonly transcript: Transcript;
  /** Left out: none. */
  readonly result?: ResultArtifact | null;
  /** Releases the lease in the same statement; null keeps the slot held until the engine is seen to be free. */
  readonly releaseReason: string | null;
}

/** Of a TaskRow, for a `tasks t`. */
export const COLUMNS = `t.id, t.session_id AS "sessionId", t.pool_id AS "poolId", t.workload, t.priority, t.engine,
  t.model_ref AS "modelRef", t.ctx, t.prompt, t.inputs, t.max_tokens AS "maxTokens", t.seed, t.determinism,
  t.sampler_profile_version AS "samplerProfileVersion", t.kv_hint AS "kvHint", t.follows_pool AS "followsPool",
  t.disconnect_grace_ms AS "disconnectGraceMs", t.correlation_id AS "correlationId",
  t.request_hash AS "requestHash", t.status,
  t.queue_position AS "queuePosition", t.start_basis AS "startBasis", t.created_at AS "createdAt",
  t.deadline_at AS "deadlineAt", t.attempts, t.lease_id AS "leaseId", t.replica_id AS "replicaId", t.chunks,
  t.tokens_out AS "tokensOut", t.cancel_requested_at AS "cancelRequestedAt",
  t.cancel_reason AS "cancelReason",
  t.cancel_slot_free_at AS "cancelSlotFreeAt", t.finish_reason AS "finishReason", t.budget_life IS NOT NULL AS "hasBudget",
  t.budget_time_ms::float8 AS "budgetTimeMs"`;

/** int8 comes as text from the driver; nothing else differs from TaskRow. */
export type RawTask = Omit<TaskRow, 'seed'> & { readonly seed: string };

export function toTask<Raw extends RawTask>(raw: Raw): Omit<Raw, 'seed'> & { seed: bigint } {
  return { ...raw, seed: BigInt(raw.seed) };
}

// Appends for all tasks of a node in one write. A task takes its chunks only under the lease they were made under and
// only where they continue its log; others are left out, and the caller learns which were taken. Only its holder writes
// under a lease, and writes the same chunks again when an answer was lost: a log that has the first of them takes the rest.
const APPEND: Statement = {
  name: 'task_append',
  text: `
WITH head AS (
  SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::int[], $5::int[])
    AS h(task_id, lease_id, first_ord, count, tokens_out)
), held AS (
  UPDATE tasks t SET status = 'STREAMING', chunks = h.first_ord + h.count, tokens_out = h.tokens_out,
    started_at = coalesce(t.started_at, now()),
    first_token_at = CASE WHEN h.tokens_out > 0 THEN coalesce(t.first_token_at, now()) ELSE t.first_token_at END
  FROM head h
  WHERE t.id = h.task_id AND t.lease_id = h.lease_id AND t.status IN ('LEASED', 'STREAMING')
    AND t.chunks BETWEEN h.first_ord AND h.first_ord + h.count
  RETURNING t.id
), log AS (
  INSERT INTO stream_chunks (task_id, ord, kind, first_seq, last_seq, payload, at)
  SELECT c.task_id, c.ord, c.kind, c.first_seq, c.last_seq, c.payload::json, to_timestamp(c.at_ms / 1000.0)
  FROM unnest($6::uuid[], $7::int[], $8::text[], $9::int[], $10::int[], $11::text[], $12::float8[])
    AS c(task_id, ord, kind, first_seq, last_seq, payload, at_ms)
  JOIN held ON held.id = c.task_id
  ON CONFLICT (task_id, ord) DO NOTHING
)
SELECT id FROM held`,
};

/** @returns the ids of the tasks that took their chunks; any other was fenced. */
export async function appendChunks(db: Database, appends: readonly Append[]): Promise<Set<string>> {
  const flat = appends.flatMap((append) =>
    append.chunks.map((chunk, index) => ({ taskId: append.taskId, ord: append.firstOrd + index, chunk })),
  );
  const rows = await db.relaxedQuery<{ id: string }>(APPEND, [
    appends.map((append) => append.taskId),
    appends.map((append) => append.leaseId),
    appends.map((append) => append.firstOrd),
    appends.map((append) => append.chunks.length),
    appends.map((append) => append.tokensOut),
    flat.map((row) => row.taskId),
    flat.map((row) => row.ord),
    ...chunkColumns(flat.map((row) => row.chunk)),
  ]);
  return new Set(rows.map((row) => row.id));
}

function chunkColumns(chunks: readonly LogChunk[]): unknown[] {
  return [
    chunks.map((chunk) => chunk.kind),
    chunks.map((chunk) => chunk.firstSeq),
    chunks.map((chunk) => chunk.lastSeq),
    chunks.map((chunk) => JSON.stringify(chunk.payload)),
    chunks.map((chunk) => chunk.atMs),
  ];
}

const INSERT_CHUNKS = `
  INSERT INTO stream_chunks (task_id, ord, kind, first_seq, last_seq, payload, at)
  SELECT done.id, $3 + c.n - 1, c.kind, c.first_seq, c.last_seq, c.payload::json, to_timestamp(c.at_ms / 1000.0)
  FROM done, unnest($4::text[], $5::int[], $6::int[], $7::text[], $8::float8[])
    WITH ORDINALITY AS c(kind, first_seq, last_seq, payload, at_ms, n)
  ON CONFLICT (task_id, ord) DO NOTHING`;

// The one-way door: the last chunks, the terminal event, the transcript, the outcome and (mostly) the end of the lease,
// together or not at all. Fenced like an append.
const FINISH: Statement = {
  name: 'task_finish',
  text: `
WITH artifact AS (
  INSERT INTO artifacts (id, kind, content, tags)
  SELECT $15, 'trace', $16::json, ARRAY['transcript']
  WHERE EXISTS (SELECT 1 FROM tasks t WHERE t.id = $1::uuid AND t.lease_id = $2::bigint) ${OR_KEEP_ANEW}
), result AS (
  INSERT INTO artifacts (id, kind, content, tags)
  SELECT $18::text, 'other', $19::json, $20::text[]
  WHERE $18::text IS NOT NULL AND EXISTS (SELECT 1 FROM tasks t WHERE t.id = $1::uuid AND t.lease_id = $2::bigint) ${OR_KEEP_ANEW}
), done AS (
  UPDATE tasks t SET status = $9::task_status, ended_at = now(), chunks = $3 + cardinality($4::text[]), tokens_out = $10,
    tokens_in = $11, decode_ms = $12, finish_reason = $13, error = $14::jsonb, transcript_id = $15,
    result_id = $18::text, started_at = coalesce(t.started_at, now()),
    first_token_at = CASE WHEN $10 > 0 THEN coalesce(t.first_token_at, now()) ELSE t.first_token_at END
  WHERE t.id = $1::uuid AND t.lease_id = $2::bigint AND t.status IN ('LEASED', 'STREAMING')
    AND t.chunks BETWEEN $3 AND $3 + cardinality($4::text[]) - 1
  RETURNING t.id, t.lease_id
), log AS (${INSERT_CHUNKS}
), freed AS (
  UPDATE leases l SET released_at = now(), release_reason = $17::text
  FROM done WHERE l.id = done.lease_id AND l.released_at IS NULL AND $17::text IS NOT NULL
)
SELECT id FROM done`,
};

/** @returns false when the holder was fenced and nothing was written. */
export async function finishTask(db: Database, finish: Finish): Promise<boolean> {
  const rows = await db.query<{ id: string }>(FINISH, [
    finish.taskId,
    finish.leaseId,
    finish.firstOrd,
    ...chunkColumns(finish.chunks),
    finish.status,
    finish.tokensOut,
    finish.tokensIn,
    finish.decodeMs,
    finish.finishReason,
    finish.error === null ? null : JSON.stringify(finish.error),
    finish.transcript.id,
    finish.transcript.content,
    finish.releaseReason,
    finish.result?.id ?? null,
    finish.result?.content ?? null,
    finish.result?.tags ?? null,
  ]);
  return rows.length > 0;
}

// Back to the front of its lane (queue_seq is kept), with what its log has so far; the lease ends with it. One that has
// given tokens is bound to the model that gave them. The lane is taken before the task and its lease, as all writers do:
// the trigger would take it last, while a claim that has it may wait for the slot of this very lease.
const REQUEUE: Statement = {
  name: 'task_requeue',
  text: `
WITH lane AS (
  SELECT l.depth FROM queue_lanes l JOIN tasks t ON t.pool_id = l.pool_id AND t.priority = l.priority
  WHERE t.id = $1::uuid FOR NO KEY UPDATE OF l
), done AS (
  UPDATE tasks t SET status = 'QUEUED', lease_id = NULL, replica_id = NULL, chunks = $3 + cardinality($4::text[]),
    tokens_out = $9, not_before = now() + $10 * interval '1 millisecond', follows_pool = t.follows_pool AND $9 = 0
  WHERE (SELECT count(*) FROM lane) > 0
    AND t.id = $1::uuid AND t.lease_id = $2::bigint AND t.status IN ('LEASED', 'STREAMING')
    AND t.chunks BETWEEN $3 AND $3 + cardinality($4::text[])
  RETURNING t.id
), log AS (${INSERT_CHUNKS}
), freed AS (
  UPDATE leases l SET released_at = now(), release_reason = $11 FROM done WHERE l.id = $2::bigint AND l.released_at IS NULL
)
SELECT id FROM done`,
};

export async function requeueTask(
  db: Database,
  append: Append,
  options: { readonly delayMs: number; readonly reason: string },
): Promise<boolean> {
  const rows = await db.query<{ id: string }>(REQUEUE, [
    append.taskId,
    append.leaseId,
    append.firstOrd,
    ...chunkColumns(append.chunks),
    append.tokensOut,
    options.delayMs,
    options.reason,
  ]);
  return rows.length > 0;
}

// Cancel, expiry or drop of a task that waits: its whole log is the terminal event. A task that is no longer queued is
// left alone, and a cancel of it is recorded for its holder.
const END_QUEUED: Statement = {
  name: 'task_end_queued',
  text: `
WITH artifact AS (
  INSERT INTO artifacts (id, kind, content, tags)
  SELECT $9, 'trace', $10::json, ARRAY['transcript']
  WHERE EXISTS (SELECT 1 FROM tasks t WHERE t.id = $1::uuid AND t.status = 'QUEUED') ${OR_KEEP_ANEW}
), done AS (
  UPDATE tasks t SET status = $2::task_status, ended_at = now(), chunks = t.chunks + 1, error = $11::jsonb, transcript_id = $9,
    finish_reason = $12, cancel_requested_at = CASE WHEN $2::task_status = 'CANCELED' THEN coalesce(t.cancel_requested_at, now()) END,
    cancel_slot_free_at = CASE WHEN $2::task_status = 'CANCELED' THEN now() END
  WHERE t.id = $1::uuid AND t.status = 'QUEUED' AND t.chunks = $3
  RETURNING t.id
), log AS (${INSERT_CHUNKS}
)
SELECT id FROM done`,
};

export async function endQueuedTask(
  db: Database,
  end: {
    readonly task: Pick<TaskRow, 'id' | 'chunks'>;
    readonly status: 'CANCELED' | 'EXPIRED' | 'DROPPED';
    readonly terminal: LogChunk;
    readonly transcript: Transcript;
    readonly error: TaskFailure | null;
    readonly finishReason: string;
  },
): Promise<boolean> {
  const rows = await db.query<{ id: string }>(END_QUEUED, [
    end.task.id,
    end.status,
    end.task.chunks,
    ...chunkColumns([end.terminal]),
    end.transcript.id,
    end.transcript.content,
    end.error === null ? null : JSON.stringify(end.error),
    end.finishReason,
  ]);
  return rows.length > 0;
}

const REQUEST_CANCEL: Statement = {
  name: 'task_request_cancel',
  text: `
UPDATE tasks t SET cancel_requested_at = coalesce(t.cancel_requested_at, now()), cancel_reason = coalesce(t.cancel_reason, $2)
WHERE t.id = $1 AND t.status IN ('LEASED', 'STREAMING') RETURNING t.id`,
};

/** Durably asks the holder to stop; false when the task is not held. */
export async function requestCancel(db: Database, taskId: string, reason: CancelReason): Promise<boolean> {
  return (await db.query(REQUEST_CANCEL, [taskId, reason])).length > 0;
}

const CANCEL_CONFIRMED: Statement = {
  name: 'task_cancel_confirmed',
  text: 'UPDATE tasks SET cancel_slot_free_at = now() WHERE id = $1 AND cancel_requested_at IS NOT NULL',
};

/** The engine was seen to have freed the slot of a cancelled task. */
export async function recordSlotFree(db: Database, taskId: string): Promise<void> {
  await db.query(CANCEL_CONFIRMED, [taskId]);
}

const RESULT: Statement = { name: 'task_result', text: 'SELECT content FROM artifacts WHERE id = $1' };

/** What a task without tokens gave, by the id of the artifact; null when it is not there. */
export async function readResult(db: Database, resultId: string): Promise<unknown> {
  return (await db.query<{ content: unknown }>(RESULT, [resultId]))[0]?.content ?? null;
}

const GET: Statement = { name: 'task_get', text: `SELECT ${COLUMNS} FROM tasks t WHERE t.id = $1` };

export async function getTask(db: Database, taskId: string): Promise<TaskRow | null> {
  const rows = await db.query<RawTask>(GET, [taskId]);
  return rows[0] === undefined ? null : toTask(rows[0]);
}

const OVERDUE: Statement = {
  name: 'task_overdue',
  text: `SELECT ${COLUMNS} FROM tasks t WHERE t.status = 'QUEUED' AND t.deadline_at <= now() ORDER BY t.deadline_at LIMIT 100`,
};

export async function overdueQueuedTasks(db: Database): Promise<TaskRow[]> {
  return (await db.query<RawTask>(OVERDUE, [])).map(toTask);
}

// Tasks whose lease is gone or worthless: expired, or held by an earlier life of this node.
const LOST: Statement = {
  name: 'task_lost',
  text: `
SELECT ${COLUMNS} FROM leases l JOIN tasks t ON t.lease_id = l.id
WHERE l.released_at IS NULL AND (l.expires_at <= now() OR l.holder = ANY($1::uuid[])) AND t.status IN ('LEASED', 'STREAMING')
LIMIT 200`,
};

export async function lostTasks(db: Database, deadHolders: readonly string[]): Promise<TaskRow[]> {
  return (await db.query<RawTask>(LOST, [deadHolders])).map(toTask);
}

const LOG: Statement = {
  name: 'task_log',
  text: `
SELECT ord, kind, first_seq AS "firstSeq", last_seq AS "lastSeq", payload, extract(epoch FROM at) * 1000 AS "atMs"
FROM stream_chunks WHERE task_id = $1 AND ord > $2 AND (last_seq > $3 OR kind IN ('end', 'error') OR (kind = 'seam' AND last_seq = $3))
ORDER BY ord LIMIT $4`,
};

/** A page of the log: chunks after `afterOrd` that hold something past `afterSeq`, and always the terminal one. */
export async function readLog(
  db: Database,
  taskId: string,
  page: { readonly afterOrd: number; readonly afterSeq: number; readonly limit: number },
): Promise<StoredChunk[]> {
  const rows = await db.query<Omit<StoredChunk, 'atMs'> & { atMs: string }>(LOG, [
    taskId,
    page.afterOrd,
    page.afterSeq,
    page.limit,
  ]);
  return rows.map((row) => ({ ...row, atMs: Number(row.atMs) }));
}

const TAIL: Statement = {
  name: 'task_tail',
  text: 'SELECT id, chunks, status FROM tasks WHERE id = ANY($1::uuid[])',
};

/** How far the logs of some tasks have got: one question for all readers of a node that follow tasks held elsewhere. */
export async function logHeads(
  db: Database,
  taskIds: readonly string[],
): Promise<{ id: string; chunks: number; status: TaskStatus }[]> {
  return db.query(TAIL, [taskIds]);
}

const LANES: Statement = {
  name: 'task_lanes',
  text: `
SELECT l.pool_id AS "poolId", l.priority, l.capacity, l.depth,
       (extract(epoch FROM now() - (
         SELECT t.created_at FROM tasks t WHERE t.pool_id = l.pool_id AND t.priority = l.priority AND t.status = 'QUEUED'
         ORDER BY t.queue_seq LIMIT 1)) * 1000)::int AS "oldestAgeMs"
FROM queue_lanes l ORDER BY l.pool_id, l.priority`,
};

export interface LaneDepth {
  readonly poolId: string;
  readonly priority: Priority;
  readonly capacity: number;
  readonly depth: number;
  readonly oldestAgeMs: number | null;
}

export async function laneDepths(db: Database): Promise<LaneDepth[]> {
  return db.query(LANES, []);
}

const AHEAD: Statement = {
  name: 'task_ahead',
  text: `
SELECT (SELECT count(*)::int FROM tasks o WHERE o.pool_id = t.pool_id AND o.status = 'QUEUED'
        AND (o.priority, o.queue_seq) < (t.priority, t.queue_seq)) AS ahead
FROM tasks t WHERE t.id = $1 AND t.status = 'QUEUED'`,
};

/** How many tasks are served before this one; null when it does not wait. */
export async function tasksAhead(db: Database, taskId: string): Promise<number | null> {
  return (await db.query<{ ahead: number }>(AHEAD, [taskId]))[0]?.ahead ?? null;
}
