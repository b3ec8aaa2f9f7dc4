/** Tasks by the names that a scenario gives them: submitted, refused, cancelled, ended. */
import { expect } from 'vitest';
import { taskRequest } from '../../support/rest.js';
import type { Answer } from '../doors.js';
import { eventually } from '../eventually.js';
import type { Scenario } from '../scenario.js';
import { showEnding, showServed } from '../shows.js';
import { type StepData, step } from '../step.js';

/** Fields of a request that are no text. */
const NUMBERS = new Set(['max_tokens', 'deadline_ms', 'ctx', 'seed', 'expected_tokens']);

/** One name or several, as `"a", "b" and "c"`. */
export const NAMES = String.raw`((?:"\w+"(?:, | and )?)+)`;

export function namesIn(list: string): string[] {
  return [...list.matchAll(/"(\w+)"/g)].map(([, name = '']) => name);
}

interface Served {
  readonly modelRef: string;
  readonly engine: string;
  readonly contextLength: number;
}

/** What the pool serves, unless the table asks for something else. */
function requestOf(
  scenario: Scenario,
  name: string,
  pool: string,
  served: Served,
  rows: readonly (readonly string[])[],
) {
  const request: Record<string, unknown> = {
    ...taskRequest({ task_id: scenario.taskId(name), session_id: scenario.taskId(`session of ${name}`) }),
    model_ref: served.modelRef,
    engine: served.engine.toLowerCase(),
    ctx: served.contextLength,
  };
  const placement: Record<string, unknown> = {};
  // Where texts are given one by one, a prompt is what is asked of them.
  if (rows.some(([field]) => field === 'inputs')) delete request.prompt;
  for (const [field = '', cell = ''] of rows) {
    if (field === 'session') request.session_id = scenario.taskId(`session ${cell}`);
    else if (field === 'inputs') request.inputs = JSON.parse(cell);
    else if (field.startsWith('placement.')) placement[field.slice('placement.'.length)] = placed(cell);
    else request[field] = NUMBERS.has(field) ? Number(cell) : cell;
  }
  const isPlaced = Object.keys(placement).length > 0;
  return { ...request, placement: isPlaced ? placement : { mode: 'pin', pin_pool_id: pool } };
}

function placed(cell: string): unknown {
  if (cell === 'true' || cell === 'false') return cell === 'true';
  return cell.startsWith('[') ? JSON.parse(cell) : cell;
}

async function served(scenario: Scenario, pool: string): Promise<Served> {
  const shown = await showServed(scenario.doors, pool);
  if (shown === null) throw new Error(`there is no pool ${pool}`);
  return shown as Served;
}

async function submit(scenario: Scenario, name: string, pool: string, rows: string[][]): Promise<Answer> {
  const request = requestOf(scenario, name, pool, await served(scenario, pool), rows);
  scenario.answer = await scenario.doors.rest('POST', '/v1/tasks', JSON.stringify(request));
  return scenario.answer;
}

function rowsOf(scenario: Scenario, table: StepData | undefined): string[][] {
  return table === undefined ? [] : scenario.rows(table);
}

async function admit(scenario: Scenario, list: string, pool: string, rows: string[][]): Promise<void> {
  for (const name of namesIn(list)) {
    const answer = await submit(scenario, name, pool, rows);
    expect(answer.status, JSON.stringify(answer.body)).toBe(202);
  }
}

step(
  new RegExp(`^I submit ${NAMES} to "([^"]+)"(?: with:)?$`),
  (scenario, list: string, pool: string, table?: StepData) => admit(scenario, list, pool, rowsOf(scenario, table)),
);

/** The answer may be a refusal. */
step(/^I try to submit "(\w+)" to "([^"]+)"(?: with:)?$/, (scenario, name: string, pool: string, table?: StepData) =>
  submit(scenario, name, pool, rowsOf(scenario, table)),
);

/** Takes every slot with a task that goes on, so that what comes next waits. */
step(new RegExp(`^"([^"]+)" is busy with ${NAMES}$`), async (scenario, pool: string, list: string) => {
  const { contextLength } = await served(scenario, pool);
  const endless = [
    ['max_tokens', String(Math.min(4000, contextLength - 100))],
    ['deadline_ms', '600000'],
  ];
  for (const name of namesIn(list)) {
    await admit(scenario, `"${name}"`, pool, endless);
    await eventually(() => scenario.reader(name).frames.some(({ event }) => event === 'token')).toBe(true);
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
  const task = await showEnding(scenario.doors, scenario.taskId(name));
  if (task === null) throw new Error(`there is no task ${name}`);
  return task as TaskSeen;
}

async function expectEnd(scenario: Scenario, name: string, wanted: string): Promise<void> {
  const look = async () => {
    const { status, error } = await taskSeen(scenario, name);
    return error === null ? status : `${status} ${error.code}`;
  };
  await eventually(look).toBe(wanted);
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
