/** How lost engines are told to an operator, with real processes that are lost in every way there is. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { PrismaPg } from '@prisma/adapter-pg';
import { graphql } from 'graphql';
import { afterEach, describe, expect, it } from 'vitest';
import { readEnvironment } from '../../src/config/environment.js';
import { parseConfig } from '../../src/config/load.js';
import { buildSchema } from '../../src/schema/schema.js';
import { startControlPlane } from '../../src/server/compose.js';
import { insertCrash } from '../../src/store/crashes.js';
import { PrismaClient } from '../../src/store/generated/prisma/client.js';
import { createDatabase, openDatabase } from '../support/database.js';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { post, readStream, taskRequest } from '../support/rest.js';
import { makeHome } from '../support/server.js';
import { seedPool } from '../support/tasks.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const CRASH = `id replicaName at modelRef engineVersion exitCode signal fault message fix lastLines launchArgs
  flagChanges { flag before after } ranForMs readyForMs`;
const CRASHES = `{ pools {
  replicas { name state lastCrash { ${CRASH} } }
  crashes(first: 100) { edges { node { id at fault signal } } }
  events(first: 100) { edges { node { kind message detail replica { name } } } } } }`;

interface Crash {
  readonly id: string;
  readonly at: string;
  readonly fault: string;
  readonly signal: string | null;
  readonly lastLines: readonly string[];
  readonly launchArgs: readonly string[];
}
interface Event {
  readonly kind: string;
  readonly message: string;
  readonly detail: Record<string, unknown>;
}

/** Everything about the only pool, with its only replica. */
async function look(url: string) {
  const { data, errors } = await gql(url, CRASHES);
  expect(errors).toBeUndefined();
  const [pool] = data.pools;
  const nodes = <Node>(of: { edges: { node: Node }[] }): Node[] => of.edges.map(({ node }) => node);
  const [{ state, lastCrash }] = pool.replicas;
  const events = nodes<Event>(pool.events).filter(({ kind }) => kind === 'replica_crashed');
  return { state, lastCrash: lastCrash as Crash | null, crashes: nodes<Crash>(pool.crashes), events };
}

const one = (flags: string[] = []) => simConfig({ replicas: 1, slots: 1, flags });

let running: World | null = null;
afterEach(async () => {
  await running?.[Symbol.asyncDispose]();
  running = null;
});

async function start(config: string, expectNotReady = false): Promise<World> {
  running = await startWorld({ config, expectNotReady });
  return running;
}

/** The engine that is ready after the one with that pid. */
async function engine({ database }: World, after: number | null): Promise<{ pid: number; endpoint: string }> {
  const sql = "SELECT pid, endpoint FROM replicas WHERE state = 'READY' AND pid IS DISTINCT FROM $1";
  const read = () => database.query<{ pid: number; endpoint: string }>(sql, [after]);
  await expect.poll(async () => (await read()).length).toBe(1);
  const [row] = await read();
  if (row === undefined) throw new Error('the engine is gone again');
  return row;
}

