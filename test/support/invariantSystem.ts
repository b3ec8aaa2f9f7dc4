/** Checks on slots, processes, waiting, resources, metrics and attempts: I8 to I14. */
import { MAX_ATTEMPTS } from '../../src/core/task.js';
import type { Facts } from './invariantFacts.js';
import type { Check, Evidence, Found } from './invariants.js';
import type { Sample } from './metrics.js';

export const SYSTEM_CHECKS: readonly Check[] = [
  { invariant: 'I8', name: 'slots within capacity, none held, lanes empty', look: slotsAreFree },
  { invariant: 'I8', name: 'no GPU is booked beyond its memory', look: gpusAreWithin },
  { invariant: 'I9', name: 'no engine that nobody knows', look: enginesAreKnown },
  { invariant: 'I10', name: 'no task waited too long', look: waitedLittle },
  { invariant: 'I11', name: 'a restart changed nothing that can be seen', look: sameViews },
  { invariant: 'I12', name: 'resources are back at their floor', look: backToFloor },
  { invariant: 'I13', name: 'metrics agree with the database', look: metricsAgree },
  { invariant: 'I14', name: 'attempts are within the cap', look: attemptsCapped },
  { invariant: 'I14', name: 'engines ran no more than leases were given', look: runsCapped },
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

function enginesAreKnown({ marks }: Facts, { processes }: Evidence): Found {
  if (processes === undefined) return NOT_CHECKED;
  const unknown = processes.filter(({ mark }) => !marks.has(mark));
  return {
    checked: processes.length,
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

function backToFloor(_facts: Facts, { floors }: Evidence): Found {
  if (floors === undefined) return NOT_CHECKED;
  const breaches = floors.flatMap(({ what, before, after, slack }) =>
    Object.entries(before).flatMap(([name, was]) => {
      const now = after[name] ?? Number.POSITIVE_INFINITY;
      return now <= was + (slack[name] ?? 0) ? [] : [`${what} has ${now} ${name}, and had ${was}`];
    }),
  );
  return { checked: floors.length, breaches };
}

type Scraped = Awaited<ReturnType<NonNullable<Evidence['metrics']>>>[number];

function sum(nodes: readonly Scraped[], name: string): number {
  const samples = nodes.flatMap((metrics): readonly Sample[] => metrics.get(name) ?? []);
  return samples.reduce((total, { value }) => total + value, 0);
}

async function metricsAgree({ tasks, leases, lanes }: Facts, evidence: Evidence): Promise<Found> {
  if (evidence.metrics === undefined) return NOT_CHECKED;
  const metrics = await evidence.metrics();
  const count = (status: string) => [...tasks.values()].filter((task) => task.status === status).length;
  const held = leases.filter(({ untilMs }) => untilMs === null).length;
  const pairs: readonly [string, number][] = [
    ['tasks_enqueued_total', tasks.size],
    ['tasks_canceled_total', count('CANCELED')],
    ['tasks_dropped_total', count('DROPPED')],
    ['active_leases', held],
    ['queue_depth', lanes.waiting],
  ];
  const breaches = pairs
    .map(([name, stored]) => ({
      name,
      stored,
      told: name === 'queue_depth' ? largest(metrics, name) : sum(metrics, name),
    }))
    .filter(({ stored, told }) => stored !== told)
    .map(({ name, stored, told }) => `${name} is ${told}, the database has ${stored}`);
  return { checked: pairs.length, breaches };
}

/** Every node tells the same lanes. */
function largest(nodes: readonly Scraped[], name: string): number {
  return Math.max(0, ...nodes.map((metrics) => sum([metrics], name)));
}

function attemptsCapped({ tasks }: Facts): Found {
  const many = [...tasks.values()].filter(({ attempts }) => attempts > MAX_ATTEMPTS);
  return { checked: tasks.size, breaches: many.map(({ id, attempts }) => `task ${id} was started ${attempts} times`) };
}

function runsCapped({ tasks, leases }: Facts, { engineRuns }: Evidence): Found {
  if (engineRuns === undefined) return NOT_CHECKED;
  const most = Math.min(leases.length, tasks.size * MAX_ATTEMPTS);
  const breaches = engineRuns > most ? [`engines ran ${engineRuns} times for ${most} leases`] : [];
  return { checked: engineRuns, breaches };
}
