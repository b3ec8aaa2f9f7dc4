/** The same request with many seeds, on every replica of a pool: what each said, byte by byte. */
import { expect } from 'vitest';
import { chainOf } from '../../src/services/streams/log.js';
import { post, readStream, taskRequest, tokensOf } from './rest.js';
import { receiptOf } from './verification.js';
import type { World } from './world.js';

/** As many seeds are under way at once; the queue of a pool has room for more. */
const AT_ONCE = 16;
/** Which replica takes which task is not for a test to say; chance has brought all to all before that. */
const ROUNDS = 12;

export interface Question {
  readonly pool: string;
  readonly replicas: readonly string[];
  readonly seeds: readonly number[];
  /** Fields of the request besides seed and placement. */
  readonly request: Record<string, unknown>;
}

interface Said {
  readonly taskId: string;
  readonly replica: string;
  readonly text: string;
  readonly chainHash: string;
}

/** Seeds that differ in every way a seed can: small ones, next to each other, and beyond 32 bits. */
export function seedsUpTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => (index % 4 === 3 ? 2 ** 40 + index * 7919 : index));
}

/** Asks until every replica has answered every seed; then all answers to a seed are the same, and no two seeds' are. */
export async function expectByteExact(world: World, question: Question): Promise<void> {
  const texts = new Set<string>();
  for (let from = 0; from < question.seeds.length; from += AT_ONCE) {
    const seeds = question.seeds.slice(from, from + AT_ONCE);
    for (const [seed, said] of await answers(world, question, seeds)) {
      const [first] = said;
      if (first === undefined) throw new Error(`seed ${seed} was not asked`);
      for (const { text, chainHash, replica, taskId } of said) {
        const where = `seed ${seed} on ${replica}, against ${first.replica} (tasks ${taskId} and ${first.taskId})`;
        expect(text, where).toBe(first.text);
        expect(chainHash, where).toBe(first.chainHash);
      }
      texts.add(first.text);
    }
  }
  expect(texts.size).toBe(question.seeds.length);
  expect([...texts].every((text) => text.length > 0)).toBe(true);
}

/** By seed; each has been answered by every replica at least once. */
async function answers(world: World, question: Question, seeds: readonly number[]): Promise<Map<number, Said[]>> {
  const said = new Map<number, Said[]>(seeds.map((seed) => [seed, []]));
  const missing = () =>
    seeds.filter((seed) => new Set(said.get(seed)?.map(({ replica }) => replica)).size < question.replicas.length);
  for (let round = 0; missing().length > 0; round += 1) {
    if (round === ROUNDS) throw new Error(`not every replica was given the seeds ${missing().join(', ')}`);
    const copies = question.replicas.flatMap(() => missing());
    // Those of a seed one after the other, so that different replicas take them.
    copies.sort((one, other) => one - other);
    const taskIds = await Promise.all(copies.map((seed) => submit(world, question, seed)));
    for (const [index, taskId] of taskIds.entries()) {
      const seed = copies[index];
      if (seed !== undefined) said.get(seed)?.push(await answerOf(world, question, taskId));
    }
  }
  return said;
}

async function submit(world: World, { pool, request }: Question, seed: number): Promise<string> {
  const body = taskRequest({ ...request, seed, placement: { mode: 'pin', pin_pool_id: pool } });
  const response = await post(world.url, '/v1/tasks', body);
  expect(response.status, await response.text()).toBe(202);
  return body.task_id;
}

async function answerOf(world: World, { replicas }: Question, taskId: string): Promise<Said> {
  const frames = await readStream(world.url, taskId);
  expect(frames.at(-1)?.event).toBe('end');
  const tokens = tokensOf(frames);
  const receipt = await receiptOf(world.url, taskId);
  expect(receipt).toMatchObject({ claim: { kind: 'BYTE_EXACT' }, coResidentMax: 0, tokens: tokens.length });
  const chainHash = receipt?.chainHash ?? '';
  expect(chainHash).toBe(chainOf(tokens));
  const [row] = await world.database.query<{ replica: string; status: string; attempts: number }>(
    'SELECT replica_id AS replica, status::text, attempts FROM tasks WHERE id = $1',
    [taskId],
  );
  expect(row).toMatchObject({ status: 'SUCCEEDED', attempts: 1 });
  expect(replicas).toContain(row?.replica);
  return { taskId, replica: row?.replica ?? '', text: tokens.join(''), chainHash };
}
