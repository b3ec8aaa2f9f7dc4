/** Checks on slots, processes, waiting, resources, metrics and attempts: I8 to I14. */
import { MAX_ATTEMPTS } from '../../src/core/task.js';
import type { Facts } from './invariantFacts.js';
import type { Check, Evidence, Floor, Found } from './invariants.js';
import type { Sample } from './metrics.js';

export const SYSTEM_CHECKS: readonly Check[] = [
  { invariant: 'I8', name: 'slots within capacity, none held, lanes empty', look: slotsAreFree },
  { invariant: 'I8', name: 'no GPU is booked beyond its memory', look: gpusAreWithin },
  { invariant: 'I9', name: 'no engine that nobody knows', needs: 'processes', look: enginesAreKnown },
  { invariant: 'I10', name: 'no task waited too long', needs: 'patienceMs', look: waitedLittle },
  { invariant: 'I11', name: 'what was told before is told the same after', needs: 'views', look: sameViews },
  { invariant: 'I12', name: 'resources are back at their floor', needs: 'floors', look: backToFloor },
  { invariant: 'I13', name: 'metrics agree with the database', needs: 'metrics', look: metricsAgree },
  { invariant: 'I14', name: 'attempts are within the cap', look: attemptsCapped },
  { invariant: 'I14', name: 'engines ran no more than leases were given', needs: 'engineCalls', look: callsCapped },
];

const NOT_CHECKED: Found = { checked: null, breaches: [] };

function slotsAreFree({ leases, lanes }: Facts): Found {
  const breaches = leases
    .filter(({ untilMs }) => untilMs === null)
    .map(({ id, place }) => `lease ${id} of ${place} is still held`);
  for (const { id, place, slot, slots } of leases)
    if (slot < 0 || slot >= slots) breaches.push(`lease ${id} is of ${place}, which has ${slots} slots`);
  if (lanes.counted !== lanes.waiting || lanes.waiting !== 0)
    breaches.push(`the lanes count ${lanes.counted} waiting tasks, and ${lanes.waiting} wait`);
  return { checked: leases.length, breaches };
}

function gpusAreWithin({ gpus }: Facts): Found {
  const over = gpus.filter(({ total, booked }) => booked > total);
  return {
    checked: gpus.length,
    breaches: over.map(({ uuid, total, booked }) => `GPU ${uuid} has ${total} bytes, and ${booked} are booked`),
  };
}

async function enginesAreKnown({ marks }: Facts, { processes }: Evidence): Promise<Found> {
  if (processes === undefined) return NOT_CHECKED;
  const living = await processes();
  const unknown = living.filter(({ mark }) => !marks.has(mark));
  return {
    checked: living.length,
    breaches: unknown.map(({ pid, mark }) => `process ${pid} of ${mark} is left`),
  };
}

function waitedLittle({ tasks }: Facts, { patienceMs }: Evidence): Found {
  if (patienceMs === undefined) return NOT_CHECKED;
  const late = [...tasks.values()].filter(({ waitedMs }) => waitedMs === null || waitedMs > patienceMs);
  const breaches = late.map(
    ({ id, status, waitedMs }) =>
      `task ${id} (${status}) waited ${waitedMs === null ? 'and still waits' : `${Math.round(waitedMs)} ms`}, more than ${patienceMs} ms`,
  );
  return { checked: tasks.size, breaches };
}

function sameViews(_facts: Facts, { views }: Evidence): Found {
  if (views === undefined) return NOT_CHECKED;
  const changed = views.filter(({ before, after }) => JSON.stringify(before) !== JSON.stringify(after));
  return { checked: views.length, breaches: changed.map(({ what }) => `${what} is not what it was`) };
}

async function backToFloor(_facts: Facts, { floors }: Evidence): Promise<Found> {
  if (floors === undefined) return NOT_CHECKED;
  const breaches: string[] = [];
  const numbers: string[] = [];
  let checked = 0;
  for (const floor of floors) {
    const now = await floor.now();
    const names = Object.keys(floor.was);
    checked += names.length;
    breaches.push(...overFloor(floor, now));
    numbers.push(
      `${floor.what}, floor → now: ${names.map((name) => `${name} ${floor.was[name]} → ${now[name]}`).join(', ')}`,
    );
  }
  return { checked, breaches, numbers };
}

