/** A herd of readers that is cut off and comes back at once is served whole, from no more database connections than before. */
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { post, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const READERS = 400;
const TOKENS = 600;
const SEEN = 20;
/** Of the one plane; so many may its pools have, whatever happens. */
const MAX_CONNECTIONS = 20;
/** What the plane asks for by itself may need one of the connections that were idle a moment ago. */
const OWN_WORK = 2;

let world: World;
beforeAll(async () => {
  world = await startWorld({ config: simConfig({ replicas: 1, slots: 1, tokensPerSecond: 30 }) });
});
afterAll(() => world?.[Symbol.asyncDispose]());

interface Reader {
  readonly response: IncomingMessage;
  readonly indices: () => number[];
  readonly text: () => string;
}

async function open(taskId: string, after: number | null): Promise<Reader> {
  const headers = after === null ? {} : { 'last-event-id': String(after) };
  const request = get(`${world.url}/v1/tasks/${taskId}/stream`, { headers, agent: false });
  const [response] = (await once(request, 'response', { signal: AbortSignal.timeout(25_000) })) as [IncomingMessage];
  request.on('error', () => {});
  let text = '';
  response.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  response.on('error', () => {});
  const indices = () => [...text.matchAll(/^event: token\nid: (\d+)$/gm)].map(([, id]) => Number(id));
  return { response, indices, text: () => text };
}

const herd = (taskId: string, after: number | null) =>
  Promise.all(Array.from({ length: READERS }, () => open(taskId, after)));

async function connections(): Promise<number> {
  const count = `SELECT count(*)::int AS n FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'llama-orch%'`;
  return (await world.database.query<{ n: number }>(count))[0]?.n ?? Number.NaN;
}

/** The most connections that are seen while something goes on. */
async function mostDuring(act: () => Promise<void>): Promise<number> {
  let most = await connections();
  let over = false;
  const acting = act().finally(() => {
    over = true;
  });
  while (!over) most = Math.max(most, await connections());
  await acting;
  return most;
}

async function readWhole(readers: readonly Reader[], after: number): Promise<void> {
  const wanted = Array.from({ length: TOKENS - after }, (_, index) => after + index + 1);
  for (const reader of readers) {
    await expect.poll(() => reader.text().includes('event: end\n'), { timeout: 60_000 }).toBe(true);
    expect(reader.indices()).toEqual(wanted);
  }
}

it('while the task runs, and when it has ended', { timeout: 180_000 }, async () => {
  const task = taskRequest({ max_tokens: TOKENS, deadline_ms: 120_000 });
  expect((await post(world.url, '/v1/tasks', task)).status).toBe(202);
  const first = await herd(task.task_id, null);
  for (const reader of first) await expect.poll(() => reader.indices().length).toBeGreaterThanOrEqual(SEEN);
  const before = await connections();

  const running = await mostDuring(async () => {
    for (const { response } of first) response.destroy();
    const back = await herd(task.task_id, SEEN);
    await readWhole(back, SEEN);
  });
  // A running task is read from memory.
  expect(running).toBeLessThanOrEqual(before + OWN_WORK);

  // One that has ended is read from the database, by as many as its pool has connections.
  const ended = await mostDuring(async () => readWhole(await herd(task.task_id, SEEN), SEEN));
  expect(ended).toBeLessThanOrEqual(MAX_CONNECTIONS);
  console.log(
    `connections: ${before} before, ${running} while ${READERS} came back, ${ended} when they read what had ended`,
  );
});
