/** What must hold in the database once a control plane is quiet, whatever befell it; every breach in words. */
import { chainOf } from '../../src/services/streams/log.js';
import { receiptIn } from '../../src/services/transcript.js';
import type { TestDatabase } from './database.js';

interface Task {
  readonly id: string;
  readonly status: string;
  readonly strict: boolean;
  readonly chunks: number;
  readonly attempts: number;
  readonly leases: number;
  readonly transcript: unknown;
  /** The transcript's id is the hash of its content. */
  readonly isGenuine: boolean | null;
}

interface Chunk {
  readonly taskId: string;
  readonly ord: number;
  readonly kind: string;
  readonly first: number;
  readonly last: number;
  readonly payload: unknown;
}

const TASKS = `
SELECT t.id, t.status::text, t.determinism = 'strict' AS strict, t.chunks, t.attempts, a.content AS transcript,
  a.id = 'sha256:' || encode(sha256(convert_to(a.content::text, 'UTF8')), 'hex') AS "isGenuine",
  (SELECT count(*)::int FROM leases l WHERE l.task_id = t.id) AS leases
FROM tasks t LEFT JOIN artifacts a ON a.id = t.transcript_id ORDER BY t.queue_seq`;
const LOGS = `
SELECT task_id AS "taskId", ord, kind, first_seq AS first, last_seq AS last, payload FROM stream_chunks
ORDER BY task_id, ord`;
const HELD = `SELECT id::text, replica_id || '/' || slot AS slot FROM leases WHERE released_at IS NULL`;
const TWICE_HELD = `
SELECT a.id::text AS one, b.id::text AS other, a.replica_id || '/' || a.slot AS slot FROM leases a JOIN leases b
  ON a.replica_id = b.replica_id AND a.slot = b.slot AND a.id < b.id
  AND a.acquired_at < coalesce(b.released_at, 'infinity') AND b.acquired_at < coalesce(a.released_at, 'infinity')`;
const COUNTED = 'SELECT coalesce(sum(depth), 0)::int AS depth FROM queue_lanes';

/** @param acknowledged by id, the text that an undisturbed run gives; null where any is right. */
export async function breachesOf(
  database: Pick<TestDatabase, 'query'>,
  acknowledged: ReadonlyMap<string, string | null>,
): Promise<string[]> {
  const breaches: string[] = [];
  const tasks = await database.query<Task>(TASKS);
  const known = new Set(tasks.map(({ id }) => id));
  const logs = new Map<string, Chunk[]>(tasks.map(({ id }) => [id, []]));
  for (const chunk of await database.query<Chunk>(LOGS)) logs.get(chunk.taskId)?.push(chunk);
  for (const id of acknowledged.keys()) if (!known.has(id)) breaches.push(`task ${id} was acknowledged and is lost`);
  for (const task of tasks) {
    const log = logs.get(task.id) ?? [];
    const right = acknowledged.get(task.id) ?? null;
    const found = [...ofEnding(task, log), ...ofLog(log), ...ofReceipt(task, log), ...ofText(task, log, right)];
    breaches.push(...found.map((breach) => `task ${task.id} (${task.status}, ${task.attempts} attempts): ${breach}`));
  }
  for (const { id, slot } of await database.query<{ id: string; slot: string }>(HELD))
    breaches.push(`lease ${id} of ${slot} is still held`);
  for (const { one, other, slot } of await database.query<{ one: string; other: string; slot: string }>(TWICE_HELD))
    breaches.push(`leases ${one} and ${other} held ${slot} at the same time`);
  const [lanes] = await database.query<{ depth: number }>(COUNTED);
  if (lanes?.depth !== 0) breaches.push(`the lanes count ${lanes?.depth} waiting tasks`);
  return breaches;
}

function* ofEnding(task: Task, log: readonly Chunk[]): Generator<string> {
  if (!['SUCCEEDED', 'FAILED', 'CANCELED', 'DROPPED', 'EXPIRED'].includes(task.status)) yield 'it has not ended';
  const ends = log.filter(({ kind }) => kind === 'end' || kind === 'error');
  if (ends.length !== 1 || log.at(-1) !== ends[0]) yield `its log has ${ends.length} ends, or goes on after one`;
  if (task.chunks !== log.length) yield `it counts ${task.chunks} chunks and has ${log.length}`;
  if (task.leases !== task.attempts) yield `it had ${task.leases} leases`;
}

/** Places follow each other, and so do the tokens; the end stands behind the last. */
function* ofLog(log: readonly Chunk[]): Generator<string> {
  if (log.some(({ ord }, place) => ord !== place)) yield `its chunks are numbered ${log.map(({ ord }) => ord)}`;
  if (log.filter(({ kind }) => kind === 'started').length > 1) yield 'it started twice';
  let seq = 0;
  for (const { kind, first, last, payload } of log) {
    if (kind === 'tokens') {
      if (first !== seq + 1 || textsOf(payload).length !== last - first + 1)
        yield `tokens ${first} to ${last} follow ${seq}`;
      seq = last;
    } else if (kind === 'end' || kind === 'error') {
      if (last !== seq + 1) yield `its end is number ${last} after ${seq} tokens`;
    } else if (last !== seq) yield `${kind} stands at ${last}, after ${seq} tokens`;
  }
}

function* ofReceipt(task: Task, log: readonly Chunk[]): Generator<string> {
  if (task.transcript === null) yield 'it has no transcript';
  else if (task.isGenuine !== true) yield 'its transcript is not what its id says';
  const receipt = receiptIn(task.transcript);
  if (receipt === null && task.status === 'SUCCEEDED') yield 'it has no receipt';
  if (receipt !== null && receipt.chainHash !== chainOf(tokensIn(log))) yield 'its receipt is of other tokens';
}

function* ofText(task: Task, log: readonly Chunk[], right: string | null): Generator<string> {
  if (right === null) return;
  const text = tokensIn(log).join('');
  if (task.status !== 'SUCCEEDED') yield 'it did not succeed';
  else if (task.strict && text !== right) yield `its text is "${text}", undisturbed "${right}"`;
}

function tokensIn(log: readonly Chunk[]): string[] {
  return log.filter(({ kind }) => kind === 'tokens').flatMap(({ payload }) => textsOf(payload));
}

function textsOf(payload: unknown): readonly string[] {
  return Array.isArray(payload) ? payload : [];
}
