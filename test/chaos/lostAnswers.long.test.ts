/**
 * Fault 8: the connection breaks after a statement was sent and before its answer comes, or before it is sent, for every
 * statement that changes something. What became of it is found out, nothing is done twice, and nobody waits for long.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CutProxy, type Fate, through } from '../support/cutProxy.js';
import { gql } from '../support/graphql.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { type Confirmed, expectInvariants } from '../support/invariants.js';
import { planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { endOf } from '../support/operations.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { submitUntilAcknowledged } from '../support/returningReader.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const FATES: readonly Fate[] = ['written', 'not sent'];
const TOKENS = 30;
/** Much less than a lease takes to run out: what became of it is looked up, not waited for. */
const SOON_MS = 8_000;
const PATIENCE_MS = 25_000;

let world: World;
let watch: SystemWatch;
let proxy: CutProxy | null = null;
let undisturbed = '';
let cuts = 0;
const acknowledged = new Map<string, string | null>();
const readers: { taskId: string; frames: SseFrame[] }[] = [];
const cancels: Confirmed[] = [];

beforeAll(async () => {
  const calls = await logCalls();
  const config = simConfig({ replicas: 1, slots: 2, tokensPerSecond: 150, env: calls.env });
  world = await startWorld({
    config,
    databaseUrl: through((made) => {
      proxy = made;
    }),
  });
  const { database } = world;
  await callWitness(database);
  watch = await SystemWatch.begin({ database, planes: [planeOfWorld(world)], calls });
  const first = await submit();
  undisturbed = tokensOf(await read(first)).join('');
  acknowledged.set(first, undisturbed);
});
afterAll(async () => {
  console.log(`fault 8: ${cuts} connections cut at a statement`);
  await world?.[Symbol.asyncDispose]();
  await proxy?.[Symbol.asyncDispose]();
});

async function submit(overrides: Record<string, unknown> = {}): Promise<string> {
  const task = taskRequest({ seed: 5, max_tokens: TOKENS, ...overrides });
  expect(await submitUntilAcknowledged(() => world.url, task, PATIENCE_MS)).toBe(true);
  acknowledged.set(task.task_id, task.max_tokens === TOKENS ? undisturbed : null);
  return task.task_id;
}

async function read(taskId: string): Promise<SseFrame[]> {
  const frames = await readStream(world.url, taskId);
  readers.push({ taskId, frames });
  return frames;
}

/** Does it with the connection cut at that statement, which it has to run. */
async function cutAt<Result>(name: string, fate: Fate, work: () => Promise<Result>): Promise<Result> {
  if (proxy === null) throw new Error('there is no proxy');
  const struck = proxy.cutAt({ name, fate });
  const [result] = await Promise.all([work(), struck]);
  cuts += 1;
  return result;
}

async function rowOf(taskId: string) {
  const [row] = await world.database.query(
    `SELECT status, attempts, chunks, (extract(epoch FROM ended_at - created_at) * 1000)::float8 AS "tookMs"
     FROM tasks WHERE id = $1`,
    [taskId],
  );
  if (row === undefined) throw new Error(`no task ${taskId}`);
  return row;
}

async function expectUnharmed(taskId: string): Promise<void> {
  const row = await rowOf(taskId);
  expect(row).toMatchObject({ status: 'SUCCEEDED', attempts: 1 });
  expect(row.tookMs).toBeLessThan(SOON_MS);
}

/** As a client does that wants to be sure. */
async function cancel(taskId: string): Promise<void> {
  const asked = async () => (await post(world.url, `/v1/tasks/${taskId}/cancel`, {})).status;
  await expect.poll(asked).toBe(204);
  const { status, chunks } = await rowOf(taskId);
  expect(status).toBe('CANCELED');
  cancels.push({ taskId, status, chunks });
}

/** Two tasks that take the slots for long. */
async function fill(): Promise<string[]> {
  const ids = [await submit({ max_tokens: 3_500 }), await submit({ max_tokens: 3_500 })];
  const streaming = async () => (await Promise.all(ids.map(rowOf))).map(({ status }) => status);
  await expect.poll(streaming).toEqual(['STREAMING', 'STREAMING']);
  return ids;
}