/** In words, what is more than it was. */
export function overFloor({ what, was, slack }: NonNullable<Evidence['floors']>[number], now: Floor): string[] {
  return Object.entries(was).flatMap(([name, before]) => {
    const after = now[name] ?? Number.POSITIVE_INFINITY;
    return after <= before + (slack[name] ?? 0) ? [] : [`${what} has ${after} ${name}, and had ${before}`];
  });
}

type Scraped = Awaited<ReturnType<NonNullable<Evidence['metrics']>>>[number];

function sum(nodes: readonly Scraped[], name: string): number {
  const samples = nodes.flatMap(({ told }): readonly Sample[] => told.get(name) ?? []);
  return samples.reduce((total, { value }) => total + value, 0);
}

/**
 * What happened since every node was started is counted, and nothing from before any was. Between these, it may have been
 * counted by a node that has died.
 */
async function metricsAgree({ tasks, leases, lanes }: Facts, evidence: Evidence): Promise<Found> {
  if (evidence.metrics === undefined) return NOT_CHECKED;
  const nodes = await evidence.metrics();
  const starts = nodes.map(({ sinceMs }) => sinceMs);
  const between = (times: readonly (number | null)[]): Range => {
    const since = (startMs: number) => times.filter((ms) => ms !== null && ms >= startMs).length;
    return [since(Math.max(...starts)), since(Math.min(...starts))];
  };
  const ended = (status: string) => [...tasks.values()].flatMap((task) => (task.status === status ? task.endedMs : []));
  const created = [...tasks.values()].map(({ createdMs }) => createdMs);
  const held = leases.filter(({ untilMs }) => untilMs === null).length;
  const rows: readonly [string, Range, number][] = [
    ['tasks_enqueued_total', between(created), sum(nodes, 'tasks_enqueued_total')],
    ['tasks_canceled_total', between(ended('CANCELED')), sum(nodes, 'tasks_canceled_total')],
    ['tasks_dropped_total', between(ended('DROPPED')), sum(nodes, 'tasks_dropped_total')],
    ['active_leases', [held, held], sum(nodes, 'active_leases')],
    ['queue_depth', [lanes.waiting, lanes.waiting], largest(nodes, 'queue_depth')],
  ];
  const breaches = rows
    .filter(([, [least, most], told]) => told < least || told > most)
    .map(([name, [least, most], told]) => {
      const stored = least === most ? least : `${least} to ${most}`;
      return `${name} is ${told}, the database has ${stored}`;
    });
  return { checked: rows.length, breaches };
}

type Range = readonly [least: number, most: number];

/** Every node tells the same lanes. */
function largest(nodes: readonly Scraped[], name: string): number {
  return Math.max(0, ...nodes.map((node) => sum([node], name)));
}

function attemptsCapped({ tasks }: Facts): Found {
  const many = [...tasks.values()].filter(({ attempts }) => attempts > MAX_ATTEMPTS);
  return { checked: tasks.size, breaches: many.map(({ id, attempts }) => `task ${id} was started ${attempts} times`) };
}

/** A call that no lease allowed, and one that nobody saw, though the task has its tokens. */
function callsCapped({ tasks, leases }: Facts, { engineCalls }: Evidence): Found {
  if (engineCalls === undefined) return NOT_CHECKED;
  const { databaseCrashes = 0 } = engineCalls;
  const calls = new Map<string, number>();
  for (const id of engineCalls.began()) calls.set(id, (calls.get(id) ?? 0) + 1);
  const total = [...calls.values()].reduce((sum, count) => sum + count, 0);
  const most = tasks.size * (MAX_ATTEMPTS + databaseCrashes);
  const breaches = total > most ? [`engines were called ${total} times for ${tasks.size} tasks`] : [];
  for (const { id, correlationId, status } of tasks.values()) {
    const count = calls.get(correlationId) ?? 0;
    const given = leases.filter(({ taskId }) => taskId === id).length;
    if (count > given + databaseCrashes)
      breaches.push(`engines were called ${count} times for ${given} leases of ${id}`);
    if (count === 0 && status === 'SUCCEEDED') breaches.push(`task ${id} succeeded, and no engine was called for it`);
    calls.delete(correlationId);
  }
  breaches.push(...[...calls].map(([id, count]) => `engines were called ${count} times for ${id}, which is no task`));
  return { checked: total, breaches };
}
