import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { ask, get, post, readStream, type SseFrame, taskRequest } from '../support/rest.js';
import { allReady, startWorld, type World } from '../support/world.js';

const POOL = (id: string, ctx: number, devices: string, model = 'sim-7b') => `
  - id: ${id}
    engine: llamacpp
    model: ${model}
    ctx: ${ctx}
    devices: ${devices}
    replicas: 2
    slots: 2
    provisioning:
      mode: simulated
      simulated: { tokens_per_second: 500, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }`;
const CONFIG = `
gpu:
  mode: simulated
  devices: [{ name: Big, memory_bytes: 25769803776 }, { name: Small, memory_bytes: 12884901888 }]
pools:${POOL('alpha', 4096, '[0]')}${POOL('beta', 4096, '[0, 1]')}${POOL('narrow', 512, '[1]')}${POOL('other', 4096, '[1]', 'sim-1b')}
`;
const SOON = { timeout: 20_000, interval: 20 };

let world: World;

beforeAll(async () => {
  world = await startWorld({ config: CONFIG });
  await allReady(world);
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

interface Candidate {
  readonly pool: string;
  readonly rank: number | null;
  readonly refusedBecause: string | null;
  readonly rules: readonly { readonly rule: string; readonly passed: boolean; readonly message: string | null }[];
  readonly score: Record<string, unknown>;
}

const EXPLANATION = `chosen rule candidates { pool rank refusedBecause rules { rule passed message }
  score { ready preferred session predictedStartMs predictedEndMs slotsFree queueDepth vramFreeBytes } }`;

async function explain(
  input: Record<string, unknown>,
): Promise<{ chosen: string | null; rule: string; of: Map<string, Candidate> }> {
  const answer = await gql(
    world.url,
    `query ($input: SubmitTaskInput!) { explainPlacement(input: $input) { ${EXPLANATION} } }`,
    { input: { prompt: 'x', maxTokens: 5, modelRef: 'sim-7b', ctx: 1024, ...input } },
  );
  const { chosen, rule, candidates } = answer.data.explainPlacement;
  return { chosen, rule, of: new Map(candidates.map((candidate: Candidate) => [candidate.pool, candidate])) };
}

function broken(candidate: Candidate | undefined): string[] {
  return (candidate?.rules ?? []).filter(({ passed }) => !passed).map(({ rule }) => rule);
}

async function taskOf(taskId: string) {
  const { data } = await gql(
    world.url,
    `query ($taskId: UUID!) { task(taskId: $taskId) { pool { name } replica { name } placement { ${EXPLANATION} } } }`,
    { taskId },
  );
  return data.task;
}

/** Runs a task to its end. */
async function run(
  overrides: Record<string, unknown> = {},
): Promise<{ frames: SseFrame[]; pool: string; replica: string; taskId: string }> {
  const request = taskRequest({ ctx: 1024, max_tokens: 3, ...overrides });
  const answer = await post(world.url, '/v1/tasks', request);
  expect(answer.status, await answer.clone().text()).toBe(202);
  const frames = await readStream(world.url, request.task_id);
  const task = await taskOf(request.task_id);
  return { frames, pool: task.pool.name, replica: task.replica.name, taskId: request.task_id };
}

function warmth(frames: readonly SseFrame[]): unknown {
  return frames.find(({ event }) => event === 'metrics')?.data.kv_warmth;
}

describe('an explanation', () => {
  it('has a verdict of every rule for every pool, a rank and a score, and is the same what-if and stored', async () => {
    const whatIf = await explain({});
    expect(whatIf.chosen).toBe('alpha');
    expect([...whatIf.of.keys()].sort()).toEqual(['alpha', 'beta', 'narrow', 'other']);
    expect([...whatIf.of.values()].map(({ rules }) => rules.length)).toEqual([11, 11, 11, 11]);
    expect(broken(whatIf.of.get('narrow'))).toEqual(['CONTEXT']);
    expect(broken(whatIf.of.get('other'))).toEqual(['MODEL']);
    expect([broken(whatIf.of.get('alpha')), broken(whatIf.of.get('beta'))]).toEqual([[], []]);
    expect([whatIf.of.get('alpha')?.rank, whatIf.of.get('beta')?.rank, whatIf.of.get('other')?.rank]).toEqual([
      1,
      2,
      null,
    ]);
    expect(whatIf.of.get('alpha')?.score).toMatchObject({
      ready: true,
      preferred: false,
      session: false,
      slotsFree: 4,
    });
    expect(Number(whatIf.of.get('alpha')?.score.vramFreeBytes)).toBeGreaterThan(0);
    const [{ n } = { n: -1 }] = await world.database.query<{ n: number }>('SELECT count(*)::int AS n FROM tasks');
    expect(n).toBe(0);
    const { pool, taskId } = await run({ placement: { mode: 'auto', avoid_pools: ['alpha'] } });
    expect(pool).toBe('beta');
    const { placement } = await taskOf(taskId);
    const stored = placement.candidates.find((candidate: Candidate) => candidate.pool === 'alpha');
    expect(stored).toMatchObject({ rank: null, refusedBecause: 'avoided by the request' });
    expect(broken(stored)).toEqual(['AVOIDED']);
  });

  it('predicts an end once the engines of a pool have shown their speed', async () => {
    const pinned = (id: string) => ({ placement: { mode: 'pin', pin_pool_id: id } });
    for (const id of ['alpha', 'beta']) {
      for (const all of [1, 2])
        await Promise.all(Array.from({ length: 4 * all }, () => run({ ...pinned(id), max_tokens: 20 })));
    }
    const starts = async () => {
      const { of } = await explain({ maxTokens: 500 });
      return ['alpha', 'beta'].map((id) => of.get(id)?.score.predictedStartMs);
    };
    // A task has ended for its reader a moment before its slot is free.
    await expect.poll(starts).toEqual([0, 0]);
    const { rule, of } = await explain({ maxTokens: 500 });
    expect(rule).toContain('predicted end');
    for (const id of ['alpha', 'beta']) {
      // 500 tokens at 500 a second.
      expect(of.get(id)?.score.predictedEndMs).toBeGreaterThan(500);
      expect(of.get(id)?.score.predictedEndMs).toBeLessThan(5000);
    }
  });
});

describe('what the caller wants of the placement', () => {
  it.each([
    ['a pin', { mode: 'pin', pin_pool_id: 'beta' }, 'beta'],
    ['a preference', { mode: 'prefer', prefer_pools: ['beta'] }, 'beta'],
    ['a preference that cannot be had', { mode: 'prefer', prefer_pools: ['other'], avoid_pools: ['beta'] }, 'alpha'],
    ['pools to avoid', { avoid_pools: ['alpha', 'narrow'] }, 'beta'],
    ['a device mask', { require_device_mask: '0,1' }, 'beta'],
  ])('%s is followed', async (_name, placement, pool) => {
    expect((await run({ placement })).pool).toBe(pool);
  });

  it.each([
    ['a pin never falls back', { mode: 'pin', pin_pool_id: 'other' }, 'placement'],
    ['a pin of nothing', { mode: 'pin' }, 'placement.pin_pool_id'],
    ['no fallback', { mode: 'prefer', prefer_pools: ['other'], allow_fallback: false }, 'placement'],
    ['all avoided', { avoid_pools: ['alpha', 'beta'] }, 'placement'],
    ['a device mask that no pool has', { require_device_mask: '7' }, 'placement'],
  ])('%s: refused, with the field', async (_name, placement, field) => {
    const answer = await post(world.url, '/v1/tasks', taskRequest({ ctx: 1024, placement }));
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ code: 'INVALID_PARAMS', field });
  });

  it('gives the same in GraphQL', async () => {
    expect((await explain({ placement: { mode: 'PREFER', preferPools: ['beta'] } })).chosen).toBe('beta');
    const pinned = await explain({ placement: { mode: 'PIN', pinPoolId: 'other' } });
    expect([pinned.chosen, pinned.rule]).toEqual([null, 'pin']);
    expect(broken(pinned.of.get('alpha'))).toEqual(['PIN']);
    expect(broken(pinned.of.get('other'))).toEqual(['MODEL']);
  });
});

