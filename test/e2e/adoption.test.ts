/** What becomes of the engines when the control plane is killed: the next one goes on with those that are well. */
import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LLAMA_SERVER_IN_PLACE, makeFakeTools, writeProgram } from '../support/fakeTools.js';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
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
async function start(config: string, env: Record<string, string> = {}): Promise<ServerProcess> {
  const file = join(home, 'config.yaml');
  await writeFile(file, config);
  const server = await startServer(home, { args: ['--config', file], env });
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
  const engineNames = LONG ? ['llamacpp', 'vllm', 'tgi', 'triton'] : ['llamacpp'];
  it.each(engineNames)('%s: healthy engines go on without a reload', async (engine) => {
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

  it.runIf(LONG)(
    'a sick engine is ended, and replaced',
    async () => {
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
    },
    60_000,
  );

  it.runIf(LONG)('engines that would be started otherwise now are replaced', async () => {
    const first = await start(simConfig({ replicas: 1, slots: 1 }));
    const [old] = await engines();
    await kill(first);
    const second = await start(simConfig({ replicas: 1, slots: 2 }));
    const after = await engines();
    expect(after).toHaveLength(1);
    expect(after).not.toContain(old);
    await serves(second.url, 'llamacpp');
  });

  it.runIf(LONG)('an engine that was written down nowhere is ended', async () => {
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

  it.runIf(LONG)('engines of pools that are gone are ended', async () => {
    const first = await start(simConfig({ replicas: 2 }));
    const before = await engines();
    await kill(first);
    const second = await start(simConfig({ replicas: 1 }));
    expect(await engines()).toHaveLength(1);
    expect(before).toContain((await engines())[0]);
    await serves(second.url, 'llamacpp');
  });
});

describe('after kill -9 of the control plane, an engine of another build', () => {
  const sha256 = async (path: string) =>
    createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
  const config = (provisioning: string) => `
gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
pools: [{ id: p, engine: llamacpp, model: 'file:m.gguf', ctx: 4096, slots: 1, provisioning: ${provisioning} }]
`;

  /** Starts, looks which engine runs, and is killed. */
  async function lifeWith(provisioning: string, env: Record<string, string> = {}): Promise<number | undefined> {
    const server = await start(config(provisioning), env);
    const running = await engines();
    expect(running).toHaveLength(1);
    await kill(server);
    return running[0];
  }

  it.runIf(LONG)(
    'is replaced: a program or a model whose promised digest has changed',
    async () => {
      const [program, model] = [join(home, 'llama-server'), join(home, 'm.gguf')];
      await writeProgram(program, LLAMA_SERVER_IN_PLACE);
      await writeFile(model, 'a model');
      const life = async () =>
        lifeWith(`{ mode: binary, binary: { url: 'file://${program}', checksum: 'sha256:${await sha256(program)}' },
        model: { checksum: 'sha256:${await sha256(model)}' } }`);
      const first = await life();
      expect(await life()).toBe(first);
      await appendFile(model, ', retrained');
      const second = await life();
      expect(second).not.toBe(first);
      await appendFile(program, '// rebuilt\n');
      const third = await life();
      expect(third).not.toBe(second);
      expect(await life()).toBe(third);
    },
    120_000,
  );

  it.runIf(LONG)(
    'is replaced: a program without a promise that is another one now',
    async () => {
      const program = join(home, 'llama-server');
      await writeProgram(program, LLAMA_SERVER_IN_PLACE);
      await writeFile(join(home, 'm.gguf'), 'a model');
      const life = () => lifeWith(`{ mode: binary, binary: { url: 'file://${program}' } }`);
      const first = await life();
      expect(await life()).toBe(first);
      await appendFile(program, '// rebuilt\n');
      expect(await life()).not.toBe(first);
    },
    120_000,
  );

  it.runIf(LONG)(
    'is replaced: sources at another ref',
    async () => {
      const { folder } = await makeFakeTools(home);
      const repo = join(home, 'repo');
      await mkdir(repo);
      await writeFile(join(repo, 'engine'), LLAMA_SERVER_IN_PLACE);
      await writeFile(join(home, 'm.gguf'), 'a model');
      const git = (...args: string[]) =>
        execFileSync('git', ['-C', repo, '-c', 'user.name=t', '-c', 'user.email=t@t.test', ...args]);
      git('init', '--quiet');
      git('add', '.');
      git('commit', '--quiet', '-m', 'engine');
      for (const tag of ['b1', 'b2']) git('tag', tag);
      const life = (ref: string) =>
        lifeWith(`{ mode: source, source: { repo: 'file://${repo}', ref: ${ref} } }`, {
          PATH: `${folder}:${process.env.PATH}`,
        });
      const first = await life('b1');
      expect(await life('b1')).toBe(first);
      expect(await life('b2')).not.toBe(first);
    },
    120_000,
  );
});
