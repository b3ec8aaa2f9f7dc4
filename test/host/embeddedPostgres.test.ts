import { execFile } from 'node:child_process';
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/host/embeddedPostgres.js';
import { checkMajor } from '../../src/host/pgCluster.js';
import { findPostmaster, stopPostmaster } from '../../src/host/pgPostmaster.js';
import { isAlive, listPids, readCmdline, readStat } from '../../src/host/procfs.js';
import { StartupError } from '../../src/host/startupError.js';
import { LONG } from '../support/long.js';
import { buildProgram, cleanUp, cloneIsOpen, isRoot, later, nobody, runProgram, temporaryFolder } from './support.js';

afterEach(cleanUp);

const steps: string[] = [];

async function start(dataDir: string, systemDir?: string): Promise<EmbeddedPostgres> {
  const log = (step: string): void => void steps.push(step);
  const postgres = await startEmbeddedPostgres({ dataDir, log, ...(systemDir !== undefined && { systemDir }) });
  later(() => postgres.stop('immediate'));
  return postgres;
}

async function emptyFolder(): Promise<string> {
  const folder = await temporaryFolder();
  await mkdir(join(folder, 'logs'));
  return folder;
}

let template = '';

beforeAll(async () => {
  template = await realpath(await mkdtemp(join(tmpdir(), 'llama-orch-template-')));
  await chmod(template, 0o711);
  await mkdir(join(template, 'logs'));
  const postgres = await startEmbeddedPostgres({ dataDir: template, log: () => {} });
  await postgres.stop();
});

afterAll(() => rm(template, { recursive: true, force: true }));

/** A data directory with a cluster that is not running: a copy, as making one takes most of a second. */
async function dataFolder(): Promise<string> {
  const folder = await temporaryFolder();
  await promisify(execFile)('cp', ['-a', join(template, 'logs'), join(template, 'postgres'), folder]);
  return folder;
}

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000 });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

/** Processes that work on this folder, or whose server did. */
function processesOf(folder: string): number[] {
  return listPids().filter((pid) => readCmdline(pid).some((word) => word.includes(folder)));
}

async function failure(action: Promise<unknown>): Promise<unknown> {
  return action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
}

