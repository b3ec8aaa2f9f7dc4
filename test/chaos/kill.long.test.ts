/**
 * kill -9 of the control plane, of its PostgreSQL and of its engines, at random moments with tasks flowing. After each
 * round: no acknowledged task is lost, each has one ending, a strict stream is what an undisturbed run gives, readers that
 * came back have every token once, and nothing is left behind. The seed of a round decides everything we choose.
 */
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { delay } from '../../src/runtime/wait.js';
import { HomeDatabase } from '../support/chaosDatabase.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfServer, SystemWatch } from '../support/invariantWatch.js';
import { random } from '../support/random.js';
import { indicesOf, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { ReturningReader, submitUntilAcknowledged } from '../support/returningReader.js';
import { makeHome, processesOf, type ServerProcess, startServer } from '../support/server.js';
import { simConfig } from '../support/world.js';

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8];
const TASKS = 12;
const PROMPT_SEEDS = 3;
const MAX_TOKENS = 40;
const PATIENCE_MS = 60_000;

/** The engines and the postmaster of a data directory, by what they run. */
function victims(home: string, own: number): { engines: number[]; postmaster: number[] } {
  const pids = processesOf(home).filter((pid) => pid !== own);
  const commandOf = (pid: number) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ');
    } catch {
      return '';
    }
  };
  return {
    engines: pids.filter((pid) => commandOf(pid).includes('engines/sim/main.js')),
    postmaster: pids.filter((pid) => / -D /.test(commandOf(pid))),
  };
}

let home: { path: string; remove: () => Promise<void> } | null = null;

afterEach(async () => {
  if (home === null) return;
  for (const pid of processesOf(home.path)) process.kill(pid, 'SIGKILL');
  await home.remove();
  home = null;
});

describe('kill -9 at random', () => {
  it.each(SEEDS)('seed %i', { timeout: 120_000 }, async (seed) => {
    const chance = random(seed);
    home = await makeHome();
    const dir = home.path;
    const calls = await logCalls();
    const args = ['--config', join(dir, 'config.yaml')];
    await writeFile(join(dir, 'config.yaml'), simConfig({ tokensPerSecond: 50, env: calls.env }));
    let server: ServerProcess = await startServer(dir, { args });
    const url = () => server.url;
    const database = await HomeDatabase.of(dir);
    await callWitness(database);
    const planes = [planeOfServer('the control plane', () => server)];
    const watch = await SystemWatch.begin({ database, planes, calls });
    const bodies = Array.from({ length: TASKS }, (_, index) =>
      taskRequest({ task_id: randomUUID(), seed: index % PROMPT_SEEDS, max_tokens: MAX_TOKENS }),
    );
    const readers = bodies.map((body) => new ReturningReader(body.task_id));
    const work = bodies.map(async (body, index) => {
      await delay(chance() * 500);
      expect(await submitUntilAcknowledged(url, body, PATIENCE_MS)).toBe(true);
      await readers[index]?.readToEnd(url, PATIENCE_MS);
    });
    for (let blow = 0; blow < 3; blow += 1) {
      await delay(300 + chance() * 1200);
      const choice = chance();
      const { engines, postmaster } = victims(dir, server.pid);
      if (choice < 0.5) {
        server.signal('SIGKILL');
        await server.exited;
        server = await startServer(dir, { args });
      } else {
        const [pid] = choice < 0.8 ? engines : postmaster;
        if (pid !== undefined) process.kill(pid, 'SIGKILL');
        if (choice >= 0.8) watch.databaseCrashes += 1;
      }
    }
    await Promise.all(work);
    for (const reader of readers) {
      expect(reader.frames.at(-1), reader.taskId).toMatchObject({ event: 'end', data: { tokens_out: MAX_TOKENS } });
      expect(indicesOf(reader.frames)).toEqual(Array.from({ length: MAX_TOKENS }, (_, index) => index));
      expect(tokensOf(await readStream(server.url, reader.taskId))).toEqual(tokensOf(reader.frames));
    }
    for (let group = 0; group < PROMPT_SEEDS; group += 1) {
      const texts = readers
        .filter((_, index) => index % PROMPT_SEEDS === group)
        .map((reader) => tokensOf(reader.frames).join(''));
      expect(new Set(texts).size).toBe(1);
    }
    const acknowledged = new Map(readers.map(({ taskId }) => [taskId, null]));
    const evidence = await watch.evidence({ acknowledged, readers, patienceMs: PATIENCE_MS });
    await expectInvariants(`kill -9 at random, seed ${seed}`, evidence);
    server.signal('SIGTERM');
    expect((await server.exited).code).toBe(0);
    expect(processesOf(dir)).toEqual([]);
    expect(readdirSync(join(dir, 'logs')).length).toBeGreaterThan(0);
  });
});
