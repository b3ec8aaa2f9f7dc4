/** Artifacts, by the names that a scenario gives them. */
import { expect } from 'vitest';
import type { Scenario } from '../scenario.js';
import { type StepData, step } from '../step.js';

const kept = new WeakMap<Scenario, Map<string, string>>();

function idOf(scenario: Scenario, name: string): string {
  const id = kept.get(scenario)?.get(name);
  if (id === undefined) throw new Error(`no artifact ${name} was kept`);
  return id;
}

function memberOf(scenario: Scenario, member: string, cell: string): unknown {
  if (member === 'parent') return /^\w+$/.test(cell) ? idOf(scenario, cell) : cell;
  return /^[[{]/.test(cell) ? JSON.parse(cell) : cell;
}

/** `parent` is the name of another one, or an id. The answer may be a refusal. */
step(/^I keep the artifact "(\w+)" with:$/, async (scenario, name: string, table: StepData) => {
  const rows = scenario.rows(table).map(([member = '', cell = '']) => [member, memberOf(scenario, member, cell)]);
  scenario.answer = await scenario.doors.rest('POST', '/v1/artifacts', JSON.stringify(Object.fromEntries(rows)));
  if (scenario.answer.status !== 201) return;
  const ids = kept.get(scenario) ?? new Map<string, string>();
  kept.set(scenario, ids.set(name, String((scenario.answer.body as { id: unknown }).id)));
});

step(/^I look up the artifact "(\w+)"$/, async (scenario, name: string) => {
  scenario.answer = await scenario.doors.rest('GET', `/v1/artifacts/${idOf(scenario, name)}`);
});

step(/^the artifacts "(\w+)" and "(\w+)" (are one|are two)$/, (scenario, one: string, other: string, how: string) => {
  expect(idOf(scenario, one) === idOf(scenario, other)).toBe(how === 'are one');
});

step(/^the parent in the answer is the artifact "(\w+)"$/, (scenario, name: string) => {
  expect(scenario.answer?.body).toMatchObject({ parent: idOf(scenario, name) });
});
