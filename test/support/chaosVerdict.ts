/**
 * What must hold after a chaos run beside the invariants, which are checked as after any other: failures and cancels are
 * explained by what struck the task, and texts are those of an undisturbed run. Every breach in words.
 */
import { MAX_ATTEMPTS } from '../../src/core/task.js';
import type { Struck } from './chaosBlows.js';
import type { Facts, TaskFacts } from './chaosFacts.js';
import type { Asked, Flow } from './chaosFlow.js';
import { tokensOf } from './rest.js';

/** Its message when the control plane itself is to blame. */
const OUR_FAULT = /inside the control plane/;

/** @param ours tasks that were cancelled with no blow. */
export function breachesOf(
  facts: Facts,
  flow: Flow,
  touches: ReadonlyMap<string, readonly Struck[]>,
  ours: ReadonlySet<string>,
): string[] {
  const breaches: string[] = [];
  for (const asked of flow.asked) {
    const { taskId } = asked.reader;
    const task = facts.tasks.get(taskId);
    const met = touches.get(taskId) ?? [];
    if (task === undefined) continue; // lost: I1
    for (const breach of ofText(asked, task, flow, met)) breaches.push(`${describe(task)}: ${breach}`);
  }
  for (const task of facts.tasks.values()) {
    if (ours.has(task.id)) continue;
    for (const breach of ofTask(task, touches.get(task.id) ?? [])) breaches.push(`${describe(task)}: ${breach}`);
  }
  return breaches;
}

function describe({ id, poolId, status, code, strict, attempts }: TaskFacts): string {
  return `task ${id} (${poolId}, ${strict ? 'strict' : 'best effort'}, ${status} ${code ?? ''}, ${attempts} attempts)`;
}

function* ofTask(task: TaskFacts, touches: readonly Struck[]): Generator<string> {
  if (task.status === 'FAILED') yield* unexplained(task, touches);
  if (task.status === 'CANCELED' && !touches.some(({ taskId }) => taskId === task.id)) yield 'nobody cancelled it';
  for (const { blow, note, untilMs } of touches) {
    const confirmed = blow.kind.act.on === 'operator' && blow.kind.act.does === 'cancel' && note === 'accepted';
    if (confirmed && (task.endedMs ?? Number.POSITIVE_INFINITY) > untilMs)
      yield 'it ended after its cancel was confirmed';
  }
  if (task.status === 'DROPPED' || task.status === 'EXPIRED') yield 'nothing explains that';
}

/**
 * A token twice, from an engine that was gone before its count gave that away: the run that repeats it finds it out, and with
 * what its readers have, the stream cannot be continued.
 */
function isLieFoundOut(message: string | null, touches: readonly Struck[]): boolean {
  const differs = /differs from the stream at token \d+;/.test(message ?? '');
  return differs && touches.some(({ blow }) => blow.kind.name === 'duplicate-at-token');
}

/** A failure is explained by a blow that may have met the task and may end it so. */
function* unexplained({ code, message, strict, attempts }: TaskFacts, touches: readonly Struck[]): Generator<string> {
  const met = touches.map(({ blow }) => blow.kind);
  if (OUR_FAULT.test(message ?? '')) yield `it failed inside the control plane`;
  else if (strict && code === 'WORKER_RESET' && attempts < MAX_ATTEMPTS && !isLieFoundOut(message, touches))
    yield `it was not run again: "${message}"`;
  else if (!met.some(({ codes }) => codes.some((possible) => possible === code)))
    yield `nothing that it met explains "${message}": ${met.map(({ name }) => name).join(', ') || 'nothing'}`;
}

/**
 * Tokens are shown before they are durable. Of a task that is not run again after a death of ours, or fails before it
 * is as far again, readers may have the last ones that the log has not.
 */
export function mayBeAhead(touches: readonly Struck[]): boolean {
  return touches.some(({ blow }) => blow.kind.reach === 'everything');
}

function* ofText(
  { question, reader }: Asked,
  task: TaskFacts,
  flow: Flow,
  touches: readonly Struck[],
): Generator<string> {
  const right = flow.textOf(question);
  const text = tokensOf(reader.frames).join('');
  if (task.status === 'SUCCEEDED' && text !== right)
    yield `its text is not that of an undisturbed run: ${quote(text, right)}`;
  const mayRepeat = touches.some(({ blow }) => blow.kind.name === 'duplicate-at-token');
  if (task.status !== 'SUCCEEDED' && !mayRepeat && !right.startsWith(text))
    yield `its text is not how an undisturbed run begins: ${quote(text, right)}`;
}

function quote(text: string, right: string): string {
  let same = 0;
  while (same < text.length && text[same] === right[same]) same += 1;
  const at = Math.max(0, same - 10);
  return `from ${at} "${text.slice(at, at + 40)}", not "${right.slice(at, at + 40)}" (${text.length} of ${right.length})`;
}
