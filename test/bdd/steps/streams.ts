/** Streams of tasks as their readers get them over REST, and the same over GraphQL. */
import { expect } from 'vitest';
import { indicesOf, type SseFrame, tokensOf } from '../../support/rest.js';
import { eventually } from '../eventually.js';
import { mismatches } from '../matching.js';
import type { Scenario } from '../scenario.js';
import { showTask } from '../shows.js';
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

/** What the task had said when it was looked at just now is all that its readers get. */
step(/^"(\w+)" says nothing more$/, async (scenario, name: string) => {
  const said = async () => ((await showTask(scenario.doors, scenario.taskId(name))) as { tokensOut: number }).tokensOut;
  const tokensOut = await said();
  const frames = await wholeStream(scenario, name);
  expect(tokensOf(frames)).toHaveLength(tokensOut);
  expect(frames.at(-1)?.data).toMatchObject({ tokens_out: tokensOut });
  expect(await said()).toBe(tokensOut);
});

step(/^the stream of "(\w+)" has had metrics between its tokens$/, async (scenario, name: string) => {
  const isBetween = () => {
    const events = scenario.reader(name).frames.map(({ event }) => event);
    return /token metrics.* token/.test(events.join(' '));
  };
  await eventually(isBetween).toBe(true);
});

/** From that token on without a gap, to the end of the stream. */
step(/^the stream of "(\w+)" goes on at token (\d+)$/, async (scenario, name: string, first: number) => {
  const frames = await wholeStream(scenario, name);
  const indices = indicesOf(frames);
  expect(indices.length).toBeGreaterThan(0);
  expect(indices).toEqual(indices.map((_, place) => first + place));
  expect(frames.at(-1)?.event).toBe('end');
});

const EVENTS = `subscription ($id: UUID!) { taskEvents(taskId: $id) { __typename seq
  ... on TaskStarted { queuePosition } ... on TaskTokens { firstIndex tokens } ... on TaskMetrics { queueDepth kvWarmth }
  ... on TaskEnded { tokensOut canceled } ... on TaskFailed { error { code } } } }`;

interface TaskEvent {
  readonly __typename: string;
  readonly seq: number;
  readonly [field: string]: unknown;
}

const listeners = new WeakMap<Scenario, Map<string, Promise<TaskEvent[]>>>();

async function subscribed(scenario: Scenario, name: string): Promise<TaskEvent[]> {
  const answers = await scenario.doors.subscribe(EVENTS, { id: scenario.taskId(name) });
  return answers.map(({ data }) => data.taskEvents as TaskEvent);
}

/** From now on, beside the reader over REST. */
step(/^I listen to "(\w+)" over GraphQL$/, (scenario, name: string) => {
  const events = subscribed(scenario, name);
  // Told by the step that asks for them.
  events.catch(() => {});
  listeners.set(scenario, (listeners.get(scenario) ?? new Map()).set(name, events));
});

/** In the words of neither door: what stands where in a stream. */
function fromGraphQL({ __typename, seq, ...event }: TaskEvent): unknown[] {
  switch (__typename) {
    case 'TaskStarted':
      return [['started', seq, event.queuePosition]];
    case 'TaskTokens': {
      const first = Number(event.firstIndex);
      const tokens = event.tokens as string[];
      expect(seq).toBe(first + tokens.length);
      return tokens.map((text, place) => ['token', first + place + 1, text]);
    }
    case 'TaskMetrics':
      return [['metrics', event.queueDepth, event.kvWarmth]];
    case 'TaskEnded':
      return [['end', seq, event.tokensOut, event.canceled]];
    default:
      return [[__typename, seq, event]];
  }
}

function fromRest({ event, id, data }: SseFrame): unknown[] {
  switch (event) {
    case 'started':
      return ['started', Number(id), data.queue_position];
    case 'token':
      return ['token', Number(id), data.t];
    case 'metrics':
      return ['metrics', data.queue_depth, data.kv_warmth];
    case 'end':
      return ['end', Number(id), data.tokens_out, data.canceled ?? false];
    default:
      return [event, Number(id), data];
  }
}

/** To the one that listened while it ran, and to one that asks now. */
step(/^GraphQL tells of "(\w+)" what REST tells$/, async (scenario, name: string) => {
  const wanted = (await wholeStream(scenario, name)).map(fromRest);
  const live = await listeners.get(scenario)?.get(name);
  if (live === undefined) throw new Error(`nobody listened to ${name} over GraphQL`);
  expect(live.flatMap(fromGraphQL)).toEqual(wanted);
  expect((await subscribed(scenario, name)).flatMap(fromGraphQL)).toEqual(wanted);
});
