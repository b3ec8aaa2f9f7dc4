/** Streams of tasks as their readers get them over REST, and the same over GraphQL. */
import { expect } from 'vitest';
import { indicesOf, type SseFrame, tokensOf } from '../../support/rest.js';
import { eventually } from '../eventually.js';
import { mismatches } from '../matching.js';
import type { Scenario } from '../scenario.js';
import { type StepData, step } from '../step.js';
import { NAMES, namesIn } from './tasks.js';

const OVER = new Set(['end', 'error']);

async function wholeStream(scenario: Scenario, name: string): Promise<readonly SseFrame[]> {
  const reader = scenario.reader(name);
  const failure = await reader.ended;
  if (failure !== null) throw new Error(`the stream of ${name} broke: ${failure.message}`);
  return reader.frames;
}

step(/^"(\w+)" (?:is streaming|has streamed (\d+) tokens)$/, async (scenario, name: string, count?: number) => {
  const reader = scenario.reader(name);
  await eventually(() => tokensOf(reader.frames).length, { interval: 10 }).toBeGreaterThanOrEqual(count ?? 1);
});

step(/^the reader of "(\w+)" comes back after event (\d+)$/, (scenario, name: string, after: number) => {
  scenario.readAgain(name, after);
});

/** Of a reader that was there from the beginning. */
step(/^the stream of "(\w+)" is whole$/, async (scenario, name: string) => {
  const frames = await wholeStream(scenario, name);
  const events = frames.map(({ event }) => event);
  expect(events[0]).toBe('started');
  expect(events.filter((event) => event === 'started')).toHaveLength(1);
  expect(events.findIndex((event) => OVER.has(event))).toBe(events.length - 1);
  const indices = indicesOf(frames);
  expect(indices).toEqual(indices.map((_, place) => place));
  const ids = frames.flatMap(({ id }) => (id === null ? [] : [Number(id)]));
  expect(ids).toEqual(ids.toSorted((one, other) => one - other));
});

step(/^the stream of "(\w+)" has the events "([^"]*)"$/, async (scenario, name: string, wanted: string) => {
  const events = (await wholeStream(scenario, name)).map(({ event }) => event);
  expect(events.filter((event, place) => event !== events[place - 1] && event !== 'metrics').join(' ')).toBe(wanted);
});

step(
  /^the stream of "(\w+)" has (?:the|a) "(\w+)" event with:$/,
  async (scenario, name: string, event: string, table: StepData) => {
    const found = (await wholeStream(scenario, name)).filter((frame) => frame.event === event);
    const missed = found.map(({ data }) => mismatches(data, table.raw()));
    expect(missed, `the stream has ${found.length} events ${event}`).toContainEqual([]);
  },
);

step(
  /^the stream of "(\w+)" has the tokens (\d+) to (\d+)$/,
  async (scenario, name: string, first: number, last: number) => {
    const frames = await wholeStream(scenario, name);
    expect(indicesOf(frames)).toEqual(Array.from({ length: last - first + 1 }, (_, place) => first + place));
  },
);

async function textsOf(scenario: Scenario, list: string): Promise<string[]> {
  const texts: string[] = [];
  for (const name of namesIn(list)) texts.push(tokensOf(await wholeStream(scenario, name)).join('|'));
  expect(texts.every((text) => text.length > 0)).toBe(true);
  return texts;
}

step(new RegExp(`^${NAMES} said (the same|different things)$`), async (scenario, list: string, how: string) => {
  const texts = await textsOf(scenario, list);
  expect(new Set(texts).size).toBe(how === 'the same' ? 1 : texts.length);
});

const EVENTS = `subscription ($id: UUID!) { taskEvents(taskId: $id) { __typename seq
  ... on TaskTokens { tokens } ... on TaskEnded { tokensOut canceled } ... on TaskFailed { error { code } } } }`;

step(/^GraphQL tells of "(\w+)" what REST tells$/, async (scenario, name: string) => {
  const answers = await scenario.doors.subscribe(EVENTS, { id: scenario.taskId(name) });
  const events = answers.map(({ data }) => data.taskEvents as { __typename: string; seq: number; tokens?: string[] });
  const rest = await wholeStream(scenario, name);
  expect(events.flatMap(({ tokens }) => tokens ?? [])).toEqual(tokensOf(rest));
  expect(events.at(0)?.__typename).toBe('TaskStarted');
  expect(events.at(-1)?.__typename).toBe(rest.at(-1)?.event === 'end' ? 'TaskEnded' : 'TaskFailed');
});
