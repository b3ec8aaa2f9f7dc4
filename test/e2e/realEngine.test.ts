/** The whole control plane over real llama-servers: what the simulator claims of them is true of them. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { sendSignal } from '../../src/host/procfs.js';
import { pollUntil } from '../../src/runtime/wait.js';
import {
  REAL_CTX,
  RealEngine,
  type ReplicaRow,
  realConfig,
  realEngineOrReason,
  replicaRow,
  replicaRows,
} from '../support/realEngine.js';
import { indicesOf, post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { writeTinyModel } from '../support/tinyModel.js';
import { startWorld, type World } from '../support/world.js';

/** Long enough for something to happen in the middle: the tiny model says 700 to 7000 tokens per second. */
const LONG = 2000;
const SOON = { timeout: 10_000, interval: 20 };
const POOLS = [
  // Nothing is saved there: it is what lets slots be erased.
  { id: 'double', replicas: 1, slots: 2, flags: ['--slot-save-path', tmpdir()] },
  { id: 'embed', replicas: 1, slots: 2, flags: ['--embedding', '--pooling', 'mean'] },
  { id: 'lone', replicas: 1, slots: 1 },
  { id: 'pair', replicas: 2, slots: 1 },
  { id: 'rank', replicas: 1, slots: 1, flags: ['--reranking'] },
];

vi.setConfig({ testTimeout: 60_000 });

const server = await realEngineOrReason();
const reason = 'unavailable' in server ? ` (SKIPPED: ${server.unavailable})` : '';
const withEngine = describe.skipIf('unavailable' in server);

let folder: string;
let modelRef: string;
let world: World;

