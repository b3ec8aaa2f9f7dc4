/** What an engine's misbehaviour becomes for the people in front of the doors, with the whole control plane between. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { type CallLog, logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { LONG } from '../support/long.js';
import { indicesOf, post, readStream, type SseFrame, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const ENGINES = ['llamacpp', 'vllm', 'tgi', 'triton'] as const;
const IDLE_MS = 1_000;
/** Before an engine says or refuses anything: long enough to do something between two attempts, less than the above. */
const FIRST_TOKEN_MS = 200;

/** Of the group of tests that runs now. */
let running: World | null = null;
let calls: CallLog;

beforeAll(async () => {
  calls = await logCalls();
});

async function startWith(engine: string, flags: string[], expectNotReady: boolean): Promise<World> {
  const config = simConfig({ engine, replicas: 1, slots: 1, flags, idleMs: IDLE_MS, env: calls.env });
  running = await startWorld({ config, expectNotReady });
  return running;
}

async function endWorld(): Promise<void> {
  const ending = running;
  running = null;
  await ending?.[Symbol.asyncDispose]();
}

function theWorld(): World {
  if (running === null) throw new Error('the world was not started');
  return running;
}

/** Where the pool's only engine is now; it moves with every start. */
async function engineUrl(): Promise<string> {
  const [row] = await theWorld().database.query<{ endpoint: string | null }>(
    `SELECT endpoint FROM replicas WHERE id = 'sim-0' AND state = 'READY'`,
  );
  if (row?.endpoint == null) throw new Error('the engine is not ready');
  return row.endpoint;
}

async function enginePid(): Promise<number | null | undefined> {
  const [row] = await theWorld().database.query<{ pid: number | null }>('SELECT pid FROM replicas');
  return row?.pid;
}

async function attemptsOf(taskId: string): Promise<number | undefined> {
  const sql = 'SELECT attempts FROM tasks WHERE id = $1';
  const [row] = await theWorld().database.query<{ attempts: number }>(sql, [taskId]);
  return row?.attempts;
}

/** Sets the faults of an engine at run time. */
async function setFaultAt(url: string, ...fault: string[]): Promise<void> {
  const answer = await post(url, '/sim/control', { fault });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  await answer.arrayBuffer();
}

async function setFault(...fault: string[]): Promise<void> {
  await setFaultAt(await engineUrl(), ...fault);
}

/** What each adapter makes of each fault is in test/engines; here is what the control plane makes of it. */
const SOME = LONG ? ENGINES : (['llamacpp'] as const);

async function submit(engine: string, over: Record<string, unknown> = {}): Promise<string> {
  const request = taskRequest({ engine, max_tokens: 8, ...over });
  expect((await post(theWorld().url, '/v1/tasks', request)).status).toBe(202);
  return request.task_id;
}

async function stream(engine: string, over: Record<string, unknown> = {}): Promise<SseFrame[]> {
  return readStream(theWorld().url, await submit(engine, over));
}

const reasons = async (): Promise<{ code: string; message: string; fix: string }[]> => {
  const { data } = await gql(theWorld().url, '{ pools { notReadyBecause { code message fix } } }');
  return data.pools[0].notReadyBecause;
};

describe.each(SOME)('%s, ill from its start', (engine) => {
  afterEach(endWorld);

  it.each([
    ['oom-at-load', 'VRAM_OOM_LOAD'],
    ['cpu-fallback', engine === 'llamacpp' || engine === 'tgi' ? 'CPU_FALLBACK' : 'NO_GPU'],
    ['other-model', 'WRONG_MODEL'],
  ])('%s: the pool does not become ready and says why', async (fault, code) => {
    await startWith(engine, ['--fault', fault], true);
    await expect.poll(async () => (await reasons()).map((reason) => reason.code)).toContain(code);
    const reason = (await reasons()).find((found) => found.code === code);
    expect(reason?.fix).toBeTruthy();
  });
});

