/** What a start is prepared with, and what a database that is away does to that: nothing. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../../src/config/load.js';
import type { PoolConfig } from '../../../src/config/schema.js';
import { freePort } from '../../../src/host/ports.js';
import { modelSource } from '../../../src/services/provisioning/modelSource.js';
import { folderOf } from '../../../src/services/provisioning/plan.js';
import type { PrepareRun } from '../../../src/services/provisioning/prepare.js';
import { Provisioning } from '../../../src/services/provisioning/provisioning.js';
import { digestOf } from '../../../src/services/provisioning/verify.js';
import { Database } from '../../../src/store/database.js';
import { upsertPreparedEngine } from '../../../src/store/preparedEngines.js';
import { Telemetry } from '../../../src/telemetry/events.js';
import { createLogger } from '../../../src/telemetry/log.js';
import { createMetrics } from '../../../src/telemetry/metrics.js';
import { openDatabase } from '../../support/database.js';
import { makeFakeTools, writeProgram } from '../../support/fakeTools.js';
import { serve, startFileServer } from '../../support/fileServer.js';

const NODE = '00000000-0000-4000-8000-000000000001';
const PROGRAM = '#!/bin/sh\nexit 0\n';
const sha256 = (content: string) => createHash('sha256').update(content).digest('hex');
const never = new AbortController().signal;

let folder: string;
let logLines: string[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-preparing-'));
  await mkdir(join(folder, 'logs'));
  await writeProgram(join(folder, 'engine'), PROGRAM);
  await writeFile(join(folder, 'm.gguf'), 'a model');
  logLines = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function poolOf(provisioning: string, engine = 'llamacpp', model = 'file:m.gguf'): PoolConfig {
  const yaml = `
gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
pools: [{ id: p, engine: ${engine}, model: '${model}', provisioning: ${provisioning} }]`;
  const [pool] = parseConfig(yaml, 'orch.yaml').pools;
  if (pool === undefined) throw new Error('no pool');
  return pool;
}

const env = (searchPath = '') => ({
  ...{ homeDir: folder, configDir: folder, allowHosts: ['127.0.0.1'], simulatedGpus: true, searchPath },
});

function provisioningOf(db: Database, searchPath = ''): Provisioning {
  const logTo = new Writable({
    write: (line, _encoding, done) => {
      logLines.push(String(line));
      done();
    },
  });
  const telemetry = new Telemetry(createLogger(logTo), createMetrics());
  const logsDir = join(folder, 'logs');
  return new Provisioning({ db, telemetry, nodeId: NODE, logsDir, pools: [], env: env(searchPath) });
}

/** Steps with what they said. */
function newRun(onStep: (name: string) => Promise<void> = async () => {}): PrepareRun & { readonly said: string[] } {
  const said: string[] = [];
  return {
    said,
    signal: never,
    step: async (name, work) => {
      await onStep(name);
      return work((detail) => said.push(`${name}: ${detail}`));
    },
  };
}

async function deadDatabase(): Promise<Database> {
  return new Database(`postgres://nobody@127.0.0.1:${await freePort()}/none`, () => {});
}

const binary = (rest = '') =>
  `{ mode: binary, binary: { url: 'file://${folder}/engine', checksum: 'sha256:${sha256(PROGRAM)}' }${rest} }`;

describe('with a database that is away', () => {
  it('a program and a model are verified all the same, and what is not remembered is told', async () => {
    await using db = await deadDatabase();
    const pool = poolOf(binary(`, model: { checksum: 'sha256:${sha256('a model')}' }`));
    const prepare = provisioningOf(db).prepareFor(pool);
    expect(await prepare(pool.model, newRun())).toEqual({ engineDigest: sha256(PROGRAM) });
    await writeFile(join(folder, 'm.gguf'), 'another');
    expect(await prepare(pool.model, newRun())).toMatchObject({ code: 'CHECKSUM_MISMATCH' });
    for (const what of ['reading of a file digest', 'file digest', 'prepared engine'])
      expect(logLines.join('')).toContain(what);
  });

  it('what was downloaded is found again by what stands beside it', async () => {
    await using files = await startFileServer(serve(Buffer.from(PROGRAM)));
    await using db = await deadDatabase();
    const url = `${files.url}/engine`;
    const pool = poolOf(
      `{ mode: binary, allow_binary_downloads: true, binary: { url: '${url}', checksum: 'sha256:${sha256(PROGRAM)}' } }`,
    );
    for (let life = 0; life < 2; life += 1) {
      const made = await provisioningOf(db).prepareFor(pool)(pool.model, newRun());
      expect(made).toEqual({ engineDigest: sha256(PROGRAM) });
    }
    expect(files.requests).toHaveLength(1);
  });
});

