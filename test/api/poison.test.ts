/** A task that kills whatever runs it: it is given up after a few starts, and those behind it are served. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { LONG } from '../support/long.js';
import { post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

/** The engine dies of it, after more than a second: neither a self-test nor a short task gets there. */
const DEADLY_TOKEN = 60;
const TOKENS_PER_SECOND = 50;

let world: World | null = null;
let watch: SystemWatch;
beforeAll(async () => {
  if (!LONG) return;
  const flags = ['--fault', `crash-at-token:${DEADLY_TOKEN}`];
  const calls = await logCalls();
  const { env } = calls;
  const config = simConfig({ replicas: 1, slots: 1, tokensPerSecond: TOKENS_PER_SECOND, flags, env });
  world = await startWorld({ config });
  const { database } = world;
  await callWitness(database);
  watch = await SystemWatch.begin({ database, planes: [planeOfWorld(world)], calls });
});
afterAll(() => world?.[Symbol.asyncDispose]());

it.runIf(LONG)(
  'ends with an error after four starts, with the tokens of one run, and the next task runs',
  async () => {
    if (world === null) throw new Error('the world did not start');
    const { url, database } = world;
    const poison = taskRequest({ max_tokens: 2 * DEADLY_TOKEN });
    const next = taskRequest({ max_tokens: 10 });
    for (const task of [poison, next]) expect((await post(url, '/v1/tasks', task)).status).toBe(202);
    const frames = await readStream(url, poison.task_id);
    const told = { code: 'WORKER_RESET', message: expect.stringContaining('it was started 4 times') };
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: told });
    expect(tokensOf(frames)).toHaveLength(DEADLY_TOKEN);
    expect((await readStream(url, next.task_id)).at(-1)).toMatchObject({ event: 'end' });
    const rows = await database.query('SELECT status, attempts FROM tasks WHERE id = ANY($1) ORDER BY queue_seq', [
      [poison.task_id, next.task_id],
    ]);
    expect(rows).toEqual([
      { status: 'FAILED', attempts: 4 },
      { status: 'SUCCEEDED', attempts: 1 },
    ]);
    const acknowledged = new Map([poison, next].map(({ task_id }) => [task_id, null]));
    const readers = [{ taskId: poison.task_id, frames }];
    const evidence = await watch.evidence({ acknowledged, readers, patienceMs: 60_000 });
    await expectInvariants('a deadly task', evidence);
  },
  60_000,
);