describe('built-in PostgreSQL', () => {
  test('is left running, taken over, killed and recovered', async () => {
    const dataDir = await dataFolder();
    const first = await start(dataDir);
    expect(first.version).toMatch(/^18\.\d+$/);
    expect(first.reused).toBe(false);
    expect(first.url).toMatch(/^postgresql:\/\/llama_orch:[\w-]+@127\.0\.0\.1:\d+\/llama_orch$/);
    const [facts] = await query(
      first.url,
      `SELECT current_setting('fsync') AS fsync, current_setting('server_encoding') AS encoding,
              current_setting('listen_addresses') AS listen, upper('ä') AS upper, current_setting('data_checksums') AS sums`,
    );
    expect(facts).toEqual({ fsync: 'on', encoding: 'UTF8', listen: '127.0.0.1', upper: 'Ä', sums: 'on' });
    await query(first.url, `CREATE TABLE t AS SELECT generate_series(1, 1000) AS n`);
    // Leaving `first` as it is: what a killed parent does.
    const second = await start(dataDir);
    expect(second).toMatchObject({ reused: true, pid: first.pid, url: first.url });
    await query(second.url, `INSERT INTO t VALUES (0)`);
    process.kill(second.pid, 'SIGKILL');
    expect(await first.exited).toEqual({ code: null, signal: 'SIGKILL' });
    expect(await second.exited).toEqual({ code: null, signal: null });
    const third = await start(dataDir);
    expect(third.reused).toBe(false);
    expect(await query(third.url, 'SELECT count(*)::int AS n FROM t')).toEqual([{ n: 1001 }]);
    await third.stop();
    expect(await third.exited).toEqual({ code: 0, signal: null });
    await third.stop();
    await expect.poll(() => processesOf(dataDir)).toEqual([]);
    expect((await stat(join(dataDir, 'postgres'))).mode & 0o777).toBe(0o700);
    expect((await stat(join(dataDir, 'postgres', 'password'))).mode & 0o777).toBe(0o600);
    expect(await readFile(join(dataDir, 'logs', 'postgres.log'), 'utf8')).toContain('redo done');
  });

  test.runIf(LONG)(
    'starts over a pid file whose number another process has by now, and leaves that alone',
    async () => {
      const dataDir = await dataFolder();
      const first = await start(dataDir);
      const pidFile = join(dataDir, 'postgres', 'data', 'postmaster.pid');
      const lines = (await readFile(pidFile, 'utf8')).split('\n');
      await first.stop('immediate');
      const stranger = await start(await dataFolder());
      // As a crash leaves it, after which the number went to a postgres of the same user, of another folder.
      await writeFile(pidFile, [String(stranger.pid), ...lines.slice(1)].join('\n'), { mode: 0o600 });
      if (isRoot) await chown(pidFile, nobody.uid, nobody.gid);
      const strangerTicks = readStat(stranger.pid)?.startTimeTicks ?? 0;
      const second = await start(dataDir);
      expect(second.reused).toBe(false);
      expect(await query(second.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
      expect(isAlive(stranger.pid, strangerTicks)).toBe(true);
    },
  );

  test('asks for its password, and is not signalled under a start time that is not its own', async () => {
    const postgres = await start(await dataFolder());
    const wrong = postgres.url.replace(/:[\w-]+@/, ':wrong@');
    expect(await failure(query(wrong, 'SELECT 1'))).toMatchObject({ code: '28P01' });
    const another = postgres.url.replace('llama_orch:', 'postgres:');
    expect(await failure(query(another, 'SELECT 1'))).toMatchObject({ code: '28P01' });
    const ticks = readStat(postgres.pid)?.startTimeTicks ?? 0;
    await stopPostmaster({ pid: postgres.pid, startTimeTicks: ticks - 1 }, 'immediate');
    expect(isAlive(postgres.pid, ticks)).toBe(true);
  });

  test('is not left half made when its start is aborted', async () => {
    const dataDir = await emptyFolder();
    const abort = new AbortController();
    const log = (): void => abort.abort(new Error('changed my mind'));
    const outcome = await failure(startEmbeddedPostgres({ dataDir, log, signal: abort.signal }));
    expect(outcome).toMatchObject({ message: 'changed my mind' });
    expect(await readdir(dataDir)).toEqual(['logs']);
  });

  test('ends again when its start is aborted after the server came up', async () => {
    const dataDir = await dataFolder();
    const abort = new AbortController();
    const log = (step: string): void => void (step.startsWith('starting') && abort.abort(new Error('no')));
    expect(await failure(startEmbeddedPostgres({ dataDir, log, signal: abort.signal }))).toMatchObject({
      message: 'no',
    });
    expect(findPostmaster(join(dataDir, 'postgres', 'data'))).toBeNull();
  });

  test('quotes its log when it cannot start', async () => {
    const dataDir = await dataFolder();
    const conf = join(dataDir, 'postgres', 'data', 'postgresql.conf');
    await writeFile(conf, 'no_such_setting = 1\n');
    const error = await failure(startEmbeddedPostgres({ dataDir, log: () => {} }));
    expect(error).toBeInstanceOf(StartupError);
    expect(error).toMatchObject({
      message: expect.stringContaining('no_such_setting'),
      fix: expect.stringContaining('postgres.log'),
    });
  });

  test('refuses a folder of another major version', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'PG_VERSION'), '15\n');
    const place = { folder, pgData: folder, exists: true, runAs: null, pointer: null };
    const binaries = { initdb: '', postgres: '', version: '18.4', major: '18' };
    expect(await failure(checkMajor(place, binaries))).toMatchObject({
      message: expect.stringContaining('made by PostgreSQL 15'),
    });
  });
});

