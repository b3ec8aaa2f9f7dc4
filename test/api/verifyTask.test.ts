/** Receipts, and tasks that are run again to see whether they say the same. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { chainOf } from '../../src/services/streams/log.js';
import { gql } from '../support/graphql.js';
import { post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { beginVerification, receiptOf, type VerificationView, verdictOf } from '../support/verification.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;
beforeAll(async () => {
  // Slow enough for two to be on the engine at once.
  world = await startWorld({ config: simConfig({ replicas: 1, slots: 2, capacity: 4, tokensPerSecond: 200 }) });
});
afterAll(() => world[Symbol.asyncDispose]());
beforeEach(() => setFault('none'));

async function setFault(fault: string): Promise<void> {
  const [row] = await world.database.query<{ endpoint: string }>('SELECT endpoint FROM replicas');
  const answer = await post(row?.endpoint ?? '', '/sim/control', { fault: [fault] });
  expect(answer.ok, await answer.text()).toBe(true);
}

async function submit(overrides: Record<string, unknown> = {}): Promise<string> {
  const body = taskRequest(overrides);
  expect((await post(world.url, '/v1/tasks', body)).status).toBe(202);
  return body.task_id;
}

async function ended(overrides: Record<string, unknown> = {}): Promise<{ taskId: string; tokens: string[] }> {
  const taskId = await submit(overrides);
  const frames = await readStream(world.url, taskId);
  expect(frames.at(-1)).toMatchObject({ event: 'end' });
  return { taskId, tokens: tokensOf(frames) };
}

async function verify(taskId: string): Promise<VerificationView> {
  return verdictOf(world.url, await beginVerification(world.url, taskId));
}

describe('the receipt of a task', () => {
  it('tells what its run depended on, and chains its tokens', async () => {
    const { taskId, tokens } = await ended({ seed: 9 });
    expect(await receiptOf(world.url, taskId)).toEqual({
      engineVersion: expect.stringMatching(/\S/),
      modelId: 'sim-7b',
      modelDigest: null,
      launchArgs: expect.arrayContaining(['--protocol', 'llamacpp']),
      gpuUuids: [expect.stringMatching(/^SIM-/)],
      seed: '9',
      samplerProfile: { version: 'default-1', temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 },
      claim: { kind: 'BYTE_EXACT', because: expect.stringContaining('simulator') },
      coResidentMax: 0,
      tokens: 20,
      chainHash: chainOf(tokens),
    });
  });

  it('counts the tasks that shared its engine', async () => {
    const slow = [await submit({ max_tokens: 60 }), await submit({ max_tokens: 60 })];
    await Promise.all(slow.map((taskId) => readStream(world.url, taskId)));
    for (const taskId of slow) expect((await receiptOf(world.url, taskId))?.coResidentMax).toBe(1);
  });

  it('is there for a stopped run, and not for one that never was', async () => {
    const cancel = (taskId: string) => post(world.url, `/v1/tasks/${taskId}/cancel`, {});
    const long = { max_tokens: 2000 };
    const running = [await submit(long), await submit(long)];
    const waiting = await submit(long);
    await cancel(waiting);
    expect(await receiptOf(world.url, running[0] ?? '')).toBeNull();
    for (const taskId of running) {
      await readStream(world.url, taskId, { until: ({ event }) => event === 'token' });
      await cancel(taskId);
      const tokens = tokensOf(await readStream(world.url, taskId));
      expect(await receiptOf(world.url, taskId)).toMatchObject({ tokens: tokens.length, chainHash: chainOf(tokens) });
    }
    expect(await receiptOf(world.url, waiting)).toBeNull();
  });
});

describe('verifyTask', () => {
  const CLEAN = { firstDivergentIndex: null, expected: null, got: null };

  it('finds a run that is repeated to the byte identical, and keeps that with the task', async () => {
    const { taskId } = await ended();
    const found = await verify(taskId);
    expect(found).toMatchObject({ verdict: 'IDENTICAL', ...CLEAN, reasons: [], task: { taskId } });
    expect(found.rerun).toMatchObject({ status: 'SUCCEEDED', priority: 'BATCH', verificationOf: { id: found.id } });
    const query = `query ($taskId: UUID!) { task(taskId: $taskId) { verificationOf { id }
      verifications(first: 10) { edges { node { id verdict } } } } }`;
    const again = await verify(taskId);
    const { data } = await gql(world.url, query, { taskId });
    const nodes = [again, found].map(({ id, verdict }) => ({ node: { id, verdict } }));
    expect(data.task).toEqual({ verificationOf: null, verifications: { edges: nodes } });
    expect(await (await fetch(`${world.url}/metrics`)).text()).toMatch(
      /task_verifications_total\{engine="llamacpp",pool_id="sim",result="IDENTICAL"\} 2/,
    );
  });

  it('names the first token that is not repeated', async () => {
    const { taskId, tokens } = await ended({ seed: 3 });
    await setFault('eos-at-token:5'); // the second run ends there
    const early = { firstDivergentIndex: 5, expected: tokens[5], got: null };
    expect(await verify(taskId)).toMatchObject({ verdict: 'DIVERGED', ...early, reasons: [] });
    const short = await ended({ seed: 3 });
    await setFault('none');
    const late = { firstDivergentIndex: 5, expected: null, got: tokens.slice(5).join('').slice(0, 200) };
    expect(await verify(short.taskId)).toMatchObject({ verdict: 'DIVERGED', ...late });
  });

  it('finds a log that was changed after the run', async () => {
    const { taskId, tokens } = await ended();
    const changed = JSON.stringify(tokens.with(7, ' never'));
    await world.database.query(
      `DELETE FROM stream_chunks WHERE task_id = $1 AND kind = 'tokens' AND ord >
         (SELECT min(ord) FROM stream_chunks WHERE task_id = $1 AND kind = 'tokens')`,
      [taskId],
    );
    await world.database.query(
      `UPDATE stream_chunks SET payload = $2, first_seq = 1, last_seq = $3 WHERE task_id = $1 AND kind = 'tokens'`,
      [taskId, changed, tokens.length],
    );
    const found = await verify(taskId);
    expect(found).toMatchObject({ verdict: 'DIVERGED', firstDivergentIndex: 7, expected: ' never' });
    expect(found.reasons.map(({ code }) => code)).toEqual(['LOG_CHANGED']);
    expect(found.got).toBe(tokens.slice(7).join('').slice(0, ' never'.length));
  });

  it('compares a stopped task as far as it came', async () => {
    const taskId = await submit({ max_tokens: 200 });
    await readStream(world.url, taskId, { until: ({ event }) => event === 'token' });
    await post(world.url, `/v1/tasks/${taskId}/cancel`, {});
    expect(await verify(taskId)).toMatchObject({ verdict: 'IDENTICAL', ...CLEAN });
  });

  it('says why runs cannot be compared', async () => {
    const { taskId } = await ended({ max_tokens: 400 });
    const id = await beginVerification(world.url, taskId);
    const [row] = await world.database.query<{ rerun_id: string }>(
      'SELECT rerun_id FROM task_verifications WHERE verdict IS NULL AND task_id = $1',
      [taskId],
    );
    await post(world.url, `/v1/tasks/${row?.rerun_id}/cancel`, {});
    const stopped = await verdictOf(world.url, id);
    expect(stopped).toMatchObject({ verdict: 'NOT_COMPARABLE', rerun: { status: 'CANCELED' }, ...CLEAN });
    expect(stopped.reasons[0]).toMatchObject({ code: 'RERUN_INCOMPLETE' });

    await world.database.query(`UPDATE tasks SET model_ref = 'gone-13b' WHERE id = $1`, [taskId]);
    const gone = await verify(taskId);
    expect(gone).toMatchObject({ verdict: 'NOT_COMPARABLE', rerun: null, ...CLEAN });
    expect(gone.reasons).toEqual([
      { code: 'NOT_ADMITTED', message: expect.stringContaining('gone-13b'), fix: expect.any(String) },
    ]);
  });

  it('has nothing to compare of a task that never ran', async () => {
    const busy = [await submit({ max_tokens: 2000 }), await submit({ max_tokens: 2000 })];
    const waiting = await submit();
    for (const taskId of [waiting, ...busy]) await post(world.url, `/v1/tasks/${taskId}/cancel`, {});
    const found = await verify(waiting);
    expect(found).toMatchObject({ verdict: 'NOT_COMPARABLE', rerun: null });
    expect(found.reasons[0]).toMatchObject({ code: 'NOTHING_TO_COMPARE' });
  });

  it('refuses as data: unknown, still running, queue full', async () => {
    const ask = async (taskId: string) => {
      const document = `mutation ($taskId: UUID!) { verifyTask(input: { taskId: $taskId }) {
        __typename ... on Refusal { code retriable field } } }`;
      return (await gql(world.url, document, { taskId })).data.verifyTask;
    };
    const missing = { __typename: 'NotFound', code: 'INVALID_PARAMS', retriable: false, field: 'task_id' };
    expect(await ask(randomUUID())).toEqual(missing);
    const { taskId } = await ended({ max_tokens: 1 });
    const before = await world.database.query('SELECT id FROM task_verifications');
    const long = { max_tokens: 3000, priority: 'batch' };
    const busy = [await submit(long), await submit(long)];
    for (const id of busy) await readStream(world.url, id, { until: ({ event }) => event === 'token' });
    expect(await ask(busy[0] ?? '')).toMatchObject({ __typename: 'Conflict', field: 'task_id' });
    const waiting = [await submit(long), await submit(long), await submit(long), await submit(long)];
    expect(await ask(taskId)).toMatchObject({ __typename: 'Backpressure', code: 'ADMISSION_REJECT', retriable: true });
    for (const id of [...waiting, ...busy]) await post(world.url, `/v1/tasks/${id}/cancel`, {});
    expect(await world.database.query('SELECT id FROM task_verifications')).toEqual(before);
  });
});
