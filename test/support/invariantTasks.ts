/** Checks on tasks, their logs, their leases and their readers: I1 to I7. */

import { chainOf } from '../../src/services/streams/log.js';
import { receiptIn } from '../../src/services/transcript.js';
import {
  type Chunk,
  type Facts,
  hasEnded,
  isEnd,
  type LeaseFacts,
  type TaskFacts,
  textsOf,
  tokensIn,
} from './invariantFacts.js';
import type { Check, Evidence, Found } from './invariants.js';
import { indicesOf, readStream, tokensOf } from './rest.js';

/**
 * A time is that of its statement's begin: a claim that begins a moment before the lease in its way is given back waits for
 * that in the unique index, and is in by then as the one holder. So a second is allowed.
 */
const SAME_TIME_MS = 1_000;
/** Streams that are read again, of each door. */
const READ_AGAIN = 12;

export const TASK_CHECKS: readonly Check[] = [
  { invariant: 'I1', name: 'what was acknowledged is there', needs: 'acknowledged', look: acknowledgedAreThere },
  { invariant: 'I2', name: 'one terminal state, and the log says the same', look: each(ofEnding) },
  { invariant: 'I2', name: 'a terminal state is never left', needs: 'witness', look: overChanges(ofLeaving) },
  { invariant: 'I3', name: 'one holder at a time, of a slot and of a task', look: oneHolder },
  {
    invariant: 'I3',
    name: 'a generation never falls, and none writes after its end',
    needs: 'witness',
    look: overChanges(ofGeneration),
  },
  { invariant: 'I4', name: 'logs have no gap and end once', look: each(ofLog) },
  { invariant: 'I4', name: 'receipts are of the stored tokens', look: each(ofReceipt) },
  { invariant: 'I4', name: 'readers saw the stored stream', needs: 'readers', look: ofReaders(ofReaderText) },
  { invariant: 'I5', name: 'readers saw one end, as the task ended', needs: 'readers', look: ofReaders(ofReaderEnd) },
  { invariant: 'I5', name: 'who comes back in the middle sees the rest and the end', needs: 'doors', look: rereads },
  { invariant: 'I6', name: 'equal submissions are one task and one run', needs: 'repeated', look: repeatedOnce },
  { invariant: 'I7', name: 'cancel and end: one winner', look: each(ofCancel) },
  { invariant: 'I7', name: 'nothing is stored after a confirmed cancel', needs: 'cancels', look: afterCancel },
  { invariant: 'I11', name: 'the text of an undisturbed run', needs: 'texts', look: undisturbed },
];

function each(of: (task: TaskFacts, log: readonly Chunk[]) => Iterable<string>): Check['look'] {
  return (facts) => {
    const breaches: string[] = [];
    for (const task of facts.tasks.values())
      for (const breach of of(task, facts.logs.get(task.id) ?? [])) breaches.push(`${nameOf(task)}: ${breach}`);
    return { checked: facts.tasks.size, breaches };
  };
}

function nameOf({ id, status, code, attempts }: TaskFacts): string {
  return `task ${id} (${status}${code === null ? '' : ` ${code}`}, ${attempts} attempts)`;
}

function overChanges(of: (facts: Facts, changes: NonNullable<Facts['changes']>) => Iterable<string>): Check['look'] {
  return (facts) =>
    facts.changes === null
      ? { checked: null, breaches: [] }
      : { checked: facts.changes.length, breaches: [...of(facts, facts.changes)] };
}

function acknowledgedAreThere({ tasks }: Facts, { acknowledged }: Evidence): Found {
  if (acknowledged === undefined) return { checked: null, breaches: [] };
  const lost = [...acknowledged.keys()].filter((id) => !tasks.has(id));
  return { checked: acknowledged.size, breaches: lost.map((id) => `task ${id} was acknowledged and is lost`) };
}

function* ofEnding(task: TaskFacts, log: readonly Chunk[]): Generator<string> {
  if (!hasEnded(task.status)) yield 'it has not ended';
  const ends = log.filter(isEnd);
  if (ends.length !== 1 || log.at(-1) !== ends[0]) yield `its log has ${ends.length} ends, or goes on after one`;
  const [end] = ends;
  if (end !== undefined && (end.kind === 'error') !== ['FAILED', 'DROPPED', 'EXPIRED'].includes(task.status))
    yield `its log ends by ${end.kind}`;
}

function* ofLeaving(_facts: Facts, changes: NonNullable<Facts['changes']>): Generator<string> {
  for (const { taskId, was, now, chunksWas, chunksNow } of changes) {
    if (hasEnded(was) && was !== now) yield `task ${taskId} was ${was} and became ${now}`;
    if (hasEnded(was) && chunksWas !== chunksNow) yield `task ${taskId} was ${was}, and its log went on`;
  }
}

