/** What the database says of tasks, logs, leases and lanes, and a witness that remembers how it came to be. */
import type pg from 'pg';

/** Any way to ask the database. */
export interface Asked {
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
}

export interface TaskFacts {
  readonly id: string;
  readonly status: string;
  readonly strict: boolean;
  readonly chunks: number;
  readonly tokensOut: number;
  readonly attempts: number;
  readonly leaseId: string | null;
  readonly code: string | null;
  readonly transcript: unknown;
  /** The transcript's id is the hash of its content. */
  readonly isGenuine: boolean | null;
  readonly correlationId: string;
  readonly createdMs: number;
  readonly endedMs: number | null;
  /** From its admission to its first slot, or to its end without one; null while it waits. */
  readonly waitedMs: number | null;
}

export interface Chunk {
  readonly taskId: string;
  readonly ord: number;
  readonly kind: string;
  readonly first: number;
  readonly last: number;
  readonly payload: unknown;
}

export interface LeaseFacts {
  readonly id: string;
  readonly taskId: string;
  readonly place: string;
  readonly slot: number;
  readonly slots: number;
  readonly fromMs: number;
  /** null: still held. */
  readonly untilMs: number | null;
  readonly reason: string | null;
}

/** One change of a task's row, in the order in which they were made. */
export interface Change {
  readonly taskId: string;
  readonly was: string;
  readonly now: string;
  readonly leaseWas: string | null;
  readonly leaseNow: string | null;
  readonly chunksWas: number;
  readonly chunksNow: number;
}

export interface Facts {
  readonly tasks: ReadonlyMap<string, TaskFacts>;
  readonly logs: ReadonlyMap<string, readonly Chunk[]>;
  readonly leases: readonly LeaseFacts[];
  readonly lanes: { readonly counted: number; readonly waiting: number };
  readonly marks: ReadonlySet<string>;
  /** What its engines have booked of each GPU, and what it has, bytes. */
  readonly gpus: readonly { readonly uuid: string; readonly total: number; readonly booked: number }[];
  /** null where no witness was called before the first task. */
  readonly changes: readonly Change[] | null;
}

const TASKS = `
SELECT t.id, t.status::text, t.determinism = 'strict' AS strict, t.chunks, t.tokens_out AS "tokensOut", t.attempts,
  t.lease_id::text AS "leaseId", t.correlation_id AS "correlationId",
  (extract(epoch FROM t.created_at) * 1000)::float8 AS "createdMs",
  (extract(epoch FROM t.ended_at) * 1000)::float8 AS "endedMs", t.error ->> 'code' AS code, a.content AS transcript,
  a.id = 'sha256:' || encode(sha256(convert_to(a.content::text, 'UTF8')), 'hex') AS "isGenuine",
  (extract(epoch FROM coalesce((SELECT min(l.acquired_at) FROM leases l WHERE l.task_id = t.id), t.ended_at)
    - t.created_at) * 1000)::float8 AS "waitedMs"
FROM tasks t LEFT JOIN artifacts a ON a.id = t.transcript_id ORDER BY t.queue_seq`;
const LOGS = `
SELECT task_id AS "taskId", ord, kind, first_seq AS first, last_seq AS last, payload FROM stream_chunks
ORDER BY task_id, ord`;
const LEASES = `
SELECT l.id::text, l.task_id AS "taskId", l.replica_id || '/' || l.slot AS place, l.slot, r.slots_total AS slots,
  (extract(epoch FROM l.acquired_at) * 1000)::float8 AS "fromMs",
  (extract(epoch FROM l.released_at) * 1000)::float8 AS "untilMs", l.release_reason AS reason
FROM leases l JOIN replicas r ON r.id = l.replica_id ORDER BY l.id`;
const LANES = `
SELECT coalesce(sum(depth), 0)::int AS counted, (SELECT count(*)::int FROM tasks WHERE status = 'QUEUED') AS waiting
FROM queue_lanes`;
const GPUS = `
SELECT g.uuid, g.memory_total_bytes::float8 AS total, coalesce(sum(r.vram_bytes), 0)::float8 AS booked
FROM gpus g LEFT JOIN replicas r ON g.uuid = ANY(r.gpu_uuids) AND r.pid IS NOT NULL GROUP BY g.uuid ORDER BY g.uuid`;
const CHANGES = `
SELECT task_id AS "taskId", was, now, lease_was::text AS "leaseWas", lease_now::text AS "leaseNow",
  chunks_was AS "chunksWas", chunks_now AS "chunksNow" FROM witness ORDER BY n`;

export async function readFacts(database: Asked): Promise<Facts> {
  const tasks = await database.query<TaskFacts & pg.QueryResultRow>(TASKS);
  const logs = new Map<string, Chunk[]>(tasks.map(({ id }) => [id, []]));
  for (const chunk of await database.query<Chunk & pg.QueryResultRow>(LOGS)) logs.get(chunk.taskId)?.push(chunk);
  const [lanes] = await database.query<Facts['lanes'] & pg.QueryResultRow>(LANES);
  const replicas = await database.query<{ mark: string }>('SELECT mark FROM replicas WHERE mark IS NOT NULL');
  const [{ present } = { present: false }] = await database.query<{ present: boolean }>(
    "SELECT to_regclass('witness') IS NOT NULL AS present",
  );
  return {
    tasks: new Map(tasks.map((task) => [task.id, task])),
    logs,
    leases: await database.query<LeaseFacts & pg.QueryResultRow>(LEASES),
    lanes: lanes ?? { counted: -1, waiting: -1 },
    marks: new Set(replicas.map(({ mark }) => mark)),
    gpus: await database.query<Facts['gpus'][number] & pg.QueryResultRow>(GPUS),
    changes: present ? await database.query<Change & pg.QueryResultRow>(CHANGES) : null,
  };
}

/** From now on every change of a task is kept with its order: what was undone again would not be seen otherwise. */
export async function callWitness(database: Asked): Promise<void> {
  await database.query(`
    CREATE TABLE witness (n bigserial PRIMARY KEY, task_id uuid, was text, now text, lease_was bigint, lease_now bigint,
      chunks_was int, chunks_now int);
    CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO witness (task_id, was, now, lease_was, lease_now, chunks_was, chunks_now)
      VALUES (NEW.id, OLD.status, NEW.status, OLD.lease_id, NEW.lease_id, OLD.chunks, NEW.chunks);
      RETURN NULL; END $$;
    CREATE TRIGGER witness AFTER UPDATE ON tasks FOR EACH ROW WHEN (
      (OLD.status, OLD.chunks, coalesce(OLD.lease_id, 0)) IS DISTINCT FROM
      (NEW.status, NEW.chunks, coalesce(NEW.lease_id, 0))) EXECUTE FUNCTION witness();`);
}

export function textsOf(payload: unknown): readonly string[] {
  return Array.isArray(payload) ? payload : [];
}

export function tokensIn(log: readonly Chunk[]): string[] {
  return log.filter(({ kind }) => kind === 'tokens').flatMap(({ payload }) => textsOf(payload));
}

export function isEnd({ kind }: Pick<Chunk, 'kind'>): boolean {
  return kind === 'end' || kind === 'error';
}

const ENDED = new Set(['SUCCEEDED', 'FAILED', 'CANCELED', 'DROPPED', 'EXPIRED']);

export function hasEnded(status: string): boolean {
  return ENDED.has(status);
}
