/** Reloads under load: beside the running engines, in their place, failing, too late, and killed in the middle. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { beginOperation, detailOf, endOf, metricOf, readOperation, statesOf } from '../support/operations.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { makeHome, processesOf, type ServerProcess, startServer } from '../support/server.js';
import { simConfig, startWorld, type World } from '../support/world.js';

/** No model: the engine takes it for a flag and ends at once. */
const BAD_MODEL = '--not-a-model';
const DROPPED = 'streams_dropped_by_reload_total';

const reloadTo = (model: string, drainDeadlineMs = 20_000) =>
  `reloadPool(input: { pool: "sim", newModelRef: "${model}", drainDeadlineMs: ${drainDeadlineMs} })`;

/** The same on GPUs that hold one engine each. */
function withoutRoom(config: string): string {
  return config.replaceAll(/memory_bytes: \d+/g, 'memory_bytes: 1600000000');
}

/** A task for whatever model the pool serves. @returns its id. */
async function submit(url: string, input: { maxTokens: number; determinism: 'STRICT' | 'BEST_EFFORT' }) {
  const document = `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) {
    __typename ... on TaskAccepted { taskId } ... on Refusal { code message } } }`;
  const variables = { input: { pool: 'sim', prompt: 'Tell me about the sea.', ...input } };
  const { data, errors } = await gql(url, document, variables);
  expect(data?.submitTask.__typename, JSON.stringify({ data, errors })).toBe('TaskAccepted');
  return String(data.submitTask.taskId);
}

async function running(url: string, maxTokens: number, determinism: 'STRICT' | 'BEST_EFFORT'): Promise<string> {
  const id = await submit(url, { maxTokens, determinism });
  await readStream(url, id, { until: (frame) => frame.event === 'token' });
  return id;
}

interface PoolView {
  readonly modelRef: string;
  readonly ready: boolean;
  readonly draining: boolean;
  readonly replicas: readonly { readonly name: string; readonly state: string }[];
}

async function poolOf(url: string): Promise<PoolView> {
  return (await gql(url, `{ pool(name: "sim") { modelRef ready draining replicas { name state } } }`)).data.pool;
}

const namesOf = (pool: PoolView) => pool.replicas.map(({ name }) => name);

/** Follows the operation until one of its steps has begun. */
async function untilRuns(url: string, id: string, step: string): Promise<void> {
  await expect.poll(async () => statesOf(await readOperation(url, id))[step], { interval: 10 }).toBe('RUNNING');
}

function expectWhole(frames: readonly SseFrame[], tokens: number): void {
  expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: tokens } });
  expect(tokensOf(frames)).toHaveLength(tokens);
}

