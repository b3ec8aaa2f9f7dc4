/** Tasks by the names that a scenario gives them: submitted, refused, cancelled, ended. */
import { expect } from 'vitest';
import { taskRequest } from '../../support/rest.js';
import type { Answer } from '../doors.js';
import type { Scenario } from '../scenario.js';
import { showPool, showTask } from '../shows.js';
import { type StepData, step } from '../step.js';

/** Fields of a request that are no text. */
const NUMBERS = new Set(['max_tokens', 'deadline_ms', 'ctx', 'seed', 'expected_tokens']);

export function namesIn(list: string): string[] {
  return [...list.matchAll(/"(\w+)"/g)].map(([, name = '']) => name);
}

function requestOf(scenario: Scenario, name: string, table: StepData | undefined): Record<string, unknown> {
  const request: Record<string, unknown> = taskRequest({ task_id: scenario.taskId(name) });
  const placement: Record<string, unknown> = {};
  for (const [field = '', cell = ''] of table?.raw() ?? []) {
    const value = scenario.filled(cell);
    if (field === 'session') request.session_id = scenario.taskId(`session ${cell}`);
    else if (field === 'inputs') request.inputs = JSON.parse(value);
    else if (field.startsWith('placement.')) placement[field.slice('placement.'.length)] = placed(value);
    else request[field] = NUMBERS.has(field) ? Number(value) : value;
  }
  return Object.keys(placement).length === 0 ? request : { ...request, placement };
}

function placed(cell: string): unknown {
  if (cell === 'true' || cell === 'false') return cell === 'true';
  return cell.startsWith('[') ? JSON.parse(cell) : cell;
}

/** What the pool serves, unless the table asks for something else. */
async function submit(scenario: Scenario, name: string, pool: string, table: StepData | undefined): Promise<Answer> {
  const shown = (await showPool(scenario.doors, pool)) as { modelRef: string; engine: string } | null;
  if (shown === null) throw new Error(`there is no pool ${pool}`);
  const given = requestOf(scenario, name, table);
  const asked = new Set((table?.raw() ?? []).map(([field]) => field));
  if (!asked.has('model_ref')) given.model_ref = shown.modelRef;
  if (!asked.has('engine')) given.engine = shown.engine.toLowerCase();
  if (given.placement === undefined) given.placement = { mode: 'pin', pin_pool_id: pool };
  scenario.answer = await scenario.doors.rest('POST', '/v1/tasks', JSON.stringify(given));
  return scenario.answer;
}

async function admit(scenario: Scenario, list: string, pool: string, table?: StepData): Promise<void> {
  for (const name of namesIn(list)) {
    const answer = await submit(scenario, name, pool, table);
    expect(answer.status, JSON.stringify(answer.body)).toBe(202);
  }
}

const NAMES = String.raw`((?:"\w+"(?:, | and )?)+)`;

step(new RegExp(`^I submit ${NAMES} to "([^"]+)"$`), (scenario, list: string, pool: string) =>
  admit(scenario, list, pool),
);

step(new RegExp(`^I submit ${NAMES} to "([^"]+)" with:$`), admit);

/** The answer may be a refusal. */
step(/^I try to submit "(\w+)" to "([^"]+)"$/, (scenario, name: string, pool: string) =>
  submit(scenario, name, pool, undefined),
);

step(/^I try to submit "(\w+)" to "([^"]+)" with:$/, submit);

/** Takes every slot with a task that goes on, so that what comes next waits. */
step(/^"([^"]+)" is busy with ((?:"\w+"(?:, | and )?)+)$/, async (scenario, pool: string, list: string) => {
  for (const name of namesIn(list)) {
    const endless = {
      raw: () => [
        ['max_tokens', '4000'],
        ['deadline_ms', '600000'],
      ],
      hashes: () => [],
    };
    await admit(scenario, `"${name}"`, pool, endless);
    await expect.poll(() => scenario.reader(name).frames.some(({ event }) => event === 'token')).toBe(true);
  }
});

step(/^I cancel "(\w+)"$/, async (scenario, name: string) => {
  scenario.answer = await scenario.doors.rest('POST', `/v1/tasks/${scenario.taskId(name)}/cancel`, '{}');
  expect(scenario.answer.status).toBe(204);
});

interface TaskSeen {
  readonly status: string;
  readonly startedAt: string | null;
  readonly error: { readonly code: string } | null;
}

async function taskSeen(scenario: Scenario, name: string): Promise<TaskSeen> {
  const task = await showTask(scenario.doors, scenario.taskId(name));
  if (task === null) throw new Error(`there is no task ${name}`);
  return task as TaskSeen;
}

async function expectEnd(scenario: Scenario, name: string, wanted: string): Promise<void> {
  const look = async () => {
    const { status, error } = await taskSeen(scenario, name);
    return error === null ? status : `${status} ${error.code}`;
  };
  await expect.poll(look).toBe(wanted);
}

step(new RegExp(`^${NAMES} ends?$`), async (scenario, list: string) => {
  for (const name of namesIn(list)) await expectEnd(scenario, name, 'SUCCEEDED');
});

step(new RegExp(`^${NAMES} (?:is|are) canceled$`), async (scenario, list: string) => {
  for (const name of namesIn(list)) await expectEnd(scenario, name, 'CANCELED');
});

/** Failed, dropped from the queue, or too late. */
step(
  /^"(\w+)" ends as (FAILED|DROPPED|EXPIRED) with ([A-Z_]+)$/,
  (scenario, name: string, status: string, code: string) => expectEnd(scenario, name, `${status} ${code}`),
);

step(new RegExp(`^${NAMES} started in this order$`), async (scenario, list: string) => {
  const starts: [string, number][] = [];
  for (const name of namesIn(list)) {
    const { startedAt } = await taskSeen(scenario, name);
    starts.push([name, Date.parse(startedAt ?? 'never')]);
  }
  expect(
    starts.every(([, at]) => Number.isFinite(at)),
    JSON.stringify(starts),
  ).toBe(true);
  expect(starts).toEqual(starts.toSorted(([, one], [, other]) => one - other));
});
