/**
 * Fault 16: a cancel against every step of a task's life, at moments that a seed decides. Whoever wins, there is one winner,
 * and nothing is stored after a cancel was confirmed.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { delay } from '../../src/runtime/wait.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { type Confirmed, expectInvariants } from '../support/invariants.js';
import { planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { between, random } from '../support/random.js';
import { post, readStream, type SseFrame, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const SEEDS = (process.env.CANCEL_SEEDS ?? '1,2,3,4,5,6,7,8').split(',').map(Number);
const TOKENS = 12;
const CAPACITY = 3;

let world: World;
let watch: SystemWatch;
const cancels: Confirmed[] = [];
const readers: { taskId: string; frames: SseFrame[] }[] = [];
const acknowledged = new Map<string, null>();
/** By step: how its tasks ended, and how often. */
const outcomes = new Map<string, Map<string, number>>();

beforeAll(async () => {
  const calls = await logCalls();
  const slots = { replicas: 1, slots: 2, tokensPerSecond: 300, env: calls.env };
  world = await startWorld({ config: simConfig({ ...slots, capacity: CAPACITY, fullPolicy: 'drop-lru' }) });
  const { database } = world;
  await callWitness(database);
  watch = await SystemWatch.begin({ database, planes: [planeOfWorld(world)], calls });
});
afterAll(async () => {
  const rows = [...outcomes].map(
    ([step, counts]) => `  ${step.padEnd(34)}${[...counts].map(([status, count]) => `${status} ${count}`).join(', ')}`,
  );
  console.log([`fault 16: ${cancels.length} cancels answered, seeds ${SEEDS}`, ...rows].join('\n'));
  await world?.[Symbol.asyncDispose]();
});

async function submit(overrides: Record<string, unknown> = {}): Promise<string> {
  const task = taskRequest({ max_tokens: TOKENS, ...overrides });
  const answer = await post(world.url, '/v1/tasks', task);
  expect(answer.status, await answer.text()).toBe(202);
  acknowledged.set(task.task_id, null);
  return task.task_id;
}

async function rowOf(taskId: string) {
  const [row] = await world.database.query<{ status: string; chunks: number }>(
    'SELECT status, chunks FROM tasks WHERE id = $1',
    [taskId],
  );
  if (row === undefined) throw new Error(`no task ${taskId}`);
  return row;
}

async function cancel(taskId: string, afterMs = 0): Promise<void> {
  await delay(afterMs);
  const answer = await post(world.url, `/v1/tasks/${taskId}/cancel`, {});
  expect(answer.status, await answer.text()).toBe(204);
  cancels.push({ taskId, ...(await rowOf(taskId)) });
}

/** Reads along, and cancels when it has seen so many tokens. */
async function cancelAtToken(taskId: string, tokens: number, afterMs: number): Promise<void> {
  let canceling: Promise<void> | null = null;
  const until = (frame: SseFrame, all: readonly SseFrame[]) => {
    const seen = all.filter(({ event }) => event === 'token').length;
    if (seen >= tokens && frame.event !== 'end') canceling ??= cancel(taskId, afterMs);
    return false;
  };
  const frames = await readStream(world.url, taskId, { until });
  readers.push({ taskId, frames });
  await (canceling ?? cancel(taskId));
}

/** With both slots taken for as long as it lasts. */
async function whileFull<Result>(work: () => Promise<Result>): Promise<Result> {
  const taking = [await submit({ max_tokens: 3_500 }), await submit({ max_tokens: 3_500 })];
  for (const id of taking) await expect.poll(async () => (await rowOf(id)).status, { interval: 5 }).toBe('STREAMING');
  try {
    return await work();
  } finally {
    for (const id of taking) await cancel(id);
  }
}

async function setFault(fault: string): Promise<void> {
  const [row] = await world.database.query<{ endpoint: string }>("SELECT endpoint FROM replicas WHERE state = 'READY'");
  const answer = await post(row?.endpoint ?? '', '/sim/control', { fault });
  expect(answer.ok, await answer.text()).toBe(true);
}

type Chance = () => number;
/** @returns the tasks that it was about. */
type Step = (chance: Chance) => Promise<string[]>;

const STEPS: Readonly<Record<string, Step>> = {
  'before the claim': (chance) =>
    whileFull(async () => {
      const id = await submit();
      await cancel(id, between(chance, 0, 20));
      return [id];
    }),
  'at the claim': async (chance) => {
    const ids = await Promise.all([submit(), submit(), submit()]);
    await Promise.all(ids.map((id) => cancel(id, between(chance, 0, 15))));
    return ids;
  },
  'at the start of the stream': async (chance) => {
    const id = await submit();
    await cancelAtToken(id, 0, between(chance, 0, 6));
    return [id];
  },
  'at the first token': async (chance) => {
    const id = await submit();
    await cancelAtToken(id, 1, between(chance, 0, 6));
    return [id];
  },
  'at the last token': async (chance) => {
    const id = await submit();
    await cancelAtToken(id, TOKENS - between(chance, 1, 4), between(chance, 0, 10));
    return [id];
  },
  'after the end': async (chance) => {
    const id = await submit();
    await readStream(world.url, id);
    await cancel(id, between(chance, 0, 6));
    return [id];
  },
  'twice at once': async (chance) => {
    const ids = await Promise.all([submit({ max_tokens: 60 }), submit()]);
    await Promise.all([...ids, ...ids].map((id) => cancel(id, between(chance, 0, 40))));
    return ids;
  },
  'at the deadline in the queue': (chance) =>
    whileFull(async () => {
      const id = await submit({ deadline_ms: 300 });
      await cancel(id, between(chance, 200, 620));
      return [id];
    }),
  'when displaced': (chance) =>
    whileFull(async () => {
      const waiting = [];
      for (let place = 0; place < CAPACITY; place += 1) waiting.push(await submit({ priority: 'batch' }));
      const newcomer = delay(between(chance, 0, 4)).then(() => submit());
      await Promise.all(waiting.map((id) => cancel(id, between(chance, 0, 8))));
      const ids = [...waiting, await newcomer];
      await cancel(ids.at(-1) ?? '');
      return ids;
    }),
  'while it is sent back to the queue': async (chance) => {
    await setFault('error-frame-at-token:0');
    try {
      const id = await submit();
      await cancel(id, between(chance, 0, 500));
      return [id];
    } finally {
      await setFault('none');
    }
  },
};

describe('a cancel', () => {
  it.each(Object.entries(STEPS))('%s', { timeout: 30_000 + SEEDS.length * 2_000 }, async (name, step) => {
    const counts = new Map<string, number>();
    outcomes.set(name, counts);
    for (const seed of SEEDS) {
      for (const id of await step(random(seed * 101 + name.length))) {
        const { status } = await rowOf(id);
        counts.set(status, (counts.get(status) ?? 0) + 1);
      }
    }
  });

  it('has left nothing that is wrong', async () => {
    const evidence = await watch.evidence({ acknowledged, readers, cancels, patienceMs: 30_000 });
    await expectInvariants('fault 16, cancels', evidence);
  });
});