describe('with room beside', () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ config: simConfig({ tokensPerSecond: 50, slots: 6 }) });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  const replicaOf = async (taskId: string) => {
    const rows = await world.database.query<{ replica_id: string }>('SELECT replica_id FROM tasks WHERE id = $1', [
      taskId,
    ]);
    return rows[0]?.replica_id ?? '';
  };
  const pids = () => world.database.query(`SELECT id, pid FROM replicas WHERE NOT retired ORDER BY id`);

  it('drops none of the streams that run over the switch, twice in a row', async () => {
    const generations = [
      { model: 'sim-8b', old: ['sim-0', 'sim-1'], fresh: ['sim-2', 'sim-3'] },
      { model: 'sim-9b', old: ['sim-2', 'sim-3'], fresh: ['sim-0', 'sim-1'] },
    ];
    for (const { model, old, fresh } of generations) {
      const kinds = Array.from({ length: 12 }, (_, index) => (index % 2 === 0 ? 'STRICT' : 'BEST_EFFORT'));
      const before = await Promise.all(kinds.map((kind) => running(world.url, 100, kind)));
      const id = await beginOperation(world.url, reloadTo(model));
      // All the while new tasks come; each names the pool alone.
      const during: string[] = [];
      for (let state = 'RUNNING'; state === 'RUNNING'; state = (await readOperation(world.url, id)).state) {
        if (during.length < 12) during.push(await submit(world.url, { maxTokens: 30, determinism: 'BEST_EFFORT' }));
      }
      expect(during.length).toBeGreaterThan(3);
      const view = await endOf(world.url, id);
      expect(view).toMatchObject({ state: 'SUCCEEDED', outcome: `serving ${model}`, error: null });
      expect(Date.parse(view.endedAt ?? '') - Date.parse(view.startedAt ?? '')).toBeLessThan(10_000);
      expect(detailOf(view, 'start_beside')).toBe(`${fresh.join(', ')} ready with ${model}`);
      for (const taskId of before) {
        expectWhole(await readStream(world.url, taskId), 100);
        expect(old).toContain(await replicaOf(taskId));
      }
      for (const taskId of during) expectWhole(await readStream(world.url, taskId), 30);
      const after = await submit(world.url, { maxTokens: 5, determinism: 'STRICT' });
      expectWhole(await readStream(world.url, after), 5);
      expect(fresh).toContain(await replicaOf(after));
      const pool = await poolOf(world.url);
      expect(pool).toMatchObject({ modelRef: model, ready: true, draining: false });
      expect(pool.replicas).toEqual(fresh.map((name) => ({ name, state: 'READY' })));
    }
    expect(await metricOf(world.url, DROPPED)).toBe(0);
    // The task's own request is answered by the model that it asked for, or refused: never by the one before.
    expect((await post(world.url, '/v1/tasks', taskRequest({ model_ref: 'sim-8b' }))).status).toBe(400);
  });

  it.runIf(LONG)('shows the old replicas as draining while they end their tasks', async () => {
    const taskId = await running(world.url, 100, 'BEST_EFFORT');
    const old = await replicaOf(taskId);
    const id = await beginOperation(world.url, reloadTo('sim-10b'));
    await untilRuns(world.url, id, 'wait_for_running_tasks');
    const states = async () => {
      const { replicas } = await poolOf(world.url);
      return Object.fromEntries(replicas.map(({ name, state }) => [name, state]));
    };
    const shown = { 'sim-0': 'DRAINING', 'sim-1': 'DRAINING', 'sim-2': 'READY', 'sim-3': 'READY' };
    await expect.poll(states, { interval: 10 }).toEqual(shown);
    expect(Object.keys(shown)).toContain(old);
    expect((await endOf(world.url, id)).state).toBe('SUCCEEDED');
    expectWhole(await readStream(world.url, taskId), 100);
  });

  it.runIf(LONG)('leaves the old engines alone when the new ones do not start', async () => {
    const failures = await metricOf(world.url, 'reload_failure_total');
    const processes = await pids();
    const taskId = await running(world.url, 100, 'BEST_EFFORT');
    const view = await endOf(world.url, await beginOperation(world.url, reloadTo(BAD_MODEL)));
    expect(view).toMatchObject({ state: 'ROLLED_BACK', outcome: 'still serving sim-10b' });
    expect(statesOf(view)).toMatchObject({ start_beside: 'FAILED', switch_over: 'SKIPPED', roll_back: 'SUCCEEDED' });
    expect(detailOf(view, 'start_beside')).toBe(view.error?.message);
    expect(detailOf(view, 'roll_back')).toBe('sim-10b never stopped serving');
    expectWhole(await readStream(world.url, taskId), 100);
    expect(await pids()).toEqual(processes);
    expect(await poolOf(world.url)).toMatchObject({ modelRef: 'sim-10b', ready: true, draining: false });
    expect(await metricOf(world.url, 'reload_failure_total')).toBe(failures + 1);
    expect(await metricOf(world.url, DROPPED)).toBe(0);
  });

  it.runIf(LONG)('lets the old engines serve again when their tasks do not end in time', async () => {
    const processes = await pids();
    const old = await running(world.url, 300, 'BEST_EFFORT');
    const id = await beginOperation(world.url, reloadTo('sim-11b', 1_500));
    await untilRuns(world.url, id, 'wait_for_running_tasks');
    // These two begin on the new engines: one ends in time, the other is stopped when its model is taken back.
    const short = await submit(world.url, { maxTokens: 20, determinism: 'BEST_EFFORT' });
    const long = await submit(world.url, { maxTokens: 2000, determinism: 'BEST_EFFORT' });
    await readStream(world.url, long, { until: (frame) => frame.event === 'token' });
    const view = await endOf(world.url, id);
    expect(view).toMatchObject({
      state: 'ROLLED_BACK',
      outcome: 'still serving sim-10b',
      error: { code: 'DRAIN_TIMEOUT' },
    });
    expect(statesOf(view)).toMatchObject({
      wait_for_running_tasks: 'FAILED',
      stop_old: 'SKIPPED',
      roll_back: 'SUCCEEDED',
    });
    expect(view.error?.message).toBe('0 tasks finished; 1 ran on at the deadline of 1500 ms');
    expectWhole(await readStream(world.url, old), 300);
    expectWhole(await readStream(world.url, short), 20);
    expect((await readStream(world.url, long)).at(-1)).toMatchObject({
      event: 'error',
      data: { code: 'WORKER_RESET' },
    });
    expect(await metricOf(world.url, DROPPED)).toBe(1);
    expect(await pids()).toEqual(processes);
    expect(await poolOf(world.url)).toMatchObject({ modelRef: 'sim-10b', ready: true, draining: false });
    const after = await submit(world.url, { maxTokens: 5, determinism: 'STRICT' });
    expectWhole(await readStream(world.url, after), 5);
  });

  it.runIf(LONG)('opens a pool that was drained', async () => {
    await endOf(world.url, await beginOperation(world.url, `drainPool(input: { pool: "sim" })`));
    expect((await poolOf(world.url)).replicas.map(({ state }) => state)).toEqual(['DRAINING', 'DRAINING']);
    const failed = await endOf(world.url, await beginOperation(world.url, reloadTo(BAD_MODEL)));
    expect(failed.state).toBe('ROLLED_BACK');
    expect(await poolOf(world.url)).toMatchObject({ ready: false, draining: true });
    const view = await endOf(world.url, await beginOperation(world.url, reloadTo('sim-12b')));
    expect(view).toMatchObject({ state: 'SUCCEEDED', outcome: 'serving sim-12b' });
    expect(statesOf(view).grant_leases).toBe('SUCCEEDED');
    await expect.poll(() => poolOf(world.url)).toMatchObject({ modelRef: 'sim-12b', ready: true, draining: false });
    expectWhole(await readStream(world.url, await submit(world.url, { maxTokens: 5, determinism: 'STRICT' })), 5);
  });
});

