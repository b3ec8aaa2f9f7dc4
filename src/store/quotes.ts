/** What was quoted, what came of it, and how long tasks hold their slots. */
import { GRADE_TOLERANCE_MS, type StartQuote } from '../core/prediction.js';
import type { Priority } from '../core/task.js';
import type { Database, Statement } from './database.js';

export interface Quoted {
  readonly taskId: string;
  readonly quote: StartQuote;
}

export interface Grade {
  readonly taskId: string;
  /** From admission to the first lease, by the database's clock, ms. */
  readonly actualMs: number;
}

// The wait is what the rows of the task and of its first lease say; graded once, however often it is tried.
const GRADE: Statement = {
  name: 'quote_grade',
  text: `
INSERT INTO quote_grades (task_id, pool_id, priority, basis, sample_count, p50_ms, p90_ms, actual_ms)
SELECT t.id, t.pool_id, t.priority, q.basis, q.sample_count, q.p50_ms, q.p90_ms,
       greatest(0, round(extract(epoch FROM held.since - t.created_at) * 1000))::int
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::int[]) AS q(task_id, basis, sample_count, p50_ms, p90_ms)
JOIN tasks t ON t.id = q.task_id
CROSS JOIN LATERAL (SELECT min(l.acquired_at) AS since FROM leases l WHERE l.task_id = t.id) held
WHERE held.since IS NOT NULL
ON CONFLICT (task_id) DO NOTHING
RETURNING task_id AS "taskId", actual_ms AS "actualMs"`,
};

/** @returns the grades that were new. */
export async function gradeQuotes(db: Database, quoted: readonly Quoted[]): Promise<Grade[]> {
  return db.relaxedQuery<Grade>(GRADE, [
    quoted.map(({ taskId }) => taskId),
    quoted.map(({ quote }) => quote.basis),
    quoted.map(({ quote }) => quote.sampleCount),
    quoted.map(({ quote }) => quote.p50Ms),
    quoted.map(({ quote }) => quote.p90Ms),
  ]);
}

/** How the last quotes of a lane did; counts and sums, so that lanes can be added up. */
export interface LaneCalibration {
  readonly poolId: string;
  readonly priority: Priority;
  readonly samples: number;
  readonly withinP50: number;
  readonly withinP90: number;
  readonly absoluteErrorMs: number;
}

const CALIBRATED_QUOTES = 500;

// Only quotes that predicted a wait: the many that found a free slot would hide how good the others are.
const CALIBRATION: Statement = {
  name: 'quote_calibration',
  text: `
SELECT l.pool_id AS "poolId", l.priority, c.* FROM queue_lanes l CROSS JOIN LATERAL (
  SELECT count(*)::int AS samples,
         count(*) FILTER (WHERE g.actual_ms <= g.p50_ms + $1::int)::int AS "withinP50",
         count(*) FILTER (WHERE g.actual_ms <= g.p90_ms + $1::int)::int AS "withinP90",
         coalesce(sum(abs(g.actual_ms - g.p50_ms)), 0)::float8 AS "absoluteErrorMs"
  FROM (
    SELECT q.actual_ms, q.p50_ms, q.p90_ms FROM quote_grades q
    WHERE q.pool_id = l.pool_id AND q.priority = l.priority AND q.basis = 'service_times'
    ORDER BY q.at DESC LIMIT $2
  ) g
) c
ORDER BY l.pool_id, l.priority`,
};

/** Of every lane, over its last 500 quotes that predicted a wait. */
export async function quoteCalibration(db: Database): Promise<LaneCalibration[]> {
  return db.query(CALIBRATION, [GRADE_TOLERANCE_MS, CALIBRATED_QUOTES]);
}

export interface ServiceSample {
  readonly poolId: string;
  readonly priority: Priority;
  readonly heldMs: number;
  readonly endedAt: Date;
}

// By the primary key, so the history behind it costs nothing.
const SERVICES: Statement = {
  name: 'quote_services',
  text: `
SELECT t.pool_id AS "poolId", t.priority, extract(epoch FROM l.released_at - l.acquired_at)::float8 * 1000 AS "heldMs",
       l.released_at AS "endedAt"
FROM (SELECT * FROM leases ORDER BY id DESC LIMIT 1000) l JOIN tasks t ON t.id = l.task_id
WHERE l.release_reason IN ('completed', 'failed', 'canceled') AND l.holder <> $1::uuid AND l.released_at > $2::timestamptz
ORDER BY l.released_at`,
};

/** How long the last tasks of other holders that ended after then held their slots, the oldest first. */
export async function recentServices(db: Database, ownHolder: string, after: Date): Promise<ServiceSample[]> {
  return db.query(SERVICES, [ownHolder, after]);
}
