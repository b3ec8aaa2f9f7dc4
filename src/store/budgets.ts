/**
 * Budgets of sessions: set here, reserved by submit_tasks() and extend_budget_time(), settled by the
 * trigger settle_budget(). The rule is core/budget's.
 */
import type { BudgetKind, BudgetLeft, BudgetLimits } from '../core/budget.js';
import type { Database, Statement } from './database.js';

const ORDER = ['tokens', 'timeMs', 'costMicros'] as const satisfies readonly BudgetKind[];
const NAMES = ['tokens', 'time_ms', 'cost_micros'] as const;

const COLUMNS = NAMES.map((name) => `limit_${name}`).join(', ');
/** Of a session that is there: what is given, else what it has. Of one that begins: what is given, else the default. */
const GIVEN = NAMES.map(
  (_, index) => `CASE WHEN $${3 + index}::boolean THEN $${6 + index}::bigint ELSE $${9 + index}::bigint END`,
).join(', ');
const KEPT = NAMES.map(
  (
    name,
    index,
  ) => `limit_${name} = CASE WHEN $${3 + index}::boolean OR s.expires_at <= now() THEN excluded.limit_${name}
    ELSE s.limit_${name} END`,
).join(', ');
const ANEW = NAMES.flatMap((name) => [`spent_${name}`, `reserved_${name}`])
  .map((name) => `${name} = CASE WHEN s.expires_at > now() THEN s.${name} ELSE 0 END`)
  .join(', ');
const FITS = NAMES.map(
  (
    name,
    index,
  ) => `(NOT $${3 + index}::boolean OR s.spent_${name} + s.reserved_${name} <= coalesce($${6 + index}::bigint,
    9223372036854775807))`,
).join(' AND ');

// Like an admission, this begins a session that is not there, or has expired; unlike one, it prolongs none.
const SET: Statement = {
  name: 'budget_set',
  text: `
INSERT INTO sessions AS s (id, expires_at, ${COLUMNS})
SELECT $1::uuid, now() + $2 * interval '1 millisecond', ${GIVEN}
ON CONFLICT (id) DO UPDATE SET ${KEPT}, ${ANEW},
  life = CASE WHEN s.expires_at > now() THEN s.life ELSE nextval('sessions_life_seq') END,
  turns = CASE WHEN s.expires_at > now() THEN s.turns ELSE 0 END,
  created_at = CASE WHEN s.expires_at > now() THEN s.created_at ELSE now() END,
  kv_until = CASE WHEN s.expires_at > now() THEN s.kv_until END,
  expires_at = CASE WHEN s.expires_at > now() THEN s.expires_at ELSE excluded.expires_at END
WHERE s.expires_at <= now() OR (${FITS})
RETURNING s.id`,
};

/**
 * @param limits of a kind that is left out the session keeps what it has.
 * @returns false when more than that is spent and reserved already; nothing was written then.
 */
export async function setLimits(
  db: Database,
  sessionId: string,
  limits: Partial<BudgetLimits>,
  begin: { readonly ttlMs: number; readonly limits: BudgetLimits },
): Promise<boolean> {
  const rows = await db.query(SET, [
    sessionId,
    begin.ttlMs,
    ...ORDER.map((kind) => limits[kind] !== undefined),
    ...ORDER.map((kind) => limits[kind] ?? null),
    ...ORDER.map((kind) => begin.limits[kind]),
  ]);
  return rows.length > 0;
}

const EXTEND: Statement = {
  name: 'budget_extend',
  text: 'SELECT extend_budget_time($1, $2, $3)::float8 AS more',
};

/** @returns how much more the task may use, ms: 0 when nothing is left. A session that has gone limits nothing. */
export async function extendTime(
  db: Database,
  task: { readonly id: string; readonly leaseId: string },
  sliceMs: number,
): Promise<number> {
  const rows = await db.query<{ more: number }>(EXTEND, [task.id, task.leaseId, sliceMs]);
  return rows[0]?.more ?? 0;
}

const LEFT: Statement = {
  name: 'budget_left',
  text: `
SELECT budget_left(s) AS "left" FROM tasks t JOIN sessions s ON s.id = t.session_id AND s.life = t.budget_life
WHERE t.id = $1`,
};

/** Of the session of a task; null: the task was admitted without a budget, or its session has gone. */
export async function leftForTask(db: Database, taskId: string): Promise<BudgetLeft | null> {
  return (await db.query<{ left: BudgetLeft }>(LEFT, [taskId]))[0]?.left ?? null;
}
