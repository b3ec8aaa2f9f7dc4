/** Readers on two nodes: a task ends when the last of them, wherever it was, has gone; also when its node was killed. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { TestNode } from '../support/nodes.js';
import { bodyReader, post, taskRequest } from '../support/rest.js';

let database: TestDatabase;
let a: TestNode;
let b: TestNode;
beforeAll(async () => {
  database = await createDatabase();
  a = await TestNode.make(database, [{ id: 'of-a', slots: 4 }]);
  b = await TestNode.make(database, [{ id: 'of-b', slots: 4 }]);
  await Promise.all([a.start(), b.start()]);
}, 90_000);
afterAll(async () => {
  await Promise.allSettled([a.end('SIGINT'), b.end('SIGINT')]);
  await Promise.all([a.remove(), b.remove()]);
  await database[Symbol.asyncDispose]();
});

const reader = (node: TestNode, taskId: string, query = '') =>
  bodyReader(`${node.url}/v1/tasks/${taskId}/stream${query}`);

/** A task on node `a`, for which a reader asked on `a` that it ends with its readers. */
async function submit(via: TestNode): Promise<string> {
  const task = taskRequest({ model_ref: 'of-a-7b', max_tokens: 4000, deadline_ms: 240_000 });
  expect((await post(via.url, '/v1/tasks', task)).status).toBe(202);
  await expect.poll(async () => (await rowOf(task.task_id))?.status, { timeout: 10_000 }).toBe('STREAMING');
  return task.task_id;
}

async function rowOf(taskId: string) {
  const [row] = await database.query('SELECT status, finish_reason AS reason FROM tasks WHERE id = $1', [taskId]);
  return row;
}
const CANCELED = { status: 'CANCELED', reason: 'disconnect' };
const here = (taskId: string) =>
  database.query(
    `SELECT n.url FROM task_readers r JOIN nodes n ON n.id = r.node_id WHERE r.task_id = $1 AND r.gone_at IS NULL`,
    [taskId],
  );

describe('readers on two nodes', { timeout: 120_000 }, () => {
  it('count alike, also those that came before anybody asked', async () => {
    const taskId = await submit(a);
    const [early, late] = [await reader(b, taskId), await reader(a, taskId, '?cancel_on_disconnect=1000')];
    await expect.poll(() => here(taskId)).toHaveLength(2);
    const control = await submit(b);
    const only = await reader(a, control, '?cancel_on_disconnect=2000');
    await Promise.all([late.leave(), only.leave()]);
    await expect.poll(() => rowOf(control), { timeout: 10_000 }).toEqual(CANCELED);
    expect(await rowOf(taskId)).toMatchObject({ status: 'STREAMING' });
    await early.leave();
    await expect.poll(() => rowOf(taskId), { timeout: 10_000 }).toEqual(CANCELED);
  });

  it('that were on a node that is killed are missed with it, and those that come to the other in time are not', async () => {
    const [left, kept] = [await submit(a), await submit(a)];
    for (const id of [left, kept]) await reader(b, id, '?cancel_on_disconnect=3000');
    for (const id of [left, kept]) await expect.poll(() => here(id)).toHaveLength(1);
    await b.end('SIGKILL');
    const returned = await reader(a, kept);
    await expect.poll(() => rowOf(left), { timeout: 40_000, interval: 250 }).toEqual(CANCELED);
    expect(await rowOf(kept)).toMatchObject({ status: 'STREAMING' });
    await returned.leave();
    await expect.poll(() => rowOf(kept), { timeout: 10_000 }).toEqual(CANCELED);
    await b.start();
  });

  it('that were on the node that also ran the task are missed with both', async () => {
    const [left, back] = [await submit(b), await submit(b)];
    for (const id of [left, back]) await reader(a, id, '?cancel_on_disconnect=3000');
    for (const id of [left, back]) await expect.poll(() => here(id)).toHaveLength(1);
    await a.end('SIGKILL');
    const waiting = await reader(b, back);
    await expect.poll(() => rowOf(left), { timeout: 60_000, interval: 250 }).toEqual(CANCELED);
    expect(await rowOf(back)).not.toEqual(CANCELED);
    await a.start();
    await expect.poll(() => rowOf(back), { timeout: 30_000 }).toMatchObject({ status: 'STREAMING' });
    await waiting.leave();
    await expect.poll(() => rowOf(back), { timeout: 10_000 }).toEqual(CANCELED);
  });

  it('of a node that starts again are waited for', async () => {
    const taskId = await submit(b);
    await reader(a, taskId, '?cancel_on_disconnect=30000');
    await expect.poll(() => here(taskId)).toHaveLength(1);
    expect(await a.end('SIGINT')).toBe(0);
    await a.start();
    const gone = () =>
      database.query("SELECT gone_at > now() - interval '15 s' AS anew FROM task_readers WHERE task_id = $1", [taskId]);
    expect(await gone()).toEqual([{ anew: true }]);
    expect((await rowOf(taskId))?.status).not.toBe('CANCELED');
    const returned = await reader(a, taskId);
    await expect.poll(() => here(taskId)).toHaveLength(1);
    await returned.leave();
    expect((await post(a.url, `/v1/tasks/${taskId}/cancel`, {})).status).toBe(204);
  });
});
