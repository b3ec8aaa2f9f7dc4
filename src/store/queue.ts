/** Who gets into a pool's queue and who is taken out of it to be run. The rules are core/queue's; each is one statement. */
import type { TaskSubmission } from '../core/admission.js';
import { type BudgetLeft, type BudgetShort, TIME_SLICE_MS } from '../core/budget.js';
import type { Engine, TaskFailure } from '../core/errors.js';
import type { PlacementExplanation } from '../core/placement.js';
import { AGEING_TURN, OVERDUE_AFTER_MS, type StartBasis } from '../core/queue.js';
import type { SessionRules } from '../core/session.js';
import type { Priority } from '../core/task.js';
import { PAIRS } from './affinity.js';
import type { Database, Statement } from './database.js';
import { jsonbText } from './jsonb.js';
import { type ClaimedTask, COLUMNS, type RawTask, toTask } from './tasks.js';

/** A submission with what admission added; ready to be written. */
export interface NewTask extends Omit<TaskSubmission, 'placement' | 'seed'> {
  readonly seed: bigint;
  readonly correlationId: string;
  readonly requestHash: string;
  readonly explanation: PlacementExplanation;
  readonly startBasis: StartBasis;
  /** The most that its prompt may have. */
  readonly promptTokens: number;
}

export interface SubmitResult {
  readonly outcome: 'admitted' | 'known' | 'conflict' | 'full' | 'draining' | 'turns' | 'budget';
  /** Of the first receipt, like the basis; 0 when nothing was admitted. */
  readonly queuePosition: number;
  readonly startBasis: StartBasis;
  /** The waiting task that ended to make room for this one. It may be one of the same call. */
  readonly displaced: DisplacedTask | null;
  /** With `budget`: of what its session has not enough. */
  readonly short: BudgetShort | null;
  /** What is left of the budget of its session; null: that has none. */
  readonly budget: BudgetLeft | null;
}

export interface DisplacedTask {
  readonly taskId: string;
  readonly sessionId: string;
  readonly correlationId: string;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly priority: Priority;
  readonly seed: bigint;
}

const UNIQUE_VIOLATION = '23505';

// Admission of a batch by the function of the migrations, which locks the pool, decides in order, inserts and displaces.
const SUBMIT: Statement = {
  name: 'queue_submit',
  text: 'SELECT * FROM submit_tasks($1, $2::uuid[], $3::priority[], $4::text[], $5, $6, $7, $8::uuid[], $9::int[], $10::int[], $11) ORDER BY ord',
};

interface SubmitRow {
  readonly outcome: SubmitResult['outcome'];
  readonly queue_position: number | null;
  readonly start_basis: StartBasis | null;
  /** int8 as text, like everywhere. */
  readonly displaced: (Omit<DisplacedTask, 'seed'> & { readonly seed: string }) | null;
  readonly short: BudgetShort | null;
  readonly budget: BudgetLeft | null;
}

/**
 * @param options.displaced how a task ends that makes room for one of these.
 * @param options.priceMicros of 1000 tokens. @returns one result per task, in their order.
 */
export async function submitTasks(
  db: Database,
  poolId: string,
  tasks: readonly NewTask[],
  options: { readonly sessions: SessionRules; readonly priceMicros: number; readonly displaced: TaskFailure },
): Promise<SubmitResult[]> {
  const { sessions, priceMicros, displaced: displacedError } = options;
  const values = [
    poolId,
    tasks.map((task) => task.taskId),
    tasks.map((task) => task.priority),
    tasks.map((task) => task.requestHash),
    JSON.stringify(tasks.map(rowOf)),
    sessions.ttlMs,
    jsonbText(displacedError),
    tasks.map((task) => task.sessionId),
    tasks.map((task) => task.promptTokens),
    tasks.map((task) => task.maxTokens),
    JSON.stringify(rulesOf(sessions, priceMicros)),
  ];
  const submit = () => db.query<SubmitRow>(SUBMIT, values);
  // The pool's lock does not keep another pool from taking the same task_id at the same moment: looked at again, it is known.
  const results = await submit().catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === UNIQUE_VIOLATION) return submit();
    throw error;
  });
  return results.map(({ outcome, queue_position, start_basis, displaced, short, budget }, index) => ({
    ...{ outcome, short, budget },
    queuePosition: queue_position ?? 0,
    startBasis: start_basis ?? tasks[index]?.startBasis ?? { slotsTotal: 0, slotsFree: 0, serviceMs: 0 },
    displaced: displaced === null ? null : { ...displaced, seed: BigInt(displaced.seed) },
  }));
}

