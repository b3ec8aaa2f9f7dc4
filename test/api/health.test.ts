/** Health by progress, the breaker, and the steps of a preload, as an operator sees them; the engines are real processes. */

import { readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { DEFAULT_RESTART_POLICY } from '../../src/core/restart.js';
import { systemClock } from '../../src/runtime/clock.js';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const SUBMIT = `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) {
  __typename ... on TaskAccepted { task { taskId } } ... on Refusal { code message } } }`;

interface ReplicaSeen {
  name: string;
  state: string;
  health: string;
  breaker: string;
  restartCount: number;
  lastHeartbeatAt: string | null;
  lastError: { code: string; message: string } | null;
  preload: { name: string; state: string; startedAt: string; endedAt: string | null; detail: string | null }[];
}

let world: World;

async function replicas(): Promise<ReplicaSeen[]> {
  const query = `{ pools { replicas { name state health breaker restartCount lastHeartbeatAt lastError { code message }
    preload { name state startedAt endedAt detail } } } }`;
  return (await gql(world.url, query)).data.pools[0].replicas;
}

async function replica(): Promise<ReplicaSeen> {
  const [first] = await replicas();
  if (first === undefined) throw new Error('the pool has no replica');
  return first;
}

async function row(sql: string, ...values: unknown[]) {
  const [found] = await world.database.query(sql, values);
  if (found === undefined) throw new Error(`nothing found: ${sql}`);
  return found;
}

async function endpoint(name = 'sim-0'): Promise<string> {
  return (await row('SELECT endpoint FROM replicas WHERE id = $1', name)).endpoint;
}

async function setFault(...specs: string[]): Promise<void> {
  const response = await fetch(`${await endpoint()}/sim/control`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ fault: specs }),
  });
  if (!response.ok) throw new Error(`the simulator answered ${response.status}: ${await response.text()}`);
}

async function submit(maxTokens = 4): Promise<string> {
  const { data } = await gql(world.url, SUBMIT, { input: { pool: 'sim', prompt: 'p', maxTokens } });
  if (data.submitTask.__typename !== 'TaskAccepted') throw new Error(JSON.stringify(data));
  return data.submitTask.task.taskId;
}

async function eventsOf(kind: string): Promise<string[]> {
  const rows = await world.database.query('SELECT message FROM pool_events WHERE kind = $1 ORDER BY seq', [kind]);
  return rows.map((row) => row.message);
}

afterEach(async () => {
  await world[Symbol.asyncDispose]();
});

const withCanary = (config: string, everyMs: number) =>
  config.replace('    queue:', `    health: { canary_every_ms: ${everyMs} }\n    queue:`);