function oneHolder({ leases, tasks }: Facts): Found {
  const breaches = [...overlaps(leases, 'place'), ...overlaps(leases, 'taskId')];
  for (const task of tasks.values()) {
    const own = leases.filter(({ taskId }) => taskId === task.id);
    if (own.length !== task.attempts) breaches.push(`${nameOf(task)}: it had ${own.length} leases`);
    const newest = own.at(-1)?.id;
    if (task.leaseId !== null && task.leaseId !== newest)
      breaches.push(`${nameOf(task)}: it is under lease ${task.leaseId}, and ${newest} is newer`);
  }
  return { checked: leases.length, breaches };
}

function* overlaps(leases: readonly LeaseFacts[], key: 'place' | 'taskId'): Generator<string> {
  const last = new Map<string, LeaseFacts>();
  for (const lease of leases) {
    const before = last.get(lease[key]);
    last.set(lease[key], lease);
    if (before === undefined) continue;
    // One that ended before it was there is of no length.
    const until = before.untilMs ?? Number.POSITIVE_INFINITY;
    const from = lease.fromMs + SAME_TIME_MS;
    if (until > from && (lease.untilMs ?? Number.POSITIVE_INFINITY) > before.fromMs)
      yield `leases ${before.id} and ${lease.id} held ${lease[key]} at the same time`;
  }
}

function* ofGeneration(_facts: Facts, changes: NonNullable<Facts['changes']>): Generator<string> {
  const newest = new Map<string, bigint>();
  for (const { taskId, leaseWas, leaseNow, chunksWas, chunksNow } of changes) {
    const known = newest.get(taskId) ?? 0n;
    const now = leaseNow === null ? known : BigInt(leaseNow);
    if (now < known) yield `task ${taskId} came under lease ${now} after ${known}`;
    if (leaseWas !== null && BigInt(leaseWas) < known)
      yield `task ${taskId} was under lease ${leaseWas} after ${known}`;
    if (chunksNow < chunksWas) yield `the log of task ${taskId} fell from ${chunksWas} to ${chunksNow} chunks`;
    newest.set(taskId, now > known ? now : known);
  }
}

/** Places follow each other, and so do the tokens; the end stands behind the last. */
function* ofLog(task: TaskFacts, log: readonly Chunk[]): Generator<string> {
  if (task.chunks !== log.length) yield `it counts ${task.chunks} chunks and has ${log.length}`;
  if (log.some(({ ord }, place) => ord !== place)) yield `its chunks are numbered ${log.map(({ ord }) => ord)}`;
  if (log.filter(({ kind }) => kind === 'started').length > 1) yield 'it started twice';
  let seq = 0;
  for (const chunk of log) {
    const { kind, first, last, payload } = chunk;
    if (kind === 'tokens') {
      if (first !== seq + 1 || textsOf(payload).length !== last - first + 1)
        yield `tokens ${first} to ${last} follow ${seq}`;
      seq = last;
    } else if (isEnd(chunk)) {
      if (last !== seq + 1) yield `its end is number ${last} after ${seq} tokens`;
    } else if (last !== seq) yield `${kind} stands at ${last}, after ${seq} tokens`;
  }
}

function* ofReceipt(task: TaskFacts, log: readonly Chunk[]): Generator<string> {
  if (!hasEnded(task.status)) return;
  if (task.transcript === null) yield 'it has no transcript';
  else if (task.isGenuine !== true) yield 'its transcript is not what its id says';
  const receipt = receiptIn(task.transcript);
  if (receipt === null && task.status === 'SUCCEEDED') yield 'it has no receipt';
  if (receipt !== null && receipt.chainHash !== chainOf(tokensIn(log))) yield 'its receipt is of other tokens';
}

type Reader = NonNullable<Evidence['readers']>[number];

function ofReaders(of: (reader: Reader, task: TaskFacts, log: readonly Chunk[]) => Iterable<string>): Check['look'] {
  return ({ tasks, logs }, { readers }) => {
    if (readers === undefined) return { checked: null, breaches: [] };
    const breaches = readers.flatMap((reader) => {
      const task = tasks.get(reader.taskId);
      if (task === undefined) return [`task ${reader.taskId} has a reader and is lost`];
      return [...of(reader, task, logs.get(task.id) ?? [])].map((breach) => `${nameOf(task)}: ${breach}`);
    });
    return { checked: readers.length, breaches };
  };
}

function* ofReaderText({ frames, mayBeAhead }: Reader, task: TaskFacts, log: readonly Chunk[]): Generator<string> {
  const indices = indicesOf(frames);
  if (indices.some((index, at) => index !== at)) yield `its reader saw the indices ${indices.join(' ')}`;
  const seen = tokensOf(frames).join('');
  const stored = tokensIn(log).join('');
  const ended = frames.some(({ event }) => event === 'end' || event === 'error');
  const isAhead = mayBeAhead === true && task.status !== 'SUCCEEDED' && seen.startsWith(stored);
  if (ended ? seen !== stored && !isAhead : !stored.startsWith(seen) && !isAhead)
    yield `its reader saw "${seen.slice(-60)}", stored is "${stored.slice(-60)}"`;
}

