/** Sessions, by the names that a scenario gives them. */
import { expect } from 'vitest';
import { eventually } from '../eventually.js';
import { mismatches } from '../matching.js';
import type { Scenario } from '../scenario.js';
import { showSession } from '../shows.js';
import { type StepData, step } from '../step.js';

function sessionId(scenario: Scenario, name: string): string {
  return scenario.taskId(`session ${name}`);
}

/** Waits until both doors show it: GraphQL and REST tell of a session the same, in their own words. */
step(/^the session "(\w+)" shows:$/, async (scenario, name: string, table: StepData) => {
  const rows = scenario.rows(table);
  const read = async () => {
    const { body } = await scenario.doors.rest('GET', `/v1/sessions/${sessionId(scenario, name)}`);
    return {
      ...(body as object),
      ...((await showSession(scenario.doors, sessionId(scenario, name))) as object | null),
    };
  };
  await eventually(async () => mismatches(await read(), rows), { interval: 100 }).toEqual([]);
});

step(/^I delete the session "(\w+)"$/, async (scenario, name: string) => {
  scenario.answer = await scenario.doors.rest('DELETE', `/v1/sessions/${sessionId(scenario, name)}`);
  expect(scenario.answer.status).toBe(204);
});

step(/^the session "(\w+)" is gone$/, async (scenario, name: string) => {
  const id = sessionId(scenario, name);
  await eventually(() => showSession(scenario.doors, id)).toBeNull();
  expect((await scenario.doors.rest('GET', `/v1/sessions/${id}`)).status).toBe(404);
});