function rulesOf({ maxTurns, limits }: SessionRules, priceMicros: number) {
  const { tokens, timeMs: time_ms, costMicros: cost_micros } = limits;
  return { max_turns: maxTurns, tokens, time_ms, cost_micros, price_micros: priceMicros, time_slice_ms: TIME_SLICE_MS };
}

function rowOf(task: NewTask, ord: number) {
  return {
    ord,
    id: task.taskId,
    session_id: task.sessionId,
    workload: task.workload,
    priority: task.priority,
    engine: task.engine,
    model_ref: task.modelRef,
    ctx: task.ctx,
    prompt: task.prompt,
    inputs: task.inputs,
    max_tokens: task.maxTokens,
    seed: String(task.seed),
    determinism: task.determinism,
    kv_hint: task.kvHint,
    sampler_profile_version: task.samplerProfileVersion,
    correlation_id: task.correlationId,
    request_hash: task.requestHash,
    placement: task.explanation,
    start_basis: task.startBasis,
    deadline_ms: task.deadlineMs,
    follows_pool: task.followsPool,
    disconnect_grace_ms: task.disconnectGraceMs,
  };
}

const SLOTS = 'SELECT * FROM unnest($3::text[], $4::int[]) WITH ORDINALITY AS s(replica_id, slot, n)';
// A task that names no model is served by whatever its pool has; any other waits for the one it names.
const CLAIMABLE = `t.pool_id = $1 AND t.status = 'QUEUED' AND t.not_before <= now() AND t.deadline_at > now()
      AND (t.follows_pool OR (t.model_ref = $6 AND t.engine = $7::engine))
      AND EXISTS (SELECT 1 FROM pools p WHERE p.id = $1 AND NOT p.draining)`;
const AT_MOST = 'LIMIT cardinality($3::text[]) FOR NO KEY UPDATE OF t SKIP LOCKED';

/**
 * Leases the tasks of `next` on the slots, each of which gets one of the first; which one, affinity may say. Their rows are
 * locked, so nothing more is asked of them: a plan made while few tasks wait would answer `status = 'QUEUED'` by reading the
 * whole queue.
 */
const LEASE = `${PAIRS}, lease AS (
  INSERT INTO leases (task_id, replica_id, slot, holder, expires_at)
  SELECT pairs.id, pairs.replica_id, pairs.slot, $2::uuid, now() + $5 * interval '1 millisecond' FROM pairs
  ON CONFLICT DO NOTHING
  RETURNING id, task_id, replica_id, slot
)
UPDATE tasks t SET status = 'LEASED', lease_id = lease.id, replica_id = lease.replica_id, attempts = t.attempts + 1,
  model_ref = $6, engine = $7::engine
FROM lease WHERE t.id = lease.task_id
RETURNING ${COLUMNS}, lease.slot`;

// The dispatcher offers free slots, best first; each takes the next task in the order of service, and within that a
// session the slot it had (affinity). One past its deadline is left to expire. A slot that another
// node took meanwhile is refused by the unique index, and its task stays queued.
const CLAIM: Statement = {
  name: 'queue_claim',
  text: `
WITH slots AS (${SLOTS}), next AS (
  SELECT q.id, row_number() OVER (ORDER BY q.priority, q.queue_seq) AS n FROM (
    SELECT t.id, t.priority, t.queue_seq FROM tasks t WHERE ${CLAIMABLE} ORDER BY t.priority, t.queue_seq ${AT_MOST}
  ) q
), ${LEASE}`,
};