describe('an engine that was ready', () => {
  it.runIf(LONG)(
    'and is lost leaves a record each time, the newest first; one that is stopped leaves none',
    async () => {
      const world = await start(one());
      expect(await look(world.url)).toMatchObject({ lastCrash: null, crashes: [], events: [] });
      const restart = 'mutation { restartReplica(input: { replica: "sim-0" }) { __typename } }';
      const { pid: stopped } = await engine(world, null);
      expect((await gql(world.url, restart)).data).toEqual({ restartReplica: { __typename: 'OperationAccepted' } });

      // From within, at a token.
      const { pid: lost, endpoint } = await engine(world, stopped);
      expect((await post(endpoint, '/sim/control', { fault: ['crash-at-token:3'] })).status).toBe(200);
      const request = taskRequest({ max_tokens: 8 });
      expect((await post(world.url, '/v1/tasks', request)).status).toBe(202);
      expect((await readStream(world.url, request.task_id)).at(-1)).toMatchObject({ event: 'end' });
      await expect.poll(async () => (await look(world.url)).events).toHaveLength(1);
      const first = await look(world.url);
      expect(first.lastCrash).toMatchObject({
        ...{ replicaName: 'sim-0', modelRef: 'sim-7b', engineVersion: expect.any(String) },
        ...{ exitCode: null, signal: 'SIGABRT', fix: expect.any(String), flagChanges: [] },
        ...{ ranForMs: expect.any(Number), readyForMs: expect.any(Number) },
      });
      expect(first.lastCrash?.lastLines.join('\n')).toContain('GGML_ASSERT(cur_backend_id != -1) failed');
      expect(first.lastCrash?.launchArgs).toEqual(expect.arrayContaining(['--protocol', 'llamacpp', '--slots', '1']));

      // From outside.
      process.kill((await engine(world, lost)).pid, 'SIGKILL');
      await expect.poll(async () => (await look(world.url)).events).toHaveLength(2);
      const second = await look(world.url);
      expect(second.crashes.map(({ signal }) => signal)).toEqual(['SIGKILL', 'SIGABRT']);
      expect(second.lastCrash?.id).toBe(second.crashes[0]?.id);
      expect(second.events[0]).toMatchObject({
        ...{ kind: 'replica_crashed', message: expect.stringContaining('SIGKILL'), replica: { name: 'sim-0' } },
        detail: { fault: 'ENGINE_EXITED', exit_code: null, signal: 'SIGKILL', flag_changes: [] },
      });

      const node = 'query ($id: ID!) { node(id: $id) { ... on CrashRecord { signal } } }';
      expect((await gql(world.url, node, { id: second.lastCrash?.id })).data).toEqual({ node: { signal: 'SIGKILL' } });
      const page =
        '{ pools { crashes(first: 1) { edges { cursor node { signal } } pageInfo { hasNextPage endCursor } } } }';
      const [{ crashes }] = (await gql(world.url, page)).data.pools;
      expect(crashes).toMatchObject({ edges: [{ node: { signal: 'SIGKILL' } }], pageInfo: { hasNextPage: true } });
      const next = page.replace('first: 1', `first: 1, after: "${crashes.pageInfo.endCursor}"`);
      const [{ crashes: rest }] = (await gql(world.url, next)).data.pools;
      expect(rest).toMatchObject({ edges: [{ node: { signal: 'SIGABRT' } }], pageInfo: { hasNextPage: false } });
    },
  );
});