beforeAll(async () => {
  if ('unavailable' in server) return;
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-real-'));
  const modelPath = join(folder, 'tiny.gguf');
  await writeTinyModel(modelPath);
  modelRef = `file:${modelPath}`;
  world = await startWorld({ config: realConfig({ serverFile: server.file, modelPath, pools: POOLS }) });
  // A pool is ready with its first replica.
  const isReady = async () => (await replicaRows(world, 'pair')).every((replica) => replica.state === 'READY');
  const areReady = await pollUntil(isReady, { everyMs: SOON.interval, deadlineMs: SOON.timeout });
  if (!areReady) throw new Error(`a replica of pair is not ready\n${world.logLines().join('')}`);
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

function request(pool: string, overrides: Record<string, unknown> = {}) {
  const placement = { mode: 'pin', pin_pool_id: pool };
  return taskRequest({ model_ref: modelRef, ctx: REAL_CTX, placement, ...overrides });
}

async function submit(pool: string, overrides: Record<string, unknown> = {}): Promise<string> {
  const body = request(pool, overrides);
  const response = await post(world.url, '/v1/tasks', body);
  expect(response.status, await response.clone().text()).toBe(202);
  return body.task_id;
}

async function textOf(taskId: string): Promise<string> {
  const frames = await readStream(world.url, taskId);
  expect(frames.at(-1)).toMatchObject({ event: 'end' });
  return tokensOf(frames).join('');
}

async function taskRow(taskId: string): Promise<Record<string, unknown>> {
  const [row] = await world.database.query<Record<string, unknown>>(`SELECT * FROM tasks WHERE id = $1`, [taskId]);
  if (row === undefined) throw new Error(`no task ${taskId}`);
  return row;
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/** Reads a stream to its end, and does `act` once when it has come to token `index`. */
async function readAndAct<Result>(taskId: string, index: number, act: () => Promise<Result>) {
  let acting: Promise<Result> | undefined;
  const frames = await readStream(world.url, taskId, {
    until: (frame) => {
      if (frame.event === 'token' && frame.data.i === index) acting ??= act();
      return false;
    },
  });
  if (acting === undefined) throw new Error(`the stream has no token ${index}: ${JSON.stringify(frames.at(-1))}`);
  return { frames, result: await acting };
}

/** Kills the engine that runs the task, without grace. All are frozen first: some streams end before a look-up does. */
async function killEngineOf(taskId: string, replicas: readonly ReplicaRow[]): Promise<ReplicaRow> {
  const signalAll = (signal: NodeJS.Signals) => {
    for (const { pid } of replicas) if (pid !== null) sendSignal(pid, signal);
  };
  signalAll('SIGSTOP');
  try {
    const { replica_id } = await taskRow(taskId);
    const killed = replicas.find((replica) => replica.id === replica_id);
    if (killed === undefined || killed.pid === null) throw new Error(`${replica_id} has no engine to kill`);
    sendSignal(killed.pid, 'SIGKILL');
    return killed;
  } finally {
    signalAll('SIGCONT');
  }
}

/**
 * A task of `LONG` tokens whose engine is killed while it decodes, and ready again. On a busy machine the engine may be done
 * before the first tokens are seen here; that kill hit nothing, and another task is tried.
 */
async function killInTheMiddle(pool: string, overrides: Record<string, unknown>) {
  for (let attempt = 1; attempt <= 5; attempt += 1) {
    const replicas = await replicaRows(world, pool);
    const taskId = await submit(pool, { max_tokens: LONG, ...overrides });
    const { frames, result: killed } = await readAndAct(taskId, 20, () => killEngineOf(taskId, replicas));
    await expectRestarted(killed);
    const row = await taskRow(taskId);
    if (row.status !== 'SUCCEEDED' || row.attempts !== 1) return { taskId, frames, killed, row };
  }
  throw new Error('five engines in a row were done before they were killed');
}

/** One more restart, one other process, ready again. */
async function expectRestarted(killed: ReplicaRow): Promise<void> {
  const now = () => replicaRow(world, killed.id);
  await expect.poll(now, SOON).toMatchObject({ state: 'READY', restart_count: killed.restart_count + 1 });
  expect((await now()).pid).toBeGreaterThan(0);
  expect((await now()).pid).not.toBe(killed.pid);
}

withEngine(`a pool of real llama-servers${reason}`, () => {
  it('has simulated GPUs, says so, and gives the engine none of them', async () => {
    const rows = await world.database.query(`SELECT id, simulated FROM pools ORDER BY id`);
    expect(rows).toEqual(POOLS.map(({ id }) => ({ id, simulated: true })));
    const answer = await post(world.url, '/graphql', { query: '{ pools { name simulated } }' });
    expect(await answer.json()).toEqual({ data: { pools: POOLS.map(({ id }) => ({ name: id, simulated: true })) } });
    expect((await RealEngine.of(world, 'lone-0')).variable('CUDA_VISIBLE_DEVICES')).toBe('-1');
  });

  it('starts an engine of one slot so that it can repeat itself', async () => {
    for (const id of ['lone-0', 'pair-0', 'pair-1']) {
      const engine = await RealEngine.of(world, id);
      expect(engine.arguments()).toEqual(expect.arrayContaining(['-nocb', '--no-cache-prompt']));
    }
    expect((await RealEngine.of(world, 'double-0')).arguments()).not.toContain('-nocb');
  });

  it('gives the same bytes for the same seed and others for another', async () => {
    const ask = async (seed: number) => textOf(await submit('lone', { seed, max_tokens: 300 }));
    const first = await ask(7);
    expect(Buffer.byteLength(first)).toBeGreaterThan(300);
    expect(await ask(8)).not.toBe(first);
    expect(await ask(7)).toBe(first);
  });

  it('gives the same bytes on another replica', async () => {
    const taskIds = await Promise.all([1, 2].map(() => submit('pair', { seed: 7, max_tokens: 600 })));
    const [first, second] = await Promise.all(taskIds.map(textOf));
    const replicas = await Promise.all(taskIds.map(async (id) => (await taskRow(id)).replica_id));
    expect(replicas.sort()).toEqual(['pair-0', 'pair-1']);
    expect(second).toBe(first);
  });

  it('decodes two slots of one engine together', async () => {
    const engine = await RealEngine.of(world, 'double-0');
    const before = await engine.decodes();
    const taskIds = await Promise.all([1, 2].map((seed) => submit('double', { seed, max_tokens: LONG })));
    const [first, second] = await Promise.all(taskIds.map(textOf));
    const after = await engine.decodes();
    expect(second).not.toBe(first);
    // One after the other they would take exactly 1 slot per decode. The engine counts, so no moment has to be caught.
    const slotsPerDecode = (after.slots - before.slots) / (after.count - before.count);
    expect(slotsPerDecode).toBeGreaterThan(1.2);
    expect(slotsPerDecode).toBeLessThanOrEqual(2);
  });

  it.each(['lone', 'double'])('has freed the slot of a cancelled task when it answers (%s)', async (pool) => {
    const engine = await RealEngine.of(world, `${pool}-0`);
    const before = await engine.decodes();
    const taskId = await submit(pool, { max_tokens: 3500 });
    const { frames, result } = await readAndAct(taskId, 5, async () => {
      const { status } = await post(world.url, `/v1/tasks/${taskId}/cancel`, {});
      const busy = await engine.busySlots();
      return { status, busy, decodes: [await engine.decodes(), await engine.decodes()] };
    });
    const [after, later] = result.decodes;
    expect(result).toMatchObject({ status: 204, busy: [] });
    expect(later).toEqual(after);
    expect(Number(after?.count) - before.count).toBeLessThan(3500);
    const row = await taskRow(taskId);
    expect(row).toMatchObject({ status: 'CANCELED', cancel_slot_free_at: expect.any(Date) });
    expect(row.tokens_out).toBeLessThan(3500);
    expect(frames.at(-1)).toMatchObject({ event: 'end', data: { canceled: true, tokens_out: row.tokens_out } });
    expect(indicesOf(frames)).toEqual(upTo(Number(row.tokens_out)));
  });
});

withEngine(`a context counted by the real tokenizer${reason}`, () => {
  // A character it does not know is one token per byte; "▁" (3 bytes) and "</s>" (4 bytes) are one token each. Every
  // prompt begins with <s>, and with a space where text follows.
  const tooLong: [string, string][] = [
    ['few characters that are many tokens', '漢'.repeat(1400)],
    ['just as many bytes as would fit', 'k'.repeat(REAL_CTX - 2)],
    ['special tokens, one too many', '</s>'.repeat(REAL_CTX - 1)],
  ];
  it.each(tooLong)('refuses %s, and writes nothing', async (_name, prompt) => {
    const body = request('lone', { prompt, max_tokens: 1 });
    const response = await post(world.url, '/v1/tasks', body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'INVALID_PARAMS', field: 'prompt', retriable: false });
    expect(await world.database.query(`SELECT id FROM tasks WHERE id = $1`, [body.task_id])).toEqual([]);
  });

  const fitting: [string, number][] = [
    ['▁', 4002],
    ['</s>', 4001],
  ];
  it.each(fitting)('takes %s × 4000, which just fits, and runs it to its last token', async (piece, tokensIn) => {
    const prompt = piece.repeat(4000);
    const room = REAL_CTX - tokensIn;
    const oneMore = await post(world.url, '/v1/tasks', request('lone', { prompt, max_tokens: room + 1 }));
    expect(oneMore.status).toBe(400);
    expect(await oneMore.json()).toMatchObject({ code: 'INVALID_PARAMS', field: 'max_tokens' });
    const taskId = await submit('lone', { prompt, max_tokens: room });
    const frames = await readStream(world.url, taskId);
    expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: room } });
    expect(indicesOf(frames)).toEqual(upTo(room));
    expect(await taskRow(taskId)).toMatchObject({ status: 'SUCCEEDED', tokens_in: tokensIn, finish_reason: 'length' });
  });
});

