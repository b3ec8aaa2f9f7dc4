/** Operations whose row somebody else has closed: the pool is not acted on any more. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { beginOperation, endOf, readOperation, statesOf } from '../support/operations.js';
import { post, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;
beforeAll(async () => {
  world = await startWorld({ config: simConfig({ replicas: 1, slots: 1, tokensPerSecond: 50 }) });
});
afterAll(() => world[Symbol.asyncDispose]());

/** As a node does that takes this one for lost. */
async function closeRows(): Promise<void> {
  const closed = await world.database.query(`UPDATE operations SET state = 'FAILED', outcome = 'interrupted',
    revision = revision + 1, ended_at = now() WHERE state IN ('PENDING', 'RUNNING') RETURNING id`);
  expect(closed).toHaveLength(1);
}

/** Of the operation that ended last, in the journal. */
async function told(kind: string) {
  const sql = 'SELECT message, detail FROM pool_events WHERE kind = $1 ORDER BY seq DESC LIMIT 1';
  return (await world.database.query(sql, [kind]))[0];
}

const RESUME = 'resumePool(input: { pool: "sim" })';

describe('an operation whose row was closed by another node', () => {
  it.runIf(LONG)('a drain stops nobody any more', async () => {
    const task = taskRequest({ max_tokens: 300 });
    expect((await post(world.url, '/v1/tasks', task)).status).toBe(202);
    const row = async () => (await world.database.query('SELECT status, attempts FROM tasks'))[0];
    await expect.poll(async () => (await row())?.status).toBe('STREAMING');
    const id = await beginOperation(world.url, 'drainPool(input: { pool: "sim", deadlineMs: 3000 })');
    await expect.poll(async () => statesOf(await readOperation(world.url, id)).wait_for_running_tasks).toBe('RUNNING');
    await closeRows();
    await expect
      .poll(() => told('drain_ended'))
      .toMatchObject({
        message: 'drain: interrupted',
        detail: { closed_elsewhere: true },
      });
    expect(await row()).toEqual({ status: 'STREAMING', attempts: 1 });
    expect(await readOperation(world.url, id)).toMatchObject({ state: 'FAILED', outcome: 'interrupted' });
    expect(await endOf(world.url, await beginOperation(world.url, RESUME))).toMatchObject({ state: 'SUCCEEDED' });
    await expect.poll(row).toEqual({ status: 'SUCCEEDED', attempts: 1 });
  });

  it('a reload goes back to the model that the pool had', async () => {
    const id = await beginOperation(world.url, 'reloadPool(input: { pool: "sim", newModelRef: "other-7b" })');
    await expect.poll(async () => statesOf(await readOperation(world.url, id)).start_beside).toBe('RUNNING');
    await closeRows();
    await expect
      .poll(() => told('reload_ended'))
      .toMatchObject({ detail: { end: 'roll_back', closed_elsewhere: true } });
    const { data } = await gql(world.url, '{ pools { modelRef ready replicas { state } } }');
    expect(data.pools).toMatchObject([{ modelRef: 'sim-7b', ready: true, replicas: [{ state: 'READY' }] }]);
  });
});