describe.each(FATES)('a connection cut, the statement %s', (fate) => {
  it.each(['queue_submit', 'queue_claim', 'task_append', 'task_finish'])('%s', async (name) => {
    const taskId = await cutAt(name, fate, async () => {
      const id = await submit();
      await read(id);
      return id;
    });
    await expectUnharmed(taskId);
  });

  it('task_append of a task that could not be run again', async () => {
    const taskId = await cutAt('task_append', fate, async () => {
      const id = await submit({ determinism: 'best_effort' });
      await read(id);
      return id;
    });
    await expectUnharmed(taskId);
  });

  it('task_requeue, when an engine dies', async () => {
    const taskId = await submit({ max_tokens: 300 });
    const streaming = async () => (await rowOf(taskId)).status;
    await expect.poll(streaming).toBe('STREAMING');
    const [engine] = await world.database.query('SELECT pid FROM replicas');
    await cutAt('task_requeue', fate, async () => process.kill(engine?.pid, 'SIGKILL'));
    expect((await read(taskId)).at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 300 } });
    expect(await rowOf(taskId)).toMatchObject({ status: 'SUCCEEDED', attempts: 2 });
  }, 60_000);

  it('task_end_queued, by a cancel and by a deadline', async () => {
    const running = await fill();
    const waiting = await submit();
    acknowledged.set(waiting, null);
    const reading = read(waiting);
    await cutAt('task_end_queued', fate, () => cancel(waiting));
    expect((await reading).at(-1)).toMatchObject({ event: 'end', data: { canceled: true } });
    const late = await submit({ deadline_ms: 1_200 });
    acknowledged.set(late, null);
    const end = await cutAt('task_end_queued', fate, () => read(late));
    expect(end.at(-1)).toMatchObject({ event: 'error', data: { code: 'DEADLINE_UNMET' } });
    for (const id of running) await cancel(id);
  });

  it.each(['task_request_cancel', 'task_finish', 'task_cancel_confirmed', 'lease_release'])(
    '%s, when a task is cancelled that runs',
    async (name) => {
      const [one, other] = await fill();
      await cutAt(name, fate, () => cancel(one ?? ''));
      await cancel(other ?? '');
      expect((await read(one ?? '')).at(-1)).toMatchObject({ event: 'end', data: { canceled: true } });
    },
  );

  it('lease_renew', async () => {
    const running = await fill();
    await cutAt('lease_renew', fate, async () => {});
    const statuses = async () => (await Promise.all(running.map(rowOf))).map(({ status }) => status);
    expect(await statuses()).toEqual(['STREAMING', 'STREAMING']);
    for (const id of running) await cancel(id);
  });

  it('operation_insert, operation_update and journal_append, of a drain and a resume', async () => {
    for (const name of ['operation_insert', 'operation_update', 'journal_append']) {
      for (const ask of ['drainPool(input: { pool: "sim", deadlineMs: 5000 })', 'resumePool(input: { pool: "sim" })']) {
        const id = await cutAt(name, fate, async () => {
          const { data } = await gql(
            world.url,
            `mutation { op: ${ask} { __typename ... on OperationAccepted { operation { id } } ... on Refusal { message } } }`,
          );
          expect(data.op.__typename, JSON.stringify(data)).toBe('OperationAccepted');
          return data.op.operation.id;
        });
        expect(await endOf(world.url, id)).toMatchObject({ state: 'SUCCEEDED' });
      }
    }
    const [open] = await world.database.query(
      "SELECT count(*)::int AS open FROM operations WHERE state IN ('PENDING', 'RUNNING')",
    );
    expect(open).toEqual({ open: 0 });
  });

  it('journal_append of an event of a replica: it is there once', async () => {
    const [engine] = await world.database.query("SELECT pid FROM replicas WHERE state = 'READY'");
    await cutAt('journal_append', fate, async () => process.kill(engine?.pid, 'SIGKILL'));
    const states = async () => (await world.database.query('SELECT state, pid FROM replicas'))[0];
    await expect.poll(async () => (await states())?.pid).not.toBe(engine?.pid);
    await expect.poll(async () => (await states())?.state).toBe('READY');
    const moves = async () =>
      (await world.database.query("SELECT detail FROM pool_events WHERE kind = 'replica_state' ORDER BY seq")).map(
        ({ detail }) => detail,
      );
    await expect.poll(async () => (await moves()).at(-1)?.to).toBe('READY');
    for (const [at, { from }] of (await moves()).entries()) {
      if (at > 0) expect(from).toBe((await moves())[at - 1]?.to);
    }
  }, 60_000);
});

it('all of it: I1 to I14', async () => {
  const evidence = await watch.evidence({ acknowledged, readers, cancels, patienceMs: PATIENCE_MS });
  await expectInvariants('answers lost', evidence);
});
