/** Requests as a client writes them, and what is answered. */
import { expect } from 'vitest';
import type { Answer } from '../doors.js';
import { eventually } from '../eventually.js';
import { mismatches } from '../matching.js';
import type { Scenario } from '../scenario.js';
import { type StepData, step } from '../step.js';

export function answerOf(scenario: Scenario): Answer {
  if (scenario.answer === null) throw new Error('nothing was asked yet');
  return scenario.answer;
}

/** With no token but one that stands in the headers. */
step(
  /^I send (GET|DELETE|POST) "([^"]+)"(?: with the headers:)?$/,
  async (scenario, method: string, path: string, table?: StepData) => {
    const body = method === 'POST' ? '{}' : undefined;
    const headers = Object.fromEntries(table?.raw().map(([name = '', value = '']) => [name, value]) ?? []);
    scenario.answer = await scenario.doors.bare(method, scenario.filled(path), body, headers);
  },
);

step(/^I send POST "([^"]+)" with:$/, async (scenario, path: string, body: StepData) => {
  scenario.answer = await scenario.doors.bare('POST', scenario.filled(path), scenario.filled(body.toString()));
});

step(/^I ask GraphQL:$/, async (scenario, query: StepData) => {
  const body = await scenario.doors.graphql(scenario.filled(query.toString()));
  scenario.answer = { status: 200, headers: {}, body };
});

step(/^the answer is (\d+)$/, (scenario, status: number) => {
  const answer = answerOf(scenario);
  expect(answer.status, JSON.stringify(answer.body)).toBe(status);
});

step(/^the answer has the headers:$/, (scenario, table: StepData) => {
  expect(mismatches(answerOf(scenario).headers, table.raw())).toEqual([]);
});

step(/^the answer holds:$/, (scenario, table: StepData) => {
  expect(mismatches(answerOf(scenario).body, scenario.rows(table))).toEqual([]);
});

/** For what comes a moment after what causes it. */
step(/^GET "([^"]+)" comes to hold:$/, async (scenario, path: string, table: StepData) => {
  const look = async () => {
    const { body } = await scenario.doors.rest('GET', scenario.filled(path));
    return mismatches(body, table.raw());
  };
  await eventually(look).toEqual([]);
});