describe('the way to Ready', () => {
  beforeEach(async () => {
    world = await startWorld({ config: simConfig({ replicas: 1 }) });
  });

  it('shows every step with its times, the self-test among them', async () => {
    const { preload, state, health, breaker } = await replica();
    expect({ state, health, breaker }).toEqual({ state: 'READY', health: 'READY', breaker: 'CLOSED' });
    expect(preload.map(({ name, state: stepState }) => `${name} ${stepState}`)).toEqual([
      'check_model SUCCEEDED',
      'reserve_memory SUCCEEDED',
      'start_engine SUCCEEDED',
      'wait_until_ready SUCCEEDED',
      'check_device SUCCEEDED',
      'identify SUCCEEDED',
      'decode SUCCEEDED',
      'cancel SUCCEEDED',
      'metrics SUCCEEDED',
    ]);
    for (const { startedAt, endedAt } of preload) {
      expect(Date.parse(endedAt ?? '')).toBeGreaterThanOrEqual(Date.parse(startedAt));
    }
    const details = Object.fromEntries(preload.map(({ name, detail }) => [name, detail]));
    expect(details.start_engine).toMatch(/^process \d+$/);
    expect(details.cancel).toMatch(/^slot_free: |^it ended before/);
    expect(await eventsOf('replica_preload')).toEqual([expect.stringMatching(/^preload passed after \d+ ms$/)]);
  });

  it('runs each engine as our own user, in a folder and with a log of its own', async () => {
    const { pid } = await row('SELECT pid FROM replicas');
    expect((await stat(`/proc/${pid}`)).uid).toBe(process.getuid?.());
    const home = world.plane.dataDir;
    expect(await readlink(`/proc/${pid}/cwd`)).toBe(join(home, 'run', 'engines', 'sim-0'));
    const log = join(home, 'logs', 'engine-sim-0.log');
    expect([await readlink(`/proc/${pid}/fd/1`), await readlink(`/proc/${pid}/fd/2`)]).toEqual([log, log]);
  });

  it.runIf(LONG)('does not end at an engine that ignores a cancel: the step says so', async () => {
    const config = simConfig({ replicas: 1, tokensPerSecond: 20, flags: ['--fault', 'ignore-cancel'] });
    await world[Symbol.asyncDispose]();
    world = await startWorld({ config, expectNotReady: true });
    const failed = async () => (await replica()).preload.find((step) => step.name === 'cancel') ?? null;
    await expect.poll(failed, { timeout: 30_000 }).toMatchObject({ state: 'FAILED' });
    await expect.poll(async () => (await replica()).lastError?.code).toBe('CANCEL_IGNORED');
    await expect.poll(async () => (await replica()).breaker).not.toBe('CLOSED');
  });

  it('is left at once when it is cancelled while it waits for the engine', async () => {
    await world[Symbol.asyncDispose]();
    world = await startWorld({
      config: simConfig({ replicas: 1, flags: ['--fault', 'never-ready'] }),
      expectNotReady: true,
    });
    const waits = async () => (await replica()).preload.at(-1)?.name;
    await expect.poll(waits).toBe('wait_until_ready');
    const before = performance.now();
    await world.plane.close();
    expect(performance.now() - before).toBeLessThan(10_000);
    const rows = await world.database.query('SELECT state, pid FROM replicas');
    expect(rows).toEqual([{ state: 'ABSENT', pid: null }]);
  });
});

describe('a replica on trial', () => {
  it.runIf(LONG)('is trusted again, and its failures are forgotten, after a run that was long enough', async () => {
    const { monotonicMs } = systemClock;
    let aheadMs = 0;
    const clock = vi.spyOn(systemClock, 'monotonicMs').mockImplementation(() => monotonicMs() + aheadMs);
    try {
      world = await startWorld({ config: simConfig({ replicas: 1 }) });
      const crash = async () => {
        await expect.poll(async () => (await replica()).state).toBe('READY');
        const { restartCount } = await replica();
        process.kill(Number((await row('SELECT pid FROM replicas')).pid), 'SIGKILL');
        await expect.poll(async () => (await replica()).restartCount).toBe(restartCount + 1);
        await expect.poll(async () => (await replica()).state).toBe('READY');
      };
      const failTwice = () => crash().then(crash);
      await failTwice();
      expect((await replica()).breaker).toBe('HALF_OPEN');
      aheadMs = DEFAULT_RESTART_POLICY.stableMs - 20_000;
      // Some heartbeats later it is still on trial.
      const { lastHeartbeatAt } = await replica();
      await expect.poll(async () => (await replica()).lastHeartbeatAt).not.toBe(lastHeartbeatAt);
      expect((await replica()).breaker).toBe('HALF_OPEN');
      aheadMs = DEFAULT_RESTART_POLICY.stableMs;
      await expect.poll(async () => (await replica()).breaker).toBe('CLOSED');
      await failTwice();
      const delays = (await eventsOf('replica_restart')).map((message) => Number(/ in (\d+) ms/.exec(message)?.[1]));
      expect(delays).toHaveLength(4);
      for (const [nth, ms] of delays.entries()) {
        const mostMs = DEFAULT_RESTART_POLICY.baseMs * (nth % 2 === 0 ? 1 : 2);
        expect([ms >= mostMs / 2, ms <= mostMs]).toEqual([true, true]);
      }
    } finally {
      clock.mockRestore();
    }
  });
});

