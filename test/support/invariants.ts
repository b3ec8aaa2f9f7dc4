/**
 * I1 to I14: what must hold once a control plane is quiet, whatever befell it. A suite gives the evidence it has; a check
 * that lacks its own says so and does not count as passed. Every breach is told in words.
 */
import { expect } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { type Asked, type Facts, readFacts } from './invariantFacts.js';
import { SYSTEM_CHECKS } from './invariantSystem.js';
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
  readonly processes?: readonly { readonly pid: number; readonly mark: string }[];
  /** No task may have waited longer. */
  readonly patienceMs?: number;
  /** What was seen before a restart, and after it. */
  readonly views?: readonly { readonly what: string; readonly before: unknown; readonly after: unknown }[];
  /** `slack`: by how much each may exceed what it was. */
  readonly floors?: readonly {
    readonly what: string;
    readonly before: Floor;
    readonly after: Floor;
    readonly slack: Floor;
  }[];
  /** As they are told now, by all nodes that worked on this database, none of which was started anew. */
  readonly metrics?: () => Promise<readonly ReadonlyMap<string, readonly Sample[]>[]>;
  /** Completions that the engines began for tasks. */
  readonly engineRuns?: number;
}

export interface Found {
  /** How many things were looked at; null: the evidence for this was not given. */
  readonly checked: number | null;
  readonly breaches: readonly string[];
}

export interface Check {
  readonly invariant: `I${number}`;
  readonly name: string;
  readonly look: (facts: Facts, evidence: Evidence) => Found | Promise<Found>;
}

export interface Verdict extends Found {
  readonly invariant: string;
  readonly name: string;
}

const CHECKS: readonly Check[] = [...TASK_CHECKS, ...SYSTEM_CHECKS].sort(
  (one, other) => Number(one.invariant.slice(1)) - Number(other.invariant.slice(1)),
);

export async function verdictsOn(evidence: Evidence): Promise<Verdict[]> {
  const facts = await readFacts(evidence.database);
  const verdicts: Verdict[] = [];
  for (const { invariant, name, look } of CHECKS) {
    verdicts.push({ invariant, name, ...(await look(facts, evidence)) });
  }
  return verdicts;
}

/** Every breach with its invariant. */
export async function breachesOf(evidence: Evidence): Promise<string[]> {
  return breachesIn(await verdictsOn(evidence));
}

function breachesIn(verdicts: readonly Verdict[]): string[] {
  return verdicts.flatMap(({ invariant, breaches }) => breaches.map((breach) => `${invariant}: ${breach}`));
}

export function tableOf(title: string, verdicts: readonly Verdict[]): string {
  const rows = verdicts.map(({ invariant, name, checked, breaches }) => {
    const count = checked === null ? 'not checked' : String(checked);
    return `  ${invariant.padEnd(4)}${name.padEnd(62)}${count.padStart(11)}${String(breaches.length).padStart(11)}`;
  });
  return [
    `invariants, ${title}`,
    `  ${''.padEnd(66)}${'checked'.padStart(11)}${'breaches'.padStart(11)}`,
    ...rows,
  ].join('\n');
}

/**
 * Prints the table, and fails with every breach. What is still being let go of is waited for.
 * @param options.settleMs a slot is given back a moment after its task's end is told.
 */
export async function expectInvariants(
  title: string,
  evidence: Evidence,
  options: { readonly settleMs?: number } = {},
): Promise<Verdict[]> {
  const deadlineMs = options.settleMs ?? 15_000;
  let verdicts: Verdict[] = [];
  const isSound = async () => {
    verdicts = await verdictsOn(evidence);
    return breachesIn(verdicts).length === 0;
  };
  try {
    await pollUntil(isSound, { everyMs: 50, deadlineMs });
    expect(breachesIn(verdicts)).toEqual([]);
  } finally {
    console.log(tableOf(title, verdicts));
  }
  return verdicts;
}
