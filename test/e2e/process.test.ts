import { readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createDatabase } from '../support/database.js';
import { LONG } from '../support/long.js';
import { indicesOf, post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { makeHome, processesOf, runToEnd, startServer } from '../support/server.js';

const homes: { path: string; remove: () => Promise<void> }[] = [];

async function home(): Promise<string> {
  const made = await makeHome();
  homes.push(made);
  return made.path;
}

afterEach(async () => {
  for (const { path, remove } of homes.splice(0)) {
    for (const pid of processesOf(path)) process.kill(pid, 'SIGKILL');
    await remove();
  }
});

function demoTask(overrides: Record<string, unknown> = {}) {
  return taskRequest({ model_ref: 'demo-7b', ...overrides });
}

/** Reads until the connection breaks or the stream ends, keeping what came. */
async function readUntilCut(url: string, taskId: string, frames: SseFrame[]): Promise<void> {
  const collect = (frame: SseFrame) => {
    frames.push(frame);
    return false;
  };
  await readStream(url, taskId, { until: collect }).catch(() => {});
}

describe('the life of the program', () => {
  it('resumes a subscriber without gap or duplicate after kill -9 of the control plane', async () => {
    const dir = await home();
    const first = await startServer(dir);
    const request = demoTask({ max_tokens: 60, seed: 5 });
    expect((await post(first.url, '/v1/tasks', request)).status).toBe(202);
    const before: SseFrame[] = [];
    const reading = readUntilCut(first.url, request.task_id, before);
    await expect.poll(() => indicesOf(before).length, { timeout: 10_000 }).toBeGreaterThan(20);
    first.signal('SIGKILL');
    await Promise.all([reading, first.exited]);
    expect(before.at(-1)?.event).toBe('token');

    const second = await startServer(dir);
    const rest = await readStream(second.url, request.task_id, { after: Number(before.at(-1)?.id) });
    expect(indicesOf([...before, ...rest])).toEqual(Array.from({ length: 60 }, (_, index) => index));
    expect(rest.at(-1)?.event).toBe('end');
    const undisturbed = demoTask({ max_tokens: 60, seed: 5 });
    await post(second.url, '/v1/tasks', undisturbed);
    expect(tokensOf([...before, ...rest])).toEqual(tokensOf(await readStream(second.url, undisturbed.task_id)));
    const stored = await readStream(second.url, request.task_id);
    expect(tokensOf(stored)).toEqual(tokensOf([...before, ...rest]));

    second.signal('SIGINT');
    expect((await second.exited).code).toBe(0);
    expect(processesOf(dir)).toEqual([]);
  });

  it.runIf(LONG)('ends best_effort tasks of a killed control plane with WORKER_RESET', async () => {
    const dir = await home();
    const first = await startServer(dir);
    const request = demoTask({ max_tokens: 200, determinism: 'best_effort' });
    await post(first.url, '/v1/tasks', request);
    await readStream(first.url, request.task_id, { until: (frame) => frame.data.i === 3 });
    first.signal('SIGKILL');
    await first.exited;
    const second = await startServer(dir);
    const frames = await readStream(second.url, request.task_id);
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'WORKER_RESET', retriable: true } });
    second.signal('SIGINT');
    await second.exited;
  });

  it.runIf(LONG)('goes on when its PostgreSQL is killed, and stops at once on a second Ctrl-C', async () => {
    const dir = await home();
    const server = await startServer(dir);
    const finished = demoTask({ max_tokens: 3 });
    await post(server.url, '/v1/tasks', finished);
    await readStream(server.url, finished.task_id);
    const postmaster = Number(
      (await readFile(join(dir, 'postgres', await dataFolder(dir), 'postmaster.pid'), 'utf8')).split('\n')[0],
    );
    process.kill(postmaster, 'SIGKILL');
    const later = demoTask({ max_tokens: 3 });
    const accepted = async () => (await post(server.url, '/v1/tasks', later).catch(() => null))?.status;
    await expect.poll(accepted, { timeout: 20_000, interval: 100 }).toBe(202);
    expect((await readStream(server.url, later.task_id)).at(-1)?.event).toBe('end');
    expect((await readStream(server.url, finished.task_id)).at(-1)?.event).toBe('end');

    await post(server.url, '/v1/tasks', demoTask({ max_tokens: 3000 }));
    server.signal('SIGINT');
    server.signal('SIGINT');
    const exit = await server.exited;
    expect([0, 130]).toContain(exit.code);
    await expect.poll(() => processesOf(dir), { timeout: 5_000 }).toEqual([]);
  });
});