describe.each(SOME)('%s', (engine) => {
  let watch: SystemWatch;
  beforeAll(async () => {
    // Each engine's world has tasks of its own, and a log of their calls.
    calls = await logCalls();
    const world = await startWith(engine, ['--first-token-ms', String(FIRST_TOKEN_MS)], false);
    const { database } = world;
    await callWitness(database);
    watch = await SystemWatch.begin({ database, planes: [planeOfWorld(world)], calls, request: { engine } });
  });
  afterEach(() => setFault('none'));
  afterAll(async () => {
    await expectInvariants(`faults of ${engine}`, await watch.evidence({ patienceMs: 30_000 }));
    await endWorld();
  });

  it('an error before the first token is tried again out of sight, and told when it stays', async () => {
    const url = await engineUrl();
    await setFaultAt(url, 'error-frame-at-token:0');
    const taskId = await submit(engine);
    await expect.poll(() => attemptsOf(taskId), { interval: 10 }).toBeGreaterThan(1);
    await setFaultAt(url, 'none');
    const frames = await readStream(theWorld().url, taskId);
    expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 8 } });
    expect(indicesOf(frames)).toHaveLength(8);
    await setFault('error-frame-at-token:0');
    expect((await stream(engine)).at(-1)).toMatchObject({
      event: 'error',
      data: { code: 'INTERNAL', retriable: true },
    });
  });

  it('an error in mid-stream is told after the tokens before it', async () => {
    await setFault('error-frame-at-token:3');
    const frames = await stream(engine);
    expect(indicesOf(frames)).toEqual([0, 1, 2]);
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'INTERNAL', engine } });
  });

  it('a crash in mid-stream goes on byte by byte on the next engine', async () => {
    const undisturbed = await stream(engine, { seed: 5 });
    const pid = await enginePid();
    await setFault('crash-at-token:3'); // of this process; the next one knows nothing of it
    const taskId = await submit(engine, { seed: 5 });
    const frames = await readStream(theWorld().url, taskId, {
      until: (_frame, all) => indicesOf(all).length === 3,
    });
    const rest = await readStream(theWorld().url, taskId, { after: Number(frames.at(-1)?.id) });
    const tokens = [...frames, ...rest].filter(({ event }) => event === 'token').map(({ data }) => data.t);
    expect(tokens).toEqual(undisturbed.filter(({ event }) => event === 'token').map(({ data }) => data.t));
    expect(rest.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 8 } });
    expect(await attemptsOf(taskId)).toBeGreaterThan(1);
    expect(await enginePid()).not.toBe(pid);
  });

  it('numbers that cannot be true are replaced by our own, and logged', async () => {
    await setFault('wrong-usage', 'clock-skew:3600000');
    const last = (await stream(engine)).at(-1);
    expect(last).toMatchObject({ event: 'end', data: { tokens_out: 8 } });
    expect(Number(last?.data.decode_ms)).toBeLessThan(60_000);
    const disbelieved = theWorld()
      .logLines()
      .filter((line) => line.includes('engine disbelieved'));
    expect(disbelieved).toHaveLength(engine === 'triton' ? 0 : 1);
  });

  it('keeps what a run depended on with its transcript', async () => {
    const taskId = await submit(engine);
    await readStream(theWorld().url, taskId);
    const [row] = await theWorld().database.query<{ content: { run: Record<string, unknown> } }>(
      `SELECT a.content FROM artifacts a JOIN tasks t ON t.transcript_id = a.id WHERE t.id = $1`,
      [taskId],
    );
    expect(row?.content.run).toMatchObject({
      engine_version: expect.any(String),
      model_id: 'sim-7b',
      sampler_profile: { version: 'default-1', temperature: 0.8 },
      launch_args: expect.arrayContaining(['--protocol', engine]),
      determinism: { requested: 'strict', claim: 'byte_exact', because: expect.any(String) },
    });
  });

  it.runIf(LONG)(
    'a hang ends in time, and the engine is started anew',
    async () => {
      const before = await enginePid();
      await setFault('hang-at-token:3', 'ignore-cancel');
      const frames = await stream(engine);
      expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'DECODE_TIMEOUT' } });
      await expect.poll(enginePid, { timeout: 15_000 }).not.toBe(before);
      expect((await stream(engine)).at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 8 } });
    },
    30_000,
  );
});