withEngine(`a real engine killed in the middle of a stream${reason}`, () => {
  it.each([
    ['its restarted replica', 'lone'],
    ['another replica', 'pair'],
  ])('is started again, and a strict stream goes on byte by byte on %s', async (_name, pool) => {
    const overrides = { seed: 11, determinism: 'strict' };
    const undisturbed = await textOf(await submit(pool, { max_tokens: LONG, ...overrides }));
    const { taskId, frames, killed, row } = await killInTheMiddle(pool, overrides);
    expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: LONG } });
    expect(indicesOf(frames)).toEqual(upTo(LONG));
    expect(tokensOf(frames).join('')).toBe(undisturbed);
    expect(await textOf(taskId)).toBe(undisturbed);
    // One attempt for each engine: none is wasted on one that is gone.
    expect(row).toMatchObject({ status: 'SUCCEEDED', tokens_out: LONG, attempts: 2 });
    expect(row.replica_id === killed.id).toBe(pool === 'lone');
  });

  it('is started again, and a best_effort stream ends with an error', async () => {
    const { frames, row } = await killInTheMiddle('lone', { determinism: 'best_effort' });
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'WORKER_RESET', retriable: true } });
    const { length } = tokensOf(frames);
    expect(length).toBeLessThan(LONG);
    expect(indicesOf(frames)).toEqual(upTo(length));
    expect(row).toMatchObject({ status: 'FAILED', attempts: 1, tokens_out: length });
    expect(await textOf(await submit('lone', { max_tokens: 5 }))).not.toBe('');
  });
});