function* ofReaderEnd({ frames }: Reader, { status, code }: TaskFacts): Generator<string> {
  const ends = frames.filter(({ event }) => event === 'end' || event === 'error');
  if (ends.length !== 1 || frames.at(-1) !== ends[0]) yield `its reader saw ${ends.length} ends, or more after it`;
  if (frames.filter(({ event }) => event === 'started').length > 1) yield 'its reader saw it start twice';
  const [end] = ends;
  if (end === undefined) return;
  const told = end.event === 'error' ? String(end.data.code) : end.data.canceled === true ? 'CANCELED' : 'SUCCEEDED';
  if (told !== (code ?? status)) yield `its reader was told ${told}`;
}

/** One stream in so many, from a place that its id decides. */
async function rereads({ tasks, logs }: Facts, { doors }: Evidence): Promise<Found> {
  if (doors === undefined) return { checked: null, breaches: [] };
  const ended = [...tasks.values()].filter(({ status }) => hasEnded(status));
  const some = ended.filter((_, at) => at % Math.ceil(ended.length / READ_AGAIN) === 0);
  const breaches: string[] = [];
  for (const url of doors) {
    for (const task of some) {
      const tokens = tokensIn(logs.get(task.id) ?? []);
      const after = Number.parseInt(task.id.slice(0, 4), 16) % (tokens.length + 1);
      const frames = await readStream(url, task.id, { after });
      const reader = { taskId: task.id, frames };
      if (tokensOf(frames).join('') !== tokens.slice(after).join(''))
        breaches.push(
          `${nameOf(task)}: read after ${after} it has ${tokensOf(frames).length} of ${tokens.length} tokens`,
        );
      breaches.push(...[...ofReaderEnd(reader, task)].map((breach) => `${nameOf(task)}: after ${after} ${breach}`));
    }
  }
  return { checked: some.length * doors.length, breaches };
}

function repeatedOnce({ tasks, leases }: Facts, { repeated }: Evidence): Found {
  if (repeated === undefined) return { checked: null, breaches: [] };
  const breaches = [...repeated].flatMap(([id, answers]) => {
    const kinds = new Set(answers.map((answer) => JSON.stringify(answer)));
    const runs = leases.filter(({ taskId, reason }) => taskId === id && reason === 'completed').length;
    return [
      ...(tasks.has(id) ? [] : [`task ${id} was submitted ${answers.length} times and is lost`]),
      ...(kinds.size > 1 ? [`task ${id} had ${kinds.size} different receipts`] : []),
      ...(runs > 1 ? [`task ${id} was run to its end ${runs} times`] : []),
    ];
  });
  return { checked: repeated.size, breaches };
}

function* ofCancel({ status }: TaskFacts, log: readonly Chunk[]): Generator<string> {
  for (const { payload } of log.filter(isEnd)) {
    const canceled =
      typeof payload === 'object' && payload !== null && 'canceled' in payload && payload.canceled === true;
    if (canceled !== (status === 'CANCELED')) yield `its end says ${canceled ? '' : 'not '}cancelled`;
  }
}

function afterCancel({ tasks, logs }: Facts, { cancels }: Evidence): Found {
  if (cancels === undefined) return { checked: null, breaches: [] };
  const breaches = cancels.flatMap(({ taskId, status, chunks }) => {
    const task = tasks.get(taskId);
    if (task === undefined) return [`task ${taskId} was cancelled and is lost`];
    const stored = logs.get(taskId)?.length ?? 0;
    return [
      ...(hasEnded(status) ? [] : [`${nameOf(task)}: when its cancel was confirmed it was ${status}`]),
      ...(status === task.status ? [] : [`${nameOf(task)}: it was ${status} when its cancel was confirmed`]),
      ...(stored === chunks
        ? []
        : [`${nameOf(task)}: its log went from ${chunks} to ${stored} chunks after its cancel`]),
    ];
  });
  return { checked: cancels.length, breaches };
}

/** Where any text is right there is nothing to compare; one that was cancelled has a beginning of it. */
function undisturbed({ tasks, logs }: Facts, { acknowledged }: Evidence): Found {
  if (acknowledged === undefined) return { checked: null, breaches: [] };
  const known = [...acknowledged].flatMap(([id, right]) => {
    const task = tasks.get(id);
    return right === null || task === undefined ? [] : [{ task, right }];
  });
  const breaches = known.flatMap(({ task, right }) => {
    const text = tokensIn(logs.get(task.id) ?? []).join('');
    if (task.status === 'CANCELED' && right.startsWith(text)) return [];
    if (task.status !== 'SUCCEEDED') return [`${nameOf(task)}: it did not succeed`];
    return text === right ? [] : [`${nameOf(task)}: its text is "${text}", undisturbed "${right}"`];
  });
  return { checked: known.length === 0 ? null : known.length, breaches };
}
