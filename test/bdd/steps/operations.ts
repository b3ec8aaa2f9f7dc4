/** Work on pools: begun through GraphQL, followed to its end. */
import { expect } from 'vitest';
import { eventually } from '../eventually.js';
import { mismatches } from '../matching.js';
import type { Scenario } from '../scenario.js';
import { showOperation } from '../shows.js';
import { type StepData, step } from '../step.js';

const BEGUN = `__typename ... on OperationAccepted { operation { id } } ... on Refusal { code message field retriable }`;

async function begin(scenario: Scenario, mutation: string): Promise<void> {
  const body = await scenario.doors.graphql(`mutation { begun: ${mutation} { ${BEGUN} } }`);
  scenario.answer = { status: 200, headers: {}, body: body.data?.begun ?? body };
  scenario.operationId = body.data?.begun?.operation?.id ?? null;
}

step(/^I drain "([^"]+)" within (\d+) ms$/, (scenario, pool: string, deadlineMs: number) =>
  begin(scenario, `drainPool(input: { pool: "${pool}", deadlineMs: ${deadlineMs} })`),
);

step(/^I resume "([^"]+)"$/, (scenario, pool: string) => begin(scenario, `resumePool(input: { pool: "${pool}" })`));

step(/^I reload "([^"]+)" to "([^"]+)" within (\d+) ms$/, (scenario, pool: string, model: string, deadlineMs: number) =>
  begin(scenario, `reloadPool(input: { pool: "${pool}", newModelRef: "${model}", drainDeadlineMs: ${deadlineMs} })`),
);

step(/^I restart the replica "([^"]+)"$/, (scenario, replica: string) =>
  begin(scenario, `restartReplica(input: { replica: "${replica}" })`),
);

function operationOf(scenario: Scenario): string {
  if (scenario.operationId === null)
    throw new Error(`no operation was begun: ${JSON.stringify(scenario.answer?.body)}`);
  return scenario.operationId;
}

step(/^the operation (?:ends as|is) ([A-Z_]+)$/, async (scenario, state: string) => {
  const id = operationOf(scenario);
  const look = async () => ((await showOperation(scenario.doors, id)) as { state: string }).state;
  await eventually(look).toBe(state);
});

step(/^the operation shows:$/, async (scenario, table: StepData) => {
  const id = operationOf(scenario);
  await eventually(async () => mismatches(await showOperation(scenario.doors, id), table.raw())).toEqual([]);
});

step(/^the operation took less than (\d+) s$/, async (scenario, seconds: number) => {
  const shown = await showOperation(scenario.doors, operationOf(scenario));
  const { startedAt, endedAt } = shown as { startedAt: string; endedAt: string };
  expect(Date.parse(endedAt) - Date.parse(startedAt)).toBeLessThan(seconds * 1000);
});