// The same where batch tasks are overdue: every $9-th task served while both kinds wait is an overdue one. With c passed
// over so far, the j-th overdue task is served as number j * $9 - c, and the i-th interactive one after the overdue ones
// that are due before it. The lanes are taken first, in the order of all writers, since the count is kept with them.
const CLAIM_AGEING: Statement = {
  name: 'queue_claim_ageing',
  text: `
WITH slots AS (${SLOTS}), lane AS (
  SELECT l.priority, least(l.passed_over, $9 - 1) AS passed_over
  FROM queue_lanes l WHERE l.pool_id = $1 ORDER BY l.priority FOR NO KEY UPDATE
), start AS (
  SELECT max(lane.passed_over) FILTER (WHERE lane.priority = 'batch') AS c FROM lane
), urgent AS (
  SELECT q.id, row_number() OVER (ORDER BY q.queue_seq) AS i FROM (
    SELECT t.id, t.queue_seq FROM tasks t
    WHERE (SELECT c FROM start) IS NOT NULL AND t.priority = 'interactive' AND ${CLAIMABLE} ORDER BY t.queue_seq ${AT_MOST}
  ) q
), other AS (
  SELECT q.id, row_number() OVER line AS i, bool_and(q.overdue) OVER line AS overdue FROM (
    SELECT t.id, t.queue_seq, t.created_at <= now() - $8 * interval '1 millisecond' AS overdue FROM tasks t
    WHERE (SELECT c FROM start) IS NOT NULL AND t.priority = 'batch' AND ${CLAIMABLE} ORDER BY t.queue_seq ${AT_MOST}
  ) q WINDOW line AS (ORDER BY q.queue_seq)
), next AS (
  SELECT o.id, o.urgent, o.overdue, row_number() OVER (ORDER BY o.rest, o.served) AS n FROM (
    SELECT urgent.id, true AS urgent, false AS overdue, false AS rest, i + (start.c + i - 1) / ($9 - 1) AS served
    FROM urgent, start
    UNION ALL
    SELECT other.id, false, overdue, NOT overdue, CASE WHEN overdue THEN i * $9 - start.c ELSE i END FROM other, start
  ) o
), contested AS (
  SELECT next.* FROM next WHERE next.n <= cardinality($3::text[])
    AND next.n <= (SELECT max(n) FROM next WHERE urgent) AND next.n <= (SELECT max(n) FROM next WHERE overdue)
), passed AS (
  UPDATE queue_lanes l SET passed_over = CASE WHEN turn.n IS NULL THEN start.c ELSE 0 END
    + (SELECT count(*)::int FROM contested WHERE urgent AND contested.n > coalesce(turn.n, 0))
  FROM start, (SELECT max(n) AS n FROM contested WHERE overdue) turn
  WHERE l.pool_id = $1 AND l.priority = 'batch'
), ${LEASE}`,
};

const CLAIMED_SINCE: Statement = {
  name: 'queue_claimed_since',
  text: `
SELECT ${COLUMNS}, l.slot, (extract(epoch FROM clock_timestamp() - l.acquired_at) * 1000)::float8 AS "ageMs" FROM leases l JOIN tasks t ON t.lease_id = l.id
WHERE l.holder = $1::uuid AND l.id > $2::bigint AND l.released_at IS NULL AND t.status = 'LEASED' ORDER BY l.id`,
};

/** What a holder was given after a lease, and how long ago: where the answer to a claim was lost, it is found here. */
export async function claimedSince(
  db: Database,
  holder: string,
  leaseId: string,
): Promise<(ClaimedTask & { readonly ageMs: number })[]> {
  return (await db.query<RawClaim & { readonly ageMs: number }>(CLAIMED_SINCE, [holder, leaseId])).map(toTask);
}

type RawClaim = RawTask & { readonly leaseId: string; readonly replicaId: string; readonly slot: number };

export async function claimTasks(
  db: Database,
  claim: {
    readonly poolId: string;
    readonly holder: string;
    readonly slots: readonly { replicaId: string; slot: number }[];
    readonly ttlMs: number;
    /** Of all replicas that offer these slots. */
    readonly serves: { readonly engine: Engine; readonly modelRef: string };
    /** There may be overdue batch tasks. Where there are none, false gives the same result for less. */
    readonly ageing: boolean;
  },
): Promise<ClaimedTask[]> {
  const rows = await db.relaxedQuery<RawClaim>(claim.ageing ? CLAIM_AGEING : CLAIM, [
    claim.poolId,
    claim.holder,
    claim.slots.map((slot) => slot.replicaId),
    claim.slots.map((slot) => slot.slot),
    claim.ttlMs,
    claim.serves.modelRef,
    claim.serves.engine,
    ...(claim.ageing ? [OVERDUE_AFTER_MS, AGEING_TURN] : []),
  ]);
  return rows.map(toTask);
}