describe('an engine that never becomes ready', () => {
  it.runIf(LONG)('for want of memory leaves its exit code and what it said', async () => {
    const { url } = await start(one(['--fault', 'oom-at-load']), true);
    await expect.poll(async () => (await look(url)).lastCrash).not.toBeNull();
    const { lastCrash } = await look(url);
    expect(lastCrash).toMatchObject({
      ...{ fault: 'VRAM_OOM_LOAD', exitCode: 1, signal: null, engineVersion: null, readyForMs: null },
      ...{ fix: expect.stringContaining('smaller'), flagChanges: [] },
    });
    expect(lastCrash?.lastLines.join('\n')).toContain('unable to allocate CUDA0 buffer');
  });

  it.runIf(LONG)('as it serves another model was ended by us', async () => {
    const { url } = await start(one(['--fault', 'other-model']), true);
    await expect.poll(async () => (await look(url)).lastCrash).not.toBeNull();
    expect((await look(url)).lastCrash).toMatchObject({
      ...{ fault: 'WRONG_MODEL', exitCode: null, signal: null, readyForMs: null },
    });
  });

  it('may say what it likes: what is shown has no secret and no escape', async () => {
    const home = await makeHome();
    try {
      const program = join(home.path, 'engine.sh');
      const said = String.raw`'\033[31mred\033[0m \007bell\r\nAuthorization: Bearer abcdef123\n\377\n'`;
      await writeFile(program, `#!/bin/sh\nprintf ${said}\nexit 7\n`, { mode: 0o755 });
      const { url } = await start(
        `gpu: { mode: simulated, devices: [{ name: G, memory_bytes: 1073741824 }] }
pools:
  - id: sim
    engine: vllm
    model: some/model
    devices: [0]
    provisioning: { mode: binary, binary: { url: 'file://${program}' }, flags: ['--api-key=topsecret', '--hf-token', 'topsecret'] }
`,
        true,
      );
      await expect.poll(async () => (await look(url)).lastCrash).not.toBeNull();
      const { lastCrash, events } = await look(url);
      expect(lastCrash).toMatchObject({ fault: 'ENGINE_EXITED', exitCode: 7, signal: null });
      expect(lastCrash?.lastLines).toEqual(['red  bell', 'Authorization: [redacted]', '\ufffd']);
      expect(lastCrash?.launchArgs.slice(-3)).toEqual(['--api-key=[redacted]', '--hf-token', '[redacted]']);
      // The code points below U+0020 and the escape sequence's own letters.
      expect(JSON.stringify({ lastCrash, events })).not.toMatch(/abcdef|topsecret|\[31m|\\u00/);
    } finally {
      await running?.[Symbol.asyncDispose]();
      running = null;
      await home.remove();
    }
  });
});

describe('flags that were changed between two starts of the control plane', () => {
  it('are told with the crash', async () => {
    const [home, database] = await Promise.all([makeHome(), createDatabase()]);
    const up = (config: string) =>
      startControlPlane({
        environment: readEnvironment({
          ORCHD_ADDR: '127.0.0.1:0',
          LLAMA_ORCH_HOME: home.path,
          DATABASE_URL: database.url,
        }),
        ...{ config: parseConfig(config, 'test.yaml'), configDir: home.path, embeddedDatabase: false },
        ...{ logTo: new Writable({ write: (_line, _encoding, done) => done() }), poolsReadyDeadlineMs: 0 },
        ...{ onStep: () => {}, onFatal: () => {}, onKillable: () => {} },
      });
    const good = async (): Promise<unknown[]> =>
      database.query('SELECT FROM replicas WHERE good_launch_args IS NOT NULL');
    try {
      await using first = await up(one(['--drain-ms', '5']));
      await expect.poll(good).toHaveLength(1);
      expect(await look(first.url)).toMatchObject({ lastCrash: null });
      await first.close();

      const broken = one(['--fault', 'oom-at-load', '--drain-ms=7', '--api-key', 'topsecret']);
      await using second = await up(broken.replace('ctx: 4096', 'ctx: 8192'));
      await expect.poll(async () => (await look(second.url)).events).not.toHaveLength(0);
      const { lastCrash, events } = await look(second.url);
      const changes = [
        { flag: '--api-key', before: null, after: '[redacted]' },
        { flag: '--ctx', before: '4096', after: '8192' },
        { flag: '--drain-ms', before: '5', after: '7' },
        { flag: '--fault', before: null, after: 'oom-at-load' },
      ];
      expect(lastCrash).toMatchObject({ fault: 'VRAM_OOM_LOAD', flagChanges: changes });
      expect(events.at(-1)?.detail).toMatchObject({ exit_code: 1, flag_changes: changes });
    } finally {
      await database[Symbol.asyncDispose]();
      await home.remove();
    }
  });
});

describe('the last crashes of many replicas', () => {
  it('are read with as many statements as those of one', async () => {
    await using opened = await openDatabase();
    const prisma = new PrismaClient({
      adapter: new PrismaPg({ connectionString: opened.url }),
      log: [{ emit: 'event', level: 'query' }],
    });
    const statements: string[] = [];
    prisma.$on('query', ({ query }) => statements.push(query));
    const ask = async (replicas: number) => {
      statements.length = 0;
      const contextValue = { prisma, services: {}, correlationId: 'c', nowMs: () => 0 };
      const source = `{ pools { replicas { name lastCrash { fault lastLines } } crashes(first: 5) { edges { node { fault } } } } }`;
      const { data, errors } = await graphql({ schema: buildSchema(), source, contextValue });
      expect(errors).toBeUndefined();
      const [pool] = JSON.parse(JSON.stringify(data)).pools;
      expect(pool.replicas).toEqual(
        Array.from({ length: replicas }, (_, at) => ({
          name: `p-${at}`,
          lastCrash: { fault: `newest of ${at}`, lastLines: ['x'] },
        })),
      );
      return statements.length;
    };
    const facts = {
      poolId: 'p',
      modelRef: 'm',
      engineVersion: null,
      exitCode: 1,
      signal: null,
      message: '',
      fix: null,
    };
    const seed = async (replicas: number) => {
      const { replicaIds } = await seedPool(opened.db, { replicas });
      for (const [at, id] of replicaIds.entries()) {
        for (const [age, fault] of [`newest of ${at}`, 'older'].entries()) {
          await insertCrash(opened.db, {
            ...{ ...facts, id: `00000000-0000-4000-8000-0000000${at}000${age}`, replicaId: id, fault },
            ...{ atMs: Date.UTC(2026, 0, 1) - age, lastLines: ['x'], launchArgs: null, flagChanges: [] },
            ...{ ranForMs: 1, readyForMs: null },
          });
        }
      }
    };
    try {
      await seed(1);
      const ofOne = await ask(1);
      await seed(6);
      expect(await ask(6)).toBe(ofOne);
      expect(ofOne).toBeGreaterThan(0);
    } finally {
      await prisma.$disconnect();
    }
  });
});