describe('a digest', () => {
  it('is read again when the file has changed, and only then', async () => {
    await using opened = await openDatabase();
    const deps = { db: opened.db, nodeId: NODE, onForgotten: () => {} };
    const path = join(folder, 'm.gguf');
    const said: string[] = [];
    const look = () => {
      said.length = 0;
      return digestOf(deps, path, { signal: never, say: (detail) => said.push(detail) });
    };
    expect(await look()).toBe(sha256('a model'));
    expect(said).toContain('7 of 7 bytes read');
    expect(await look()).toBe(sha256('a model'));
    expect(said).toEqual([`unchanged since it was read: sha256 ${sha256('a model')}`]);
    await writeFile(path, 'a modem');
    await utimes(path, new Date(), new Date(Date.now() + 10_000));
    expect(await look()).toBe(sha256('a modem'));
    expect(said).toContain('7 of 7 bytes read');
  });
});

describe('a model that fails its checksum', () => {
  it('does not lose the engine that was built before it', async () => {
    await using opened = await openDatabase();
    const tools = await makeFakeTools(folder);
    const repo = join(folder, 'repo');
    await mkdir(repo);
    await writeFile(join(repo, 'engine'), PROGRAM);
    const git = `#!/bin/sh\ncase "$*" in *checkout*) cp '${repo}/engine' '${folder}'/engines/*/source/ ;; *init*) for at; do :; done; mkdir -p "$at/.git" ;; esac\n`;
    await writeProgram(join(tools.folder, 'git'), git);
    const pool = poolOf(
      `{ mode: source, source: { repo: 'file://${repo}', ref: b1 }, model: { checksum: 'sha256:${sha256('another')}' } }`,
    );
    const calls = async () => (await readFile(tools.callsFile, 'utf8')).trim().split('\n').length;
    for (let life = 0; life < 2; life += 1) {
      const prepare = provisioningOf(opened.db, tools.folder).prepareFor(pool);
      expect(await prepare(pool.model, newRun())).toMatchObject({ code: 'CHECKSUM_MISMATCH' });
      expect(await calls()).toBe(2);
    }
    expect(await readdir(folderOf(pool, env()))).toContain('prepared.json');
  });
});

describe('two pools with the same engine', () => {
  it('one does not wait while the other verifies its model', async () => {
    await using opened = await openDatabase();
    const provisioning = provisioningOf(opened.db);
    let go = () => {};
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    let verifying = false;
    const slow = poolOf(binary(`, model: { checksum: 'sha256:${sha256('a model')}' }`));
    const first = provisioning.prepareFor(slow)(
      slow.model,
      newRun(async (name) => {
        if (name !== 'verify_model') return;
        verifying = true;
        await held;
      }),
    );
    await expect.poll(() => verifying).toBe(true);
    const quick = poolOf(binary());
    expect(await provisioning.prepareFor(quick)(quick.model, newRun())).toEqual({ engineDigest: sha256(PROGRAM) });
    go();
    expect(await first).toEqual({ engineDigest: sha256(PROGRAM) });
  });
});

describe('a model reference', () => {
  const source = (engine: string, ref: string) => modelSource(poolOf('{ mode: simulated }', engine), '/c', ref);

  it('that an engine would take for an option is none', () => {
    expect(source('vllm', '--trust-remote-code')).toBeNull();
    expect(source('tgi', '-x')).toBeNull();
    expect(source('vllm', 'org/name')).toBe('org/name');
    expect(source('llamacpp', '-x.gguf')).toBe('/c/-x.gguf');
  });

  it.each(['file:///%zz', 'file:///a%2Fb', 'file:///a%00b', 'file://host/a', 'file:////a'])('%s is broken', (ref) => {
    expect(source('llamacpp', ref)).toBeNull();
  });
});

describe('prepared engines', () => {
  it('have one row for each place, and keep it when they are found again', async () => {
    await using opened = await openDatabase();
    const row = {
      nodeId: NODE,
      engine: 'llamacpp',
      mode: 'binary',
      version: null,
      buildRef: 'u',
      digest: 'd',
    } as const;
    const program = (binaryPath: string) => ({ ...row, flags: [], binaryPath, image: null });
    const image = { ...row, mode: 'container', flags: [], binaryPath: null, image: 'i' };
    const read = () =>
      opened.query(`SELECT binary_path, image, digest, prepared_at FROM prepared_engines ORDER BY binary_path`);
    for (const engine of [program('/a/x'), program('/b/x'), image]) await upsertPreparedEngine(opened.db, engine);
    const before = await read();
    expect(before).toHaveLength(3);
    for (const engine of [program('/a/x'), program('/b/x'), image]) await upsertPreparedEngine(opened.db, engine);
    expect(await read()).toEqual(before);
    await upsertPreparedEngine(opened.db, { ...program('/a/x'), digest: 'e' });
    expect(await read()).toMatchObject([{ digest: 'e' }, { digest: 'd' }, { digest: 'd' }]);
  });
});