withEngine(`the prompt cache of a real llama-server${reason}`, () => {
  const prompt = 'What the sea said to the river, and the river to the stone, was known to the garden. '.repeat(4);
  const info = async (sessionId: string) =>
    (await (await fetch(`${world.url}/v1/sessions/${sessionId}`)).json()) as Record<string, unknown>;

  /** Runs a turn; how many tokens of its prompt the engine read, by its own count. */
  async function turn(pool: string, overrides: Record<string, unknown>): Promise<number> {
    const engine = await RealEngine.of(world, `${pool}-0`);
    const before = await engine.promptTokens();
    await textOf(await submit(pool, { max_tokens: 8, prompt, determinism: 'best_effort', ...overrides }));
    // It counts a moment after it has answered.
    await expect.poll(async () => (await engine.promptTokens()).read, SOON).toBeGreaterThan(before.read);
    return (await engine.promptTokens()).read - before.read;
  }

  it.each(['lone', 'double'])(
    'spares a warm turn on %s what it read before, and a strict or cold one nothing',
    async (pool) => {
      const session_id = randomUUID();
      const whole = await turn(pool, { session_id, determinism: 'strict' });
      await turn(pool, { session_id });
      const longer = `${prompt} And then?`;
      const warm = await turn(pool, { session_id, kv_hint: 'reuse', prompt: longer });
      expect(warm).toBeLessThan(whole / 2);
      expect(await turn(pool, { session_id, kv_hint: 'reuse', determinism: 'strict' })).toBe(whole);
      expect(await turn(pool, { session_id, kv_hint: 'cold' })).toBe(whole);
      expect(await info(session_id)).toMatchObject({ turns: 5, kv_warmth: true });
    },
  );

  it('is told in bytes, by the shape of the model, and emptied with its session', async () => {
    const engine = await RealEngine.of(world, 'double-0');
    const session_id = randomUUID();
    const slotOf = async (id: string) => {
      const [row] = await world.database.query<{ last_slot: number }>('SELECT last_slot FROM sessions WHERE id = $1', [
        id,
      ]);
      return row?.last_slot ?? -1;
    };
    const whole = await turn('double', { session_id, determinism: 'strict' });
    // Keys and values of f16, as many in every layer: a multiple of what one token takes.
    const { kv_bytes } = await info(session_id);
    expect(Number(kv_bytes)).toBeGreaterThan(whole);
    expect(Number(kv_bytes) % (whole + 8)).toBe(0);
    const slot = await slotOf(session_id);
    expect((await fetch(`${world.url}/v1/sessions/${session_id}`, { method: 'DELETE' })).status).toBe(204);
    await expect.poll(() => world.database.query('SELECT 1 FROM session_evictions'), SOON).toEqual([]);
    expect(await engine.erase(slot)).toBe(0);
    const other = randomUUID();
    await turn('double', { session_id: other, determinism: 'strict' });
    expect(await engine.erase(await slotOf(other))).toBeGreaterThanOrEqual(whole);
  });
});

