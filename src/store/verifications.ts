/** Checks whether a task says the same again: which task was run again for which, and what came of it. */
import type { Findings } from '../core/comparison.js';
import type { Database, Statement } from './database.js';

const INSERT: Statement = {
  name: 'verification_insert',
  text: `
INSERT INTO task_verifications (id, task_id, rerun_id, verdict, findings, settled_at)
VALUES ($1, $2, $3, $4::verification_verdict, $5::json, CASE WHEN $4::text IS NOT NULL THEN now() END)`,
};

/** @param how the task that runs it again, or why none does. */
export async function insertVerification(
  db: Database,
  id: string,
  taskId: string,
  how: { readonly rerunId: string } | { readonly findings: Findings },
): Promise<void> {
  if ('rerunId' in how) await db.query(INSERT, [id, taskId, how.rerunId, null, null]);
  else await db.query(INSERT, [id, taskId, null, ...columnsOf(how.findings)]);
}

const ENDED: Statement = {
  name: 'verification_ended',
  text: `
SELECT v.id, v.task_id AS "taskId", v.rerun_id AS "rerunId"
FROM task_verifications v JOIN tasks r ON r.id = v.rerun_id
WHERE v.verdict IS NULL AND r.status NOT IN ('QUEUED', 'LEASED', 'STREAMING')
ORDER BY v.created_at LIMIT $1`,
};

export interface EndedVerification {
  readonly id: string;
  readonly taskId: string;
  readonly rerunId: string;
}

/** Those whose second run has ended and that have no verdict yet, the oldest first. */
export async function endedVerifications(db: Database, limit: number): Promise<EndedVerification[]> {
  return db.query(ENDED, [limit]);
}

const SETTLE: Statement = {
  name: 'verification_settle',
  text: `
UPDATE task_verifications SET verdict = $2::verification_verdict, findings = $3::json, settled_at = now()
WHERE id = $1 AND verdict IS NULL RETURNING id`,
};

/** @returns false when another node was first; a verdict is never changed. */
export async function settleVerification(db: Database, id: string, findings: Findings): Promise<boolean> {
  return (await db.query(SETTLE, [id, ...columnsOf(findings)])).length > 0;
}

function columnsOf({ verdict, ...rest }: Findings): [string, string] {
  return [verdict, JSON.stringify(rest)];
}

const TRANSCRIPT: Statement = {
  name: 'verification_transcript',
  text: 'SELECT a.content FROM tasks t JOIN artifacts a ON a.id = t.transcript_id WHERE t.id = $1',
};

/** The content of a task's transcript; null when it has none. */
export async function readTranscript(db: Database, taskId: string): Promise<unknown> {
  return (await db.query<{ content: unknown }>(TRANSCRIPT, [taskId]))[0]?.content ?? null;
}