describe('a session', () => {
  const session = async (sessionId: string) => {
    const { data } = await gql(
      world.url,
      'query ($sessionId: UUID!) { session(sessionId: $sessionId) { kvWarmth turns lastReplica { name } } }',
      { sessionId },
    );
    return data.session;
  };

  it('goes where it ran last, and says that the cache may be warm: in the frames, the log, REST and GraphQL', async () => {
    const sessionId = randomUUID();
    // Not where a task of no session would go.
    const first = await run({ session_id: sessionId, placement: { mode: 'pin', pin_pool_id: 'beta' } });
    expect(warmth(first.frames)).toBe(false);
    expect((await explain({ sessionId })).of.get('beta')?.score).toMatchObject({ session: true });
    const turns = [];
    for (let n = 0; n < 4; n += 1) turns.push(await run({ session_id: sessionId }));
    expect(turns.map(({ replica }) => replica)).toEqual(Array(4).fill(first.replica));
    expect(turns.map(({ frames }) => warmth(frames))).toEqual(Array(4).fill(true));
    expect(await session(sessionId)).toEqual({ kvWarmth: true, turns: 5, lastReplica: { name: first.replica } });
    const rest = await get(world.url, `/v1/sessions/${sessionId}`);
    expect(await rest.json()).toMatchObject({ kv_warmth: true, turns: 5 });
    const logged = world.logLines().map((line) => JSON.parse(line) as Record<string, unknown>);
    const starts = logged.filter((line) => line.session_id === sessionId && line.msg === 'stream started');
    expect(starts.map((line) => line.kv_warmth)).toEqual([false, true, true, true, true]);
    expect(starts[1]).toMatchObject({ queue_position: 0, predicted_start_ms: 0 });
  });

  it('is not warm when it is asked for cold, when it was deleted, or when it is another', async () => {
    const sessionId = randomUUID();
    await run({ session_id: sessionId });
    expect(warmth((await run({ session_id: sessionId, kv_hint: 'cold' })).frames)).toBe(false);
    expect(warmth((await run({ session_id: sessionId })).frames)).toBe(true);
    expect((await ask(world.url, 'DELETE', `/v1/sessions/${sessionId}`)).status).toBe(204);
    expect(warmth((await run({ session_id: sessionId })).frames)).toBe(false);
    expect(warmth((await run()).frames)).toBe(false);
  });

  it('fails over with kv_warmth=false when its replica cannot take it, and is cold after a restart of the engine', async () => {
    const sessionId = randomUUID();
    const first = await run({ session_id: sessionId, placement: { mode: 'pin', pin_pool_id: 'beta' } });
    const elsewhere = await run({ session_id: sessionId, placement: { avoid_pools: ['beta'] } });
    expect([elsewhere.pool, warmth(elsewhere.frames)]).toEqual(['alpha', false]);
    const restarted = await gql(
      world.url,
      'mutation ($replica: String!) { restartReplica(input: { replica: $replica }) { __typename } }',
      { replica: elsewhere.replica },
    );
    expect(restarted.data.restartReplica.__typename).toMatch(/Operation/);
    await expect.poll(async () => (await session(sessionId)).kvWarmth, SOON).toBe(false);
    await expect
      .poll(async () => {
        const answer = await gql(world.url, 'query { pool(name: "alpha") { replicas { state } } }');
        return answer.data.pool.replicas.map(({ state }: { state: string }) => state);
      }, SOON)
      .toEqual(['READY', 'READY']);
    const back = await run({ session_id: sessionId });
    expect([back.replica, warmth(back.frames)]).toEqual([elsewhere.replica, false]);
    expect(back.replica).not.toBe(first.replica);
  });
});
