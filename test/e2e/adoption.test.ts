/** What becomes of the engines when the control plane is killed: the next one goes on with those that are well. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { gql } from '../support/graphql.js';
import { post, readStream, taskRequest } from '../support/rest.js';
import { makeHome, processesOf, type ServerProcess, startServer } from '../support/server.js';
import { simConfig } from '../support/world.js';

let home: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ path: home, remove } = await makeHome());
});
afterEach(() => remove());

/** Resolves once its rows say that all replicas are ready: they follow what they tell by a moment. */
async function start(config: string): Promise<ServerProcess> {
  const file = join(home, 'config.yaml');
  await writeFile(file, config);
  const server = await startServer(home, { args: ['--config', file] });
  const states = async () => new Set((await replicas(server.url)).map(({ state }) => state));
  await expect.poll(states, { timeout: 25_000 }).toEqual(new Set(['READY']));
  return server;
}

interface Row {
  readonly name: string;
  readonly state: string;
  readonly restartCount: number;
}

async function replicas(url: string): Promise<Row[]> {
  const { data } = await gql(url, '{ pools { replicas { name state restartCount } } }');
  return data.pools.flatMap((pool: { replicas: Row[] }) => pool.replicas);
}

/** Pids of the engines, as the simulator logs nothing about itself: by the mark that each carries. */
const engines = async (): Promise<number[]> => {
  const nodeId = (await readFile(join(home, 'run', 'node-id'), 'utf8')).trim();
  const marked: number[] = [];
  for (const pid of processesOf(home)) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (environment.includes(`LLAMA_ORCH_MARK=${nodeId}/`)) marked.push(pid);
  }
  return marked.sort((a, b) => a - b);
};

async function kill(server: ServerProcess): Promise<void> {
  server.signal('SIGKILL');
  await server.exited;
}

async function serves(url: string, engine: string): Promise<void> {
  const request = taskRequest({ engine, max_tokens: 5 });
  expect((await post(url, '/v1/tasks', request)).status).toBe(202);
  expect((await readStream(url, request.task_id)).at(-1)).toMatchObject({ event: 'end', data: { tokens_out: 5 } });
}

describe('after kill -9 of the control plane', () => {
  it.each(['llamacpp', 'vllm', 'tgi', 'triton'])('%s: healthy engines go on without a reload', async (engine) => {
    const config = simConfig({ engine, replicas: 2 });
    const first = await start(config);
    const before = await engines();
    expect(before).toHaveLength(2);
    await kill(first);
    expect(await engines()).toEqual(before);

    const second = await start(config);
    expect(await engines()).toEqual(before);
    await serves(second.url, engine);
    const log = await readFile(join(home, 'logs', 'engine-sim-0.log'), 'utf8');
    expect(log.match(/engine-sim: ready on/g)).toHaveLength(1);

    // An adopted engine that dies is noticed and started anew; a stop ends the ones that were never our children.
    process.kill(Number(before[0]), 'SIGKILL');
    await expect.poll(engines).not.toContain(before[0]);
    const restarts = async () => (await replicas(second.url)).map(({ restartCount }) => restartCount).sort();
    await expect.poll(restarts).toEqual([0, 1]);
    await expect.poll(async () => (await replicas(second.url)).every(({ state }) => state === 'READY')).toBe(true);
    second.signal('SIGINT');
    expect(await second.exited).toEqual({ code: 0, signal: null });
    expect(processesOf(home)).toEqual([]);
  });

  it('a sick engine is ended, and replaced', async () => {
    const config = simConfig({ replicas: 2 });
    const first = await start(config);
    const [sick, well] = await engines();
    await kill(first);
    process.kill(Number(sick), 'SIGSTOP');
    const second = await start(config);
    await expect
      .poll(async () => (await replicas(second.url)).every(({ state }) => state === 'READY'), { timeout: 25_000 })
      .toBe(true);
    const after = await engines();
    expect(after).toContain(well);
    expect(after).not.toContain(sick);
    expect(after).toHaveLength(2);
    await serves(second.url, 'llamacpp');
  }, 60_000);

  it('engines that would be started otherwise now are replaced', async () => {
    const first = await start(simConfig({ replicas: 1, slots: 1 }));
    const [old] = await engines();
    await kill(first);
    const second = await start(simConfig({ replicas: 1, slots: 2 }));
    const after = await engines();
    expect(after).toHaveLength(1);
    expect(after).not.toContain(old);
    await serves(second.url, 'llamacpp');
  });

  it('an engine that was written down nowhere is ended', async () => {
    const config = simConfig({ replicas: 1 });
    const first = await start(config);
    const known = await engines();
    await kill(first);
    const nodeId = (await readFile(join(home, 'run', 'node-id'), 'utf8')).trim();
    const env = { PATH: process.env.PATH ?? '', LLAMA_ORCH_MARK: `${nodeId}/sim-7/${randomUUID()}` };
    const unknown = spawn('sleep', ['600'], { env, detached: true, stdio: 'ignore' });
    const ended = new Promise((resolve) => unknown.once('exit', (_code, signal) => resolve(signal)));
    expect(await engines()).toHaveLength(2);
    const second = await start(config);
    expect(await ended).toBe('SIGTERM');
    expect(await engines()).toEqual(known);
    await serves(second.url, 'llamacpp');
  });

  it('engines of pools that are gone are ended', async () => {
    const first = await start(simConfig({ replicas: 2 }));
    const before = await engines();
    await kill(first);
    const second = await start(simConfig({ replicas: 1 }));
    expect(await engines()).toHaveLength(1);
    expect(before).toContain((await engines())[0]);
    await serves(second.url, 'llamacpp');
  });
});
