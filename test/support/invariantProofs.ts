/**
 * A sign of life after each fault, which is evidence as well: a task that is submitted twice and read to its end, one that is
 * cancelled while it runs, and what is told of those of before, which stays the same.
 */
import { expect } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { gql } from './graphql.js';
import type { Asked } from './invariantFacts.js';
import type { Confirmed, Evidence } from './invariants.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from './rest.js';

const TOKENS = 8;
/** Long enough to be cancelled at any speed that tests have. */
const LONG_TOKENS = 2_000;
/** Tasks of before that are looked at again. */
const REMEMBERED = 3;
const SERVED_MS = 30_000;

const TOLD = `query ($id: UUID!) { task(taskId: $id) { id taskId sessionId correlationId status attempts workload engine modelRef
  prompt seed maxTokens determinism createdAt startedAt endedAt firstTokenAt decodeTimeMs finishReason text tokensIn tokensOut
  error { code message } transcript { id } receipt { chainHash } pool { name } replica { name } } }`;

export class Proofs {
  readonly acknowledged = new Map<string, string | null>();
  readonly readers: { readonly taskId: string; readonly frames: readonly SseFrame[] }[] = [];
  readonly repeated = new Map<string, unknown[]>();
  readonly cancels: Confirmed[] = [];
  readonly #database: Asked;
  readonly #request: Readonly<Record<string, unknown>>;
  #text: string | null = null;
  #told: { readonly taskId: string; readonly before: unknown }[] = [];

  /** @param request what tasks have that is not by default. */
  constructor(database: Asked, request: Readonly<Record<string, unknown>> = {}) {
    this.#database = database;
    this.#request = { seed: 11, deadline_ms: 120_000, ...request };
  }

  /** Submits at one door, and again at another. */
  async run(url: string, again: string = url): Promise<void> {
    const task = taskRequest({ ...this.#request, max_tokens: TOKENS });
    const receipt = await this.#submit(url, task);
    const frames = await readStream(url, task.task_id);
    const text = tokensOf(frames).join('');
    this.#text ??= text;
    this.acknowledged.set(task.task_id, this.#text);
    this.readers.push({ taskId: task.task_id, frames });
    this.repeated.set(task.task_id, [receipt, await this.#submit(again, task)]);
    await this.#cancelOne(url);
    const before = await tellOf(url, task.task_id);
    this.#told = [...this.#told.slice(-REMEMBERED + 1), { taskId: task.task_id, before }];
  }

  /** As it is told now, and was told before. */
  async views(url: string): Promise<NonNullable<Evidence['views']>> {
    const now = this.#told.map(async ({ taskId, before }) => {
      return { what: `task ${taskId}`, before, after: await tellOf(url, taskId) };
    });
    return Promise.all(now);
  }

  async #cancelOne(url: string): Promise<void> {
    const task = taskRequest({ ...this.#request, max_tokens: LONG_TOKENS });
    await this.#submit(url, task);
    this.acknowledged.set(task.task_id, null);
    await readStream(url, task.task_id, { until: ({ event }) => event === 'token' });
    const answer = await post(url, `/v1/tasks/${task.task_id}/cancel`, {});
    expect(answer.status, await answer.text()).toBe(204);
    const [row] = await this.#database.query<{ status: string; chunks: number }>(
      'SELECT status, chunks FROM tasks WHERE id = $1',
      [task.task_id],
    );
    this.cancels.push({ taskId: task.task_id, status: row?.status ?? 'lost', chunks: row?.chunks ?? 0 });
  }

  /** @returns its receipt; a pool may be on its way back from the fault. */
  async #submit(url: string, task: Record<string, unknown>): Promise<unknown> {
    let receipt: unknown;
    const isTaken = async () => {
      const answer = await post(url, '/v1/tasks', task);
      receipt = await answer.json();
      return answer.status === 202;
    };
    const taken = await pollUntil(isTaken, { everyMs: 50, deadlineMs: SERVED_MS });
    expect(taken, JSON.stringify(receipt)).toBe(true);
    return receipt;
  }
}

async function tellOf(url: string, taskId: string): Promise<unknown> {
  const { data, errors } = await gql(url, TOLD, { id: taskId });
  expect(errors).toBeUndefined();
  return { task: data.task, stream: await readStream(url, taskId) };
}