describe('a killed program', () => {
  test.skipIf(isRoot && !cloneIsOpen)('leaves a server that its next start takes over and ends', async () => {
    const folder = await temporaryFolder();
    const data = join(folder, 'data');
    await mkdir(data, { mode: 0o700 });
    // As root this is the test of a plain user, too.
    if (isRoot) await chown(data, nobody.uid, nobody.gid);
    const user = isRoot ? nobody : undefined;
    const program = await buildProgram(folder);
    const first = runProgram(program, [data, 'postgres'], user);
    await first.event('ready');
    const { pid } = await first.event('pid');
    await first.kill('SIGKILL');
    const second = runProgram(program, [data, 'stop'], user);
    expect(await second.event('pid')).toMatchObject({ pid, reused: true });
    await second.kill('SIGCONT');
    await expect.poll(() => processesOf(data)).toEqual([]);
  });

  test.runIf(LONG)('in the middle of making the cluster leaves nothing in the way', async () => {
    const folder = await temporaryFolder();
    const data = join(folder, 'data');
    const program = await buildProgram(folder);
    const first = runProgram(program, [data, 'postgres']);
    const initdb = async (): Promise<boolean> =>
      (await readdir(data).catch(() => [])).some((name) => name.startsWith('postgres.init-'));
    await expect.poll(initdb, { timeout: 10_000, interval: 5 }).toBe(true);
    await first.kill('SIGKILL');
    const second = runProgram(program, [data, 'stop']);
    expect(await second.event('pid')).toMatchObject({ reused: false });
    await second.kill('SIGCONT');
    expect((await readdir(data)).filter((name) => name.startsWith('postgres'))).toEqual(['postgres']);
    await expect.poll(() => processesOf(data), { timeout: 5000 }).toEqual([]);
  });
});

describe.runIf(isRoot)('as root', () => {
  test.runIf(LONG)('a data directory that nobody else reaches has its cluster elsewhere', async () => {
    const closed = await temporaryFolder(0o700);
    const systemDir = join(await temporaryFolder(), 'lib');
    await mkdir(join(closed, 'logs'));
    const first = await start(closed, systemDir);
    await query(first.url, 'CREATE TABLE old ()');
    const pointer = join(closed, 'postgres.location');
    const place = (await readFile(pointer, 'utf8')).trim();
    expect(place).toMatch(new RegExp(`^${systemDir}/[0-9a-f]{12}/postgres$`));
    expect(await readdir(closed)).not.toContain('postgres');
    expect((await stat(place)).uid).toBe(nobody.uid);
    expect((await start(closed, systemDir)).reused).toBe(true);

    // The data directory was deleted under the running server and made again: an empty database, the old one kept.
    await rm(pointer);
    const second = await start(closed, systemDir);
    expect(second.reused).toBe(false);
    await first.exited;
    expect(await query(second.url, `SELECT FROM pg_tables WHERE tablename = 'old'`)).toEqual([]);
    const kept = (await readdir(dirname(place))).sort();
    expect(kept).toEqual(['postgres', expect.stringMatching(/^postgres\.unused-/)]);

    // A database that has vanished is not silently made anew.
    await second.stop('immediate');
    await rename(place, `${place}.moved`);
    const error = await failure(startEmbeddedPostgres({ dataDir: closed, log: () => {}, systemDir }));
    expect(error).toMatchObject({ message: `The database of ${closed} was at ${place} and is gone.` });
  });

  test('a cluster keeps the user that made it', async () => {
    const folder = await dataFolder();
    await promisify(execFile)('chown', ['-R', '12345:12345', join(folder, 'postgres')]);
    const postgres = await start(folder);
    expect((await stat(`/proc/${postgres.pid}`)).uid).toBe(12345);
  });
});