describe('every engine', () => {
  it.each(LONG ? ['vllm', 'tgi', 'triton'] : ['vllm'])(
    '%s: new engines beside the old ones, no stream dropped',
    async (engine) => {
      await using world = await startWorld({ config: simConfig({ engine, tokensPerSecond: 50 }) });
      const taskId = await running(world.url, 100, 'BEST_EFFORT');
      const view = await endOf(world.url, await beginOperation(world.url, reloadTo('sim-8b')));
      expect(view).toMatchObject({ state: 'SUCCEEDED', outcome: 'serving sim-8b' });
      expect(statesOf(view)).toMatchObject({ start_beside: 'SUCCEEDED', stop_old: 'SUCCEEDED' });
      expectWhole(await readStream(world.url, taskId), 100);
      expectWhole(await readStream(world.url, await submit(world.url, { maxTokens: 5, determinism: 'STRICT' })), 5);
    },
  );
});

describe('without room beside', () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ config: withoutRoom(simConfig({ tokensPerSecond: 50 })) });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  it('swaps the model in place, and says what there was no room on', async () => {
    const taskId = await running(world.url, 50, 'BEST_EFFORT');
    const view = await endOf(world.url, await beginOperation(world.url, reloadTo('sim-8b')));
    expect(view).toMatchObject({ state: 'SUCCEEDED', outcome: 'serving sim-8b' });
    expect(detailOf(view, 'start_beside')).toMatch(/^no room beside: GPU 0 \(Big\) has /);
    expect(statesOf(view)).toEqual({
      check_model: 'SUCCEEDED',
      start_beside: 'SKIPPED',
      switch_over: 'SKIPPED',
      refuse_new_leases: 'SUCCEEDED',
      wait_for_running_tasks: 'SUCCEEDED',
      swap_model: 'SUCCEEDED',
      verify: 'SUCCEEDED',
      stop_old: 'SKIPPED',
      roll_back: 'SKIPPED',
      grant_leases: 'SUCCEEDED',
    });
    expectWhole(await readStream(world.url, taskId), 50);
    const pool = await poolOf(world.url);
    expect(pool).toMatchObject({ modelRef: 'sim-8b', ready: true, draining: false });
    expect(namesOf(pool)).toEqual(['sim-0', 'sim-1']);
  });

  it('puts the old model back when the new one does not start', async () => {
    const view = await endOf(world.url, await beginOperation(world.url, reloadTo(BAD_MODEL)));
    expect(view).toMatchObject({ state: 'ROLLED_BACK', outcome: 'still serving sim-8b' });
    expect(statesOf(view)).toMatchObject({ swap_model: 'FAILED', roll_back: 'SUCCEEDED', grant_leases: 'SUCCEEDED' });
    expect(await poolOf(world.url)).toMatchObject({ modelRef: 'sim-8b', ready: true, draining: false });
  });

  it('touches nothing when tasks do not end in time: they run on, and new ones are taken again', async () => {
    const pids = () => world.database.query(`SELECT id, pid FROM replicas ORDER BY id`);
    const processes = await pids();
    const long = await running(world.url, 150, 'BEST_EFFORT');
    const id = await beginOperation(world.url, reloadTo('sim-9b', 500));
    await untilRuns(world.url, id, 'wait_for_running_tasks');
    expect((await post(world.url, '/v1/tasks', taskRequest({ model_ref: 'sim-8b' }))).status).toBe(503);
    const view = await endOf(world.url, id);
    expect(view).toMatchObject({
      state: 'ROLLED_BACK',
      outcome: 'still serving sim-8b',
      error: { code: 'DRAIN_TIMEOUT' },
    });
    expect(statesOf(view)).toMatchObject({ wait_for_running_tasks: 'FAILED', swap_model: 'SKIPPED' });
    expect(detailOf(view, 'roll_back')).toBe('sim-8b was not touched');
    const after = await submit(world.url, { maxTokens: 5, determinism: 'STRICT' });
    expectWhole(await readStream(world.url, after), 5);
    expectWhole(await readStream(world.url, long), 150);
    expect(await pids()).toEqual(processes);
    expect(await metricOf(world.url, DROPPED)).toBe(0);
  });
});