withEngine(`a real engine that embeds, or ranks${reason}`, () => {
  const ask = (pool: string, workload: string, inputs: readonly string[]) =>
    submit(pool, { workload, inputs, prompt: workload === 'rerank' ? 'rivo' : '', max_tokens: 0 });
  /** Each of a few hundred tokens, so that all of them keep it busy for a while. */
  const many = Array.from({ length: 150 }, (_, index) => `${index} `.padEnd(440, 'k'));

  async function resultOf(taskId: string): Promise<Record<string, unknown>> {
    const frames = await readStream(world.url, taskId);
    expect(frames.map(({ event }) => event)).toEqual(['started', 'end']);
    return frames[1]?.data.result as Record<string, unknown>;
  }

  it('gives a vector of each text, in order, and takes no completions', async () => {
    const texts = ['rivo', 'a stone', 'rivo', ...many.slice(0, 20)];
    const { embeddings } = (await resultOf(await ask('embed', 'embedding', texts))) as { embeddings: number[][] };
    expect(embeddings).toHaveLength(texts.length);
    const rounded = embeddings.map((vector) => vector.map((value) => value.toFixed(4)).join());
    expect(rounded[2]).toBe(rounded[0]);
    expect(new Set(rounded).size).toBe(texts.length - 1);
    const refused = await post(world.url, '/v1/tasks', request('embed', { max_tokens: 1 }));
    expect(await refused.json()).toMatchObject({
      code: 'INVALID_PARAMS',
      message: expect.stringContaining('completion'),
    });
  });

  it('gives every document its place, best first', async () => {
    const { ranking } = (await resultOf(await ask('rank', 'rerank', ['a', 'b', 'rivo', 'c']))) as {
      ranking: { index: number; score: number }[];
    };
    expect(ranking.map(({ index }) => index).sort()).toEqual([0, 1, 2, 3]);
    expect(ranking.map(({ score }) => score)).toEqual(ranking.map(({ score }) => score).sort((a, b) => b - a));
  });

  it('says that a text is longer than it can read at once, as a mistake of the caller', async () => {
    const frames = await readStream(world.url, await ask('embed', 'embedding', ['k'.repeat(700)]));
    const message = expect.stringContaining('too large to process');
    expect(frames.at(-1)).toMatchObject({
      event: 'error',
      data: { code: 'INVALID_PARAMS', retriable: false, message },
    });
  });

  it('has let go of a cancelled call when that answers', async () => {
    const engine = await RealEngine.of(world, 'embed-0');
    const taskId = await ask('embed', 'embedding', many);
    await expect.poll(() => engine.busySlots(), { interval: 5 }).not.toEqual([]);
    expect((await post(world.url, `/v1/tasks/${taskId}/cancel`, {})).status).toBe(204);
    expect(await engine.busySlots()).toEqual([]);
    expect(await taskRow(taskId)).toMatchObject({ status: 'CANCELED', cancel_slot_free_at: expect.any(Date) });
  });

  it('makes a call again on the next engine when it is killed in the middle', async () => {
    const killed = await replicaRow(world, 'embed-0');
    const engine = await RealEngine.of(world, 'embed-0');
    const taskId = await ask('embed', 'embedding', many);
    await expect.poll(() => engine.busySlots(), { interval: 5 }).not.toEqual([]);
    sendSignal(engine.pid, 'SIGKILL');
    const { embeddings } = (await resultOf(taskId)) as { embeddings: number[][] };
    expect(embeddings).toHaveLength(many.length);
    expect(await taskRow(taskId)).toMatchObject({ status: 'SUCCEEDED', attempts: 2 });
    await expectRestarted(killed);
  });
});
