/** Waiting tasks whose pool was given another model than the one they name. */
import type { PlacementExplanation } from '../core/placement.js';
import type { Database, Statement } from './database.js';
import { jsonbText } from './jsonb.js';
import { COLUMNS, type RawTask, type TaskRow, toTask } from './tasks.js';

export const AT_ONCE = 100;

// Two ranges of an index that is empty but for tasks that name a model, so a long queue of the right one costs nothing. The
// engine of a pool changes only while its node is away, and is compared when that comes back.
const WAITING = `SELECT * FROM tasks o WHERE o.pool_id = p.id AND o.status = 'QUEUED' AND NOT o.follows_pool`;
const STRANDED: Statement = {
  name: 'stranded_list',
  text: `
SELECT ${COLUMNS}, t.placement AS told, p.model_ref AS serves,
       greatest(0, extract(epoch FROM t.deadline_at - now()) * 1000)::float8 AS "remainingMs"
FROM pools p CROSS JOIN LATERAL (
  (${WAITING} AND o.model_ref < p.model_ref LIMIT ${AT_ONCE})
  UNION ALL
  (${WAITING} AND o.model_ref > p.model_ref LIMIT ${AT_ONCE})
  UNION ALL
  (${WAITING} AND $2 AND o.model_ref = p.model_ref AND o.engine <> p.engine LIMIT ${AT_ONCE})
) t
WHERE p.id = ANY($1::text[]) LIMIT ${AT_ONCE}`,
};

export interface StrandedRow extends TaskRow {
  readonly told: PlacementExplanation;
  /** What its pool was given. */
  readonly serves: string;
  readonly remainingMs: number;
}

/** Of these pools, the first that are found. @param enginesToo where a pool may have changed its engine, too. */
export async function strandedTasks(
  db: Database,
  poolIds: readonly string[],
  enginesToo: boolean,
): Promise<StrandedRow[]> {
  type Raw = RawTask & Pick<StrandedRow, 'told' | 'serves' | 'remainingMs'>;
  return (await db.relaxedQuery<Raw>(STRANDED, [poolIds, enginesToo])).map(toTask);
}

// Into the queue of another pool, by its arrival, if that has room. Lanes before tasks, in the order of all writers; a task
// that somebody has is left alone: it is being claimed, or ends.
const MOVE: Statement = {
  name: 'stranded_move',
  text: `
WITH lanes AS (
  SELECT l.pool_id, l.priority, l.depth, l.capacity FROM queue_lanes l
  WHERE l.pool_id IN ($2, $3) ORDER BY l.pool_id, l.priority FOR NO KEY UPDATE
), room AS (
  SELECT p.model_ref, p.engine FROM pools p
  WHERE p.id = $3 AND NOT p.draining AND p.queue_capacity > (SELECT sum(depth) FROM lanes WHERE pool_id = $3)
), mine AS (
  SELECT t.id FROM tasks t JOIN room ON room.model_ref = t.model_ref AND room.engine = t.engine
  JOIN lanes ON lanes.pool_id = $3 AND lanes.priority = t.priority AND lanes.depth < lanes.capacity
  WHERE t.id = $1 AND t.pool_id = $2 AND t.status = 'QUEUED' FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE tasks t SET pool_id = $3, placement = $4::jsonb FROM mine WHERE t.id = mine.id RETURNING t.id`,
};

/** @returns false when the other pool has no room for it, or it does not wait any more. */
export async function moveTask(
  db: Database,
  task: Pick<TaskRow, 'id' | 'poolId'>,
  poolId: string,
  explanation: PlacementExplanation,
): Promise<boolean> {
  return (await db.query(MOVE, [task.id, task.poolId, poolId, jsonbText(explanation)])).length > 0;
}