describe('where engines take more than their configuration says', () => {
  it.runIf(LONG)('swaps in place when the room beside turns out not to be there', async () => {
    const GIB = 1024 ** 3;
    const flags = ['--vram-bytes', String(2 * GIB)];
    const config = simConfig({ flags, replicas: 1 }).replaceAll(/memory_bytes: \d+/g, `memory_bytes: ${3.5 * GIB}`);
    await using world = await startWorld({ config });
    const peaks = () => world.database.query<{ peak: string }>('SELECT peak_bytes AS peak FROM vram_peaks');
    await expect.poll(async () => (await peaks()).map(({ peak }) => Number(peak))).toEqual([2 * GIB]);
    expect((await endOf(world.url, await beginOperation(world.url, reloadTo('sim-8b')))).state).toBe('SUCCEEDED');
    const view = await endOf(world.url, await beginOperation(world.url, reloadTo('sim-7b')));
    expect(view).toMatchObject({ state: 'SUCCEEDED', outcome: 'serving sim-7b' });
    expect(statesOf(view)).toMatchObject({
      start_beside: 'FAILED',
      swap_model: 'SUCCEEDED',
      grant_leases: 'SUCCEEDED',
    });
    expect(detailOf(view, 'start_beside')).toContain('observed peak 2.0 GiB');
    const pool = await poolOf(world.url);
    expect(pool).toMatchObject({ modelRef: 'sim-7b', ready: true, draining: false });
    expectWhole(await readStream(world.url, await submit(world.url, { maxTokens: 5, determinism: 'STRICT' })), 5);
  });
});

