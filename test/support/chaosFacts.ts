/** What the database says of a chaos run once it is quiet. */
import type pg from 'pg';
import type { Struck } from './chaosBlows.js';
import type { HomeDatabase } from './chaosDatabase.js';

export interface TaskFacts {
  readonly id: string;
  readonly poolId: string;
  readonly status: string;
  readonly code: string | null;
  readonly message: string | null;
  readonly strict: boolean;
  readonly attempts: number;
  readonly endedMs: number | null;
  readonly seams: number;
  /** Of its log. */
  readonly text: string;
}

export interface LeaseFacts {
  readonly id: string;
  readonly taskId: string;
  readonly poolId: string;
  readonly replicaId: string;
  readonly slot: number;
  readonly fromMs: number;
  /** null: still held. */
  readonly untilMs: number | null;
  readonly reason: string | null;
}

export interface ReplicaFacts {
  readonly id: string;
  readonly poolId: string;
  readonly state: string;
  readonly mark: string | null;
  readonly lastError: { readonly code?: string; readonly message?: string } | null;
}

export interface Facts {
  readonly tasks: ReadonlyMap<string, TaskFacts>;
  readonly leases: readonly LeaseFacts[];
  readonly replicas: readonly ReplicaFacts[];
  /** Per pool: changes of state of its replicas, by the state they led to. */
  readonly changes: readonly { readonly poolId: string; readonly state: string; readonly count: number }[];
  readonly crashes: readonly { readonly poolId: string; readonly fault: string; readonly count: number }[];
}

const TASKS = `
SELECT t.id, t.pool_id AS "poolId", t.status::text AS status, t.error->>'code' AS code, t.error->>'message' AS message,
  t.determinism = 'strict' AS strict, t.attempts,
  (extract(epoch FROM t.ended_at) * 1000)::float8 AS "endedMs",
  (SELECT count(*)::int FROM stream_chunks c WHERE c.task_id = t.id AND c.kind = 'seam') AS seams,
  coalesce(log.text, '') AS text
FROM tasks t LEFT JOIN LATERAL (
  SELECT string_agg(x.token, '' ORDER BY c.ord, x.n) AS text
  FROM stream_chunks c, json_array_elements_text(c.payload) WITH ORDINALITY AS x(token, n)
  WHERE c.task_id = t.id AND c.kind = 'tokens'
) log ON true`;

const LEASES = `
SELECT l.id, l.task_id AS "taskId", r.pool_id AS "poolId", l.replica_id AS "replicaId", l.slot, l.release_reason AS reason,
  (extract(epoch FROM l.acquired_at) * 1000)::float8 AS "fromMs",
  (extract(epoch FROM l.released_at) * 1000)::float8 AS "untilMs"
FROM leases l JOIN replicas r ON r.id = l.replica_id ORDER BY l.id`;

const REPLICAS = `
SELECT id, pool_id AS "poolId", state::text AS state, mark, last_error AS "lastError" FROM replicas ORDER BY id`;

const CHANGES = `
SELECT pool_id AS "poolId", detail->>'to' AS state, count(*)::int AS count FROM pool_events
WHERE kind = 'replica_state' GROUP BY 1, 2`;

const CRASHES = 'SELECT pool_id AS "poolId", fault, count(*)::int AS count FROM crash_records GROUP BY 1, 2';

export async function replicasOf(database: HomeDatabase): Promise<ReplicaFacts[]> {
  return rows<ReplicaFacts>(database, REPLICAS);
}

export async function readFacts(database: HomeDatabase): Promise<Facts> {
  const tasks = await rows<TaskFacts>(database, TASKS);
  return {
    tasks: new Map(tasks.map((task) => [task.id, task])),
    leases: await rows<LeaseFacts>(database, LEASES),
    replicas: await replicasOf(database),
    changes: await rows<Facts['changes'][number]>(database, CHANGES),
    crashes: await rows<Facts['crashes'][number]>(database, CRASHES),
  };
}

function rows<Row>(database: HomeDatabase, text: string): Promise<(Row & pg.QueryResultRow)[]> {
  return database.query<Row & pg.QueryResultRow>(text);
}

/** What a task can have met, for every task: by the leases it had, or because it was meant. */
export function touchesOf(facts: Facts, struck: readonly Struck[]): Map<string, Struck[]> {
  const touches = new Map<string, Struck[]>();
  for (const id of facts.tasks.keys()) {
    const meant = struck.filter(({ taskId }) => taskId === id);
    touches.set(id, meant);
  }
  for (const { taskId, ...lease } of facts.leases) {
    const met = struck.filter((blow) => meets(blow, lease));
    const known = touches.get(taskId) ?? [];
    touches.set(taskId, [...known, ...met.filter((blow) => !known.includes(blow))]);
  }
  return touches;
}

function meets({ blow, fromMs, untilMs, poolId, replicaId }: Struck, lease: Omit<LeaseFacts, 'taskId'>): boolean {
  const { reach, lingersMs } = blow.kind;
  if (reach === 'replica' && replicaId !== lease.replicaId) return false;
  if (reach === 'pool' && poolId !== lease.poolId) return false;
  return lease.fromMs <= untilMs + lingersMs && (lease.untilMs ?? Number.POSITIVE_INFINITY) >= fromMs;
}
