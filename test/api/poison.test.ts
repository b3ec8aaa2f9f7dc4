/** A task that kills whatever runs it: it is given up after a few starts, and those behind it are served. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { expectInvariants } from '../support/invariants.js';
import { LONG } from '../support/long.js';
import { post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

/** The engine dies of it, after more than a second: neither a self-test nor a short task gets there. */
const DEADLY_TOKEN = 60;
const TOKENS_PER_SECOND = 50;

let world: World | null = null;
beforeAll(async () => {
  if (!LONG) return;
  const flags = ['--fault', `crash-at-token:${DEADLY_TOKEN}`];
  world = await startWorld({ config: simConfig({ replicas: 1, slots: 1, tokensPerSecond: TOKENS_PER_SECOND, flags }) });
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
    const rows = await database.query('SELECT status, attempts FROM tasks ORDER BY queue_seq');
    expect(rows).toEqual([
      { status: 'FAILED', attempts: 4 },
      { status: 'SUCCEEDED', attempts: 1 },
    ]);
    const acknowledged = new Map([poison, next].map(({ task_id }) => [task_id, null]));
    const readers = [{ taskId: poison.task_id, frames }];
    await expectInvariants('a deadly task', { database, acknowledged, readers, doors: [url] });
  },
  60_000,
);