describe('kill -9 of the control plane in the middle', () => {
  let home: { path: string; remove: () => Promise<void> };
  afterEach(() => home.remove());

  async function start(config: string): Promise<ServerProcess> {
    const file = join(home.path, 'config.yaml');
    await writeFile(file, config);
    const server = await startServer(home.path, { args: ['--config', file] });
    await expect.poll(async () => (await poolOf(server.url)).ready, { timeout: 25_000 }).toBe(true);
    return server;
  }

  /** Marks of the engines that run, each once: a mark names the replica. */
  async function engines(): Promise<string[]> {
    const nodeId = (await readFile(join(home.path, 'run', 'node-id'), 'utf8')).trim();
    const marks = new Set<string>();
    for (const pid of processesOf(home.path)) {
      const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
      const mark = environment.split('\0').find((entry) => entry.startsWith(`LLAMA_ORCH_MARK=${nodeId}/`));
      if (mark !== undefined) marks.add(mark.slice(mark.indexOf('/') + 1, mark.lastIndexOf('/')));
    }
    return [...marks].sort();
  }

  /** At which moment, what the pool serves then, and which engines. */
  const MOMENTS = [
    {
      when: 'while the first new engine loads',
      until: (url: string) => expect.poll(async () => namesOf(await poolOf(url)), { interval: 5 }).toContain('sim-2'),
      serves: 'sim-7b',
      engines: ['sim-0', 'sim-1'],
    },
    {
      when: 'right after the switch',
      until: (url: string) => expect.poll(async () => (await poolOf(url)).modelRef, { interval: 5 }).toBe('sim-8b'),
      serves: 'sim-8b',
      engines: ['sim-2', 'sim-3'],
    },
    {
      when: 'while the old engines end their tasks',
      until: (url: string, id: string) => untilRuns(url, id, 'wait_for_running_tasks'),
      serves: 'sim-8b',
      engines: ['sim-2', 'sim-3'],
    },
  ];

  it.runIf(LONG).each(MOMENTS)(
    '$when: one generation goes on, and nothing else',
    { timeout: 90_000 },
    async (moment) => {
      home = await makeHome();
      const config = simConfig({ tokensPerSecond: 50 }).replace('load_ms: 0', 'load_ms: 700');
      const first = await start(config);
      await running(first.url, 2000, 'STRICT');
      const id = await beginOperation(first.url, reloadTo('sim-8b'));
      await moment.until(first.url, id);
      first.signal('SIGKILL');
      await first.exited;
      const second = await start(config);
      await expect
        .poll(async () => (await poolOf(second.url)).replicas)
        .toEqual(moment.engines.map((name) => ({ name, state: 'READY' })));
      expect(await engines()).toEqual(moment.engines);
      expect((await poolOf(second.url)).modelRef).toBe(moment.serves);
      expect(await readOperation(second.url, id)).toMatchObject({ state: 'FAILED', error: { code: 'INTERRUPTED' } });
      expectWhole(await readStream(second.url, await submit(second.url, { maxTokens: 5, determinism: 'STRICT' })), 5);
      second.signal('SIGINT');
      expect((await second.exited).code).toBe(0);
      expect(processesOf(home.path)).toEqual([]);
    },
  );
});