async function dataFolder(dir: string): Promise<string> {
  const entries = await readdir(join(dir, 'postgres'), { withFileTypes: true });
  return entries.find((entry) => entry.isDirectory())?.name ?? '';
}

describe('start-up failures say what is wrong and how to mend it, and leave nothing running', () => {
  it('the port is taken', async () => {
    const dir = await home();
    const blocker = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => blocker.once('listening', resolve));
    const address = blocker.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const { code, output } = await runToEnd(['up'], { LLAMA_ORCH_HOME: dir, ORCHD_ADDR: `127.0.0.1:${port}` });
    blocker.close();
    expect(code).toBe(1);
    expect(output).toMatch(new RegExp(`127.0.0.1:${port} is taken`));
    expect(output).toMatch(/Fix: .*ORCHD_ADDR/);
    expect(processesOf(dir)).toEqual([]);
  });

  it('the data directory is in use', async () => {
    const dir = await home();
    const server = await startServer(dir);
    const { code, output } = await runToEnd(['up'], { LLAMA_ORCH_HOME: dir, ORCHD_ADDR: '127.0.0.1:0' });
    expect(code).toBe(1);
    expect(output).toContain(String(server.pid));
    expect(output).toMatch(/Fix:/);
    server.signal('SIGTERM');
    expect((await server.exited).code).toBe(0);
  });

  it('the data directory cannot be written', async () => {
    const dir = await home();
    await writeFile(join(dir, 'file'), '');
    const { code, output } = await runToEnd(['up'], {
      LLAMA_ORCH_HOME: join(dir, 'file', 'below'),
      ORCHD_ADDR: '127.0.0.1:0',
    });
    expect(code).toBe(1);
    expect(output).toMatch(/Fix: .*LLAMA_ORCH_HOME/);
  });

  it('the database refuses, without its password in the message', async () => {
    const dir = await home();
    const env = {
      LLAMA_ORCH_HOME: dir,
      ORCHD_ADDR: '127.0.0.1:0',
      DATABASE_URL: 'postgresql://me:hunter2@127.0.0.1:1/x',
    };
    for (const args of [['up'], ['migrate']]) {
      const { code, output } = await runToEnd(args, env);
      expect(code).toBe(1);
      expect(output).toMatch(/database refused us.*ECONNREFUSED/);
      expect(output).toMatch(/Fix: .*DATABASE_URL/);
      expect(output).not.toContain('hunter2');
    }
    expect(processesOf(dir)).toEqual([]);
  });

  it.runIf(LONG)('the migrations have drifted', async () => {
    const dir = await home();
    await using database = await createDatabase();
    await database.query(`UPDATE _prisma_migrations SET checksum = 'other'`);
    const { code, output } = await runToEnd(['up'], {
      LLAMA_ORCH_HOME: dir,
      ORCHD_ADDR: '127.0.0.1:0',
      DATABASE_URL: database.url,
    });
    expect(code).toBe(1);
    expect(output).toMatch(/migration drift/);
    expect(output).toMatch(/Fix:/);
  });

  it('the engine binary is missing', async () => {
    const dir = await home();
    const file = join(dir, 'config.yaml');
    await writeFile(
      file,
      `gpu: { mode: simulated, devices: [{ name: G, memory_bytes: 1073741824 }] }
pools:
  - { id: real, engine: llamacpp, model: /nowhere/model.gguf, devices: [0], provisioning: { mode: binary, binary: { url: 'file:///nowhere/llama-server' } } }
`,
    );
    const { code, output } = await runToEnd(['up', '--config', file], {
      LLAMA_ORCH_HOME: dir,
      ORCHD_ADDR: '127.0.0.1:0',
    });
    expect(code).toBe(1);
    expect(output).toMatch(/Pool real: the engine binary \/nowhere\/llama-server does not exist/);
    expect(output).toMatch(/Fix:/);
    expect(processesOf(dir)).toEqual([]);
  });

  it('the configuration has an unknown key', async () => {
    const dir = await home();
    const file = join(dir, 'config.yaml');
    await writeFile(file, 'pools:\n  - id: a\n    engine: llamacpp\n    model: m\n    devices: []\n    modle: typo\n');
    const { code, output } = await runToEnd(['up', '--config', file], {
      LLAMA_ORCH_HOME: dir,
      ORCHD_ADDR: '127.0.0.1:0',
    });
    expect(code).toBe(1);
    expect(output).toMatch(/config\.yaml:6:\d+ .*pools\[?\.?0\]?.*modle/);
  });
});
