/** Fault 15: a hundred equal submissions at once, over two nodes, and others under the same id: one task, one run. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfServer, SystemWatch } from '../support/invariantWatch.js';
import { poolsAt, TestNode } from '../support/nodes.js';
import { random, shuffled } from '../support/random.js';
import { post, readStream, taskRequest } from '../support/rest.js';

const SEEDS = [1, 2, 3];
const EQUAL = 100;
const OTHERS = 20;

let database: TestDatabase;
let a: TestNode;
let b: TestNode;
let watch: SystemWatch;
const repeated = new Map<string, unknown[]>();
const acknowledged = new Map<string, null>();

beforeAll(async () => {
  database = await createDatabase();
  await callWitness(database);
  const calls = await logCalls();
  const pools = [{ id: 'shared', slots: 4, tokensPerSecond: 200, env: calls.env }];
  a = await TestNode.make(database, pools);
  b = await TestNode.make(database, pools);
  await Promise.all([a.start(), b.start()]);
  await bothReady();
  const planes = [planeOfServer('node a', () => a.server), planeOfServer('node b', () => b.server)];
  watch = await SystemWatch.begin({ database, planes, calls, request: { model_ref: 'shared-7b' } });
});
afterAll(async () => {
  await Promise.all([a?.remove(), b?.remove()]);
  await database?.[Symbol.asyncDispose]();
});

async function send(url: string, body: Record<string, unknown>): Promise<{ status: number; answer: unknown }> {
  const answer = await post(url, '/v1/tasks', body);
  return { status: answer.status, answer: await answer.json() };
}

async function bothReady(): Promise<void> {
  const states = async () => (await poolsAt(a.url)).get('shared')?.replicas.map(({ state }) => state);
  const areReady = async () => (await states())?.join() === 'READY,READY';
  expect(await pollUntil(areReady, { everyMs: 50, deadlineMs: 25_000 })).toBe(true);
}

it('are one task, whoever is first', async () => {
  for (const seed of SEEDS) {
    const body = taskRequest({ model_ref: 'shared-7b', max_tokens: 40 });
    const other = { ...body, prompt: 'Something else.' };
    const bodies = shuffled(random(seed), [...Array(EQUAL).fill(body), ...Array(OTHERS).fill(other)]);
    const answers = await Promise.all(bodies.map((one, at) => send((at % 2 === 0 ? a : b).url, one)));
    const of = (which: unknown) => answers.filter((_, at) => bodies[at] === which);
    const [winner, loser] = of(body)[0]?.status === 202 ? [body, other] : [other, body];
    const receipts = of(winner);
    expect(new Set(receipts.map(({ status }) => status))).toEqual(new Set([202]));
    expect(new Set(of(loser).map(({ status }) => status))).toEqual(new Set([409]));
    repeated.set(
      body.task_id,
      receipts.map(({ answer }) => answer),
    );
    acknowledged.set(body.task_id, null);
    expect((await readStream(b.url, body.task_id)).at(-1)?.event).toBe('end');
    // Long after, and at a node that was started anew, the first receipt stands.
    if (seed === SEEDS[0]) {
      await b.end('SIGKILL');
      await b.start();
      await bothReady();
    }
    for (const url of [a.url, b.url]) {
      repeated.get(body.task_id)?.push((await send(url, winner)).answer);
      expect((await send(url, loser)).status).toBe(409);
    }
  }
  const evidence = await watch.evidence({ acknowledged, repeated, patienceMs: 30_000 });
  await expectInvariants('fault 15, equal submissions', evidence);
  console.log(`fault 15: ${SEEDS.length} x ${EQUAL} equal submissions and ${OTHERS} others, over two nodes`);
}, 120_000);
