/** Random requests against a running server: whatever is sent, the answer is one of the contract, and never our fault. */
import { randomInt, randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { expect } from 'vitest';
import type { Operation } from '../../src/rest/openapi.js';
import { OPERATIONS } from './contract.js';
import { ask, get, post, taskRequest } from './rest.js';
import { requestOf, type WireRequest } from './schemaArbitrary.js';
import type { World } from './world.js';

export interface FuzzOptions {
  readonly runs: number;
  /** The pool that takes the tasks, and its model. */
  readonly poolId: string;
  readonly modelRef: string;
  /** A pool to be drained and reloaded meanwhile. */
  readonly sparePoolId: string;
}

const WEIGHTS: Readonly<Record<string, number>> = { streamTask: 16 };
/** Most tasks of the fuzz have ended by then. */
const STREAM_READ_MS = 300;

async function send(url: string, { method, path, headers, body }: WireRequest): Promise<Response> {
  const init = { headers, ...(body !== null && { body: new TextEncoder().encode(body) }) };
  return ask(url, method, path, init);
}

/** Of an answer, and of a stream as far as it comes in a moment: what is read is checked (contractFetch). */
async function readSome({ body }: Response): Promise<void> {
  const reader = body?.getReader();
  if (reader === undefined) return;
  const timer = setTimeout(() => void reader.cancel(), STREAM_READ_MS);
  try {
    while (!(await reader.read()).done);
  } finally {
    clearTimeout(timer);
  }
}

/** Prints the seed; LLORCH_FUZZ_SEED gives one. @returns how often each operation answered with what. */
export async function fuzzContract(world: World, options: FuzzOptions): Promise<Map<string, number>> {
  const seed = Number(process.env.LLORCH_FUZZ_SEED ?? randomInt(2 ** 31));
  console.log(`contract fuzz: ${options.runs} requests, LLORCH_FUZZ_SEED=${seed}`);
  const counts = new Map<string, number>();
  const taskIds = Array.from({ length: 3 }, () => randomUUID());
  // One whose stream there is from the first request on.
  const first = taskRequest({ task_id: taskIds[0], model_ref: options.modelRef, max_tokens: 8 });
  expect((await post(world.url, '/v1/tasks', first)).status).toBe(202);
  const property = fc.asyncProperty(requests(options, taskIds), async (request) => {
    const response = await send(world.url, request);
    const count = `${request.operationId} ${response.status}`;
    counts.set(count, (counts.get(count) ?? 0) + 1);
    await readSome(response);
    expect(response.status, JSON.stringify(request)).not.toBe(500);
  });
  await fc.assert(property, { numRuns: options.runs, seed, endOnFailure: false });
  expect((await get(world.url, '/health')).status).toBe(200);
  expect(world.logLines().filter((line) => line.includes('request failed'))).toEqual([]);
  return counts;
}

function requests(
  { poolId, modelRef, sparePoolId }: FuzzOptions,
  taskIds: readonly string[],
): fc.Arbitrary<WireRequest> {
  const meaningful = {
    ...{ task_id: [...taskIds, randomUUID()], session_id: taskIds, workload: ['completion'], model_ref: [modelRef] },
    ...{
      engine: ['llamacpp'],
      ctx: [1, 512, 4096],
      prompt: ['', 'The sea.'],
      max_tokens: [1, 8],
      deadline_ms: [1, 60_000],
    },
    ...{ pin_pool_id: [poolId], prefer_pools: [[], [poolId]], avoid_pools: [[]], new_model_ref: [modelRef] },
    ...{ id: ['a-model'], digest: [`sha256:${'0'.repeat(64)}`], source_url: ['file:///models/a.gguf'], parent: [null] },
    ...{ require_device_mask: [null], placement: [null, {}], seed: [1, null] },
  };
  const ids = [...taskIds, sparePoolId, 'a-model', randomUUID()];
  /** Most of the requests for what takes most. */
  const each = (operation: Operation) => ({
    weight:
      WEIGHTS[operation.operationId] ??
      (operation.requestBody !== undefined ? 8 : operation.path.includes('{') ? 3 : 1),
    arbitrary: requestOf(operation, meaningful, ids),
  });
  return fc.oneof(...OPERATIONS.map(each));
}
