/**
 * I1 to I14: what must hold once a control plane is quiet, whatever befell it. A suite gives the evidence for each check, or
 * says why there can be none; what is neither checked nor explained fails it. Every breach is told in words.
 */
import { expect } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { type Asked, type Facts, readFacts } from './invariantFacts.js';
import { overFloor, SYSTEM_CHECKS } from './invariantSystem.js';
import { TASK_CHECKS } from './invariantTasks.js';
import type { Sample } from './metrics.js';
import type { SseFrame } from './rest.js';

/** A cancel that was confirmed, and what was kept of its task at that moment. */
export interface Confirmed {
  readonly taskId: string;
  readonly status: string;
  readonly chunks: number;
}

/** What a process or a whole control plane takes, to be compared with what it took before. */
export type Floor = Readonly<Record<string, number>>;

/** The evidence that a check lives by; without it, there has to be a reason. */
export type Need = 'witness' | 'texts' | Exclude<keyof Evidence, 'database' | 'notApplicable'>;

/** What engines were asked to do for tasks. */
export interface EngineCalls {
  /** The correlation id of each call, as often as it came, also to engines that have died since. */
  readonly began: () => readonly string[];
  /** So many crashes of the database may each have taken the last claims with them: those are written without a wait. */
  readonly databaseCrashes?: number;
}

export interface Evidence {
  readonly database: Asked;
  /** By id, of every acknowledged submission: the text that an undisturbed run gives; null where any is right. */
  readonly acknowledged?: ReadonlyMap<string, string | null>;
  /** Everything that readers saw, over all their connections. `mayBeAhead`: tokens were shown that a death then took. */
  readonly readers?: readonly {
    readonly taskId: string;
    readonly frames: readonly SseFrame[];
    readonly mayBeAhead?: boolean;
  }[];
  /** Where ended streams can be read again, from a place in their middle. */
  readonly doors?: readonly string[];
  /** The answers to equal submissions, by task. */
  readonly repeated?: ReadonlyMap<string, readonly unknown[]>;
  readonly cancels?: readonly Confirmed[];
  /** Engine processes that live. */
  readonly processes?: () => Promise<readonly { readonly pid: number; readonly mark: string }[]>;
  /** No task may have waited longer. */
  readonly patienceMs?: number;
  /** What was seen before a fault, and after it. */
  readonly views?: readonly { readonly what: string; readonly before: unknown; readonly after: unknown }[];
  /** Each comes back to what it `was`, once it is quiet; `slack`: by how much it may exceed that. */
  readonly floors?: readonly {
    readonly what: string;
    readonly was: Floor;
    readonly now: () => Promise<Floor>;
    readonly slack: Floor;
  }[];
  /** As they are told now, by all nodes that work on this database; each counts from the start of its process on. */
  readonly metrics?: () => Promise<
    readonly { readonly told: ReadonlyMap<string, readonly Sample[]>; readonly sinceMs: number }[]
  >;
  readonly engineCalls?: EngineCalls;
  /** Why a check cannot be made here, by the evidence that there is none of. */
  readonly notApplicable?: Partial<Readonly<Record<Need, string>>>;
}

export interface Found {
  /** How many things were looked at; null: the evidence for this was not given. */
  readonly checked: number | null;
  readonly breaches: readonly string[];
  /** Numbers that stand below the table. */
  readonly numbers?: readonly string[];
}

export interface Check {
  readonly invariant: `I${number}`;
  readonly name: string;
  readonly needs?: Need;
  readonly look: (facts: Facts, evidence: Evidence) => Found | Promise<Found>;
}

export interface Verdict extends Found {
  readonly invariant: string;
  readonly name: string;
  /** Why it could not be checked. */
  readonly because: string | null;
}

const CHECKS: readonly Check[] = [...TASK_CHECKS, ...SYSTEM_CHECKS].sort(
  (one, other) => Number(one.invariant.slice(1)) - Number(other.invariant.slice(1)),
);

export async function verdictsOn(evidence: Evidence): Promise<Verdict[]> {
  const facts = await readFacts(evidence.database);
  const verdicts: Verdict[] = [];
  for (const { invariant, name, needs, look } of CHECKS) {
    const found = await look(facts, evidence);
    const because = needs === undefined ? null : (evidence.notApplicable?.[needs] ?? null);
    verdicts.push({ invariant, name, because, ...found });
  }
  return verdicts;
}

/** Every breach with its invariant; that something was not looked at, and nobody says why, is one. */
export async function breachesOf(evidence: Evidence): Promise<string[]> {
  return breachesIn(await verdictsOn(evidence));
}

function breachesIn(verdicts: readonly Verdict[]): string[] {
  return verdicts.flatMap(({ invariant, name, checked, because, breaches }) => {
    const all = [...breaches];
    if (checked === null && because === null) all.push(`"${name}" is not checked, and nobody says why`);
    if (checked !== null && because !== null) all.push(`"${name}" is checked, though "${because}"`);
    return all.map((breach) => `${invariant}: ${breach}`);
  });
}

export function tableOf(title: string, verdicts: readonly Verdict[]): string {
  const rows = verdicts.map(({ invariant, name, checked, because, breaches }) => {
    const label = `  ${invariant.padEnd(4)}${name.padEnd(62)}`;
    if (checked === null) return `${label}${'not checked'.padStart(11)}${because === null ? '' : `: ${because}`}`;
    return `${label}${String(checked).padStart(11)}${String(breaches.length).padStart(11)}`;
  });
  return [
    `invariants, ${title}`,
    `  ${''.padEnd(66)}${'checked'.padStart(11)}${'breaches'.padStart(11)}`,
    ...rows,
    ...verdicts.flatMap(({ invariant, numbers = [] }) => numbers.map((line) => `  ${invariant.padEnd(4)}${line}`)),
  ].join('\n');
}

/**
 * Prints the table, and fails with every breach. What is still being let go of is waited for: resources first, since the
 * other looks take some themselves.
 * @param options.settleMs a slot is given back a moment after its task's end is told.
 */
export async function expectInvariants(
  title: string,
  evidence: Evidence,
  options: { readonly settleMs?: number } = {},
): Promise<Verdict[]> {
  const deadlineMs = options.settleMs ?? 15_000;
  const askedMs = performance.now();
  const floors = await settledFloors(evidence.floors, deadlineMs);
  const settledMs = Math.round(performance.now() - askedMs);
  const settled = { ...evidence, ...(floors !== undefined && { floors }) };
  let verdicts: Verdict[] = [];
  const isSound = async () => {
    verdicts = await verdictsOn(settled);
    return breachesIn(verdicts).length === 0;
  };
  try {
    await pollUntil(isSound, { everyMs: 50, deadlineMs });
    expect(breachesIn(verdicts)).toEqual([]);
  } finally {
    console.log(tableOf(`${title}; resources were looked at for ${settledMs} ms`, verdicts));
  }
  return verdicts;
}

/** The floors as they were when all were reached, or as they still are at the deadline. */
async function settledFloors(floors: Evidence['floors'], deadlineMs: number): Promise<Evidence['floors']> {
  let last: Floor[] = [];
  const areBack = async () => {
    last = await Promise.all((floors ?? []).map(({ now }) => now()));
    return (floors ?? []).every((floor, at) => overFloor(floor, last[at] ?? {}).length === 0);
  };
  await pollUntil(areBack, { everyMs: 100, deadlineMs });
  return floors?.map((floor, at) => ({ ...floor, now: async () => last[at] ?? {} }));
}