describe('an engine that answers and does not decode', () => {
  it('is found by the canary when nobody uses it, and replaced', async () => {
    world = await startWorld({ config: withCanary(simConfig({ replicas: 1, idleMs: 1_000 }), 200) });
    await setFault('hang-at-token:0');
    await expect.poll(() => eventsOf('replica_crashed'), { timeout: 30_000 }).toHaveLength(1);
    await expect.poll(async () => (await replica()).state, { timeout: 30_000 }).toBe('READY');
    const { restartCount, breaker } = await replica();
    expect({ restartCount, breaker }).toEqual({ restartCount: 1, breaker: 'HALF_OPEN' });
    expect(await eventsOf('replica_restart')).toEqual([
      expect.stringMatching(/^restart 1 in \d+ ms: the engine answers/),
    ]);
    expect(await eventsOf('replica_ports_held')).toEqual([]);
    const rows = await world.database.query('SELECT fault, exit_code, signal, message FROM crash_records');
    expect(rows).toEqual([
      { fault: 'ENGINE_STALLED', exit_code: null, signal: null, message: expect.stringContaining('does not decode') },
    ]);
  });

  it.runIf(LONG)('opens its breaker at once under load, and gets nothing more before it decodes', async () => {
    const config = simConfig({ replicas: 2, slots: 2, idleMs: 6_000, tokensPerSecond: 100 });
    world = await startWorld({ config: withCanary(config, 0) });
    await setFault('hang-at-token:1');
    const statusOf = async (id: string) => (await row('SELECT status FROM tasks WHERE id = $1', id)).status;
    const onFirst = async () =>
      (await world.database.query("SELECT id FROM tasks WHERE replica_id = 'sim-0'")).map(({ id }) => String(id));
    // One slot of it hangs, the other is free.
    while ((await onFirst()).length === 0) {
      const id = await submit();
      await expect.poll(async () => (await onFirst()).includes(id) || (await statusOf(id)) === 'SUCCEEDED').toBe(true);
    }
    const hanging = await onFirst();
    const first = async () => (await replicas()).find(({ name }) => name === 'sim-0');
    await expect.poll(async () => (await first())?.health, { interval: 50 }).toBe('STALLED');
    expect((await first())?.breaker).toBe('OPEN');
    // It answers all the while; one request more would be no sign that it decodes.
    for (let task = 0; task < 5; task += 1) {
      const id = await submit();
      await expect.poll(() => statusOf(id)).toBe('SUCCEEDED');
    }
    expect(await onFirst()).toEqual(hanging);
    for (const id of hanging) await expect.poll(() => statusOf(id), { timeout: 30_000 }).toBe('FAILED');
    // The canary finds what the hung task has shown.
    await expect.poll(() => eventsOf('replica_crashed'), { timeout: 30_000 }).toHaveLength(1);
    await expect.poll(async () => (await first())?.state, { timeout: 30_000 }).toBe('READY');
    await expect.poll(async () => (await first())?.health, { timeout: 30_000 }).toBe('READY');
    expect((await eventsOf('replica_health')).join()).toContain('health is STALLED');
    expect(await eventsOf('replica_breaker')).toContain('circuit breaker is OPEN, was CLOSED');
  });
});

describe('failing replicas', () => {
  it('do not stop the one that works', async () => {
    world = await startWorld({ config: simConfig({ replicas: 3, slots: 1 }) });
    const pids = async (): Promise<number[]> =>
      (await world.database.query("SELECT pid FROM replicas WHERE id <> 'sim-2' AND pid IS NOT NULL")).map(
        (row) => row.pid,
      );
    const thirdPid = async () => (await row("SELECT pid FROM replicas WHERE id = 'sim-2'")).pid;
    const before = await thirdPid();
    const killed = new Set<number>();
    const killOthers = async (): Promise<number> => {
      for (const pid of await pids()) {
        if (killed.has(pid)) continue;
        killed.add(pid);
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // it was ended meanwhile
        }
      }
      return killed.size;
    };
    const statuses: string[] = [];
    for (let round = 0; round < 4; round += 1) {
      const wanted = killed.size + 2;
      await expect.poll(killOthers, { timeout: 30_000 }).toBeGreaterThanOrEqual(wanted);
      const id = await submit();
      const status = async () => (await row('SELECT status FROM tasks WHERE id = $1', id)).status;
      await expect.poll(status, { timeout: 30_000 }).toMatch(/SUCCEEDED|FAILED/);
      statuses.push(await status());
    }
    expect(statuses).toEqual(Array.from({ length: 4 }, () => 'SUCCEEDED'));
    expect(await thirdPid()).toBe(before);
    const [, , third] = await replicas();
    expect(third).toMatchObject({ name: 'sim-2', state: 'READY', restartCount: 0, breaker: 'CLOSED' });
  });
});
