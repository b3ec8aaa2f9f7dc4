import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { type EngineProcess, spawnEngineProcess } from '../../src/host/process.js';
import { groupMembers, isAlive } from '../../src/host/procfs.js';
import { reapUnrecorded } from '../../src/host/unrecorded.js';
import { cleanUp, fixture, later, temporaryFolder } from './support.js';

afterEach(cleanUp);

const GRACE_MS = 2_000;

async function start(name: string, mark: string): Promise<EngineProcess> {
  const cwd = await temporaryFolder();
  const args = [fixture(name)];
  const engine = spawnEngineProcess({ file: process.execPath, args, env: {}, cwd, logFile: join(cwd, 'log'), mark });
  later(() => engine.stop({ graceMs: 0 }));
  await expect
    .poll(() => engine.tail(50), { interval: 10 })
    .toContainEqual(expect.stringMatching(/^(ready|child \d+)$/));
  return engine;
}

test.runIf(process.platform === 'linux')('ends what is ours and nobody wrote down, helpers too', async () => {
  const owner = randomUUID();
  const recorded = await start('polite.mjs', `${owner}/a/1`);
  const polite = await start('polite.mjs', `${owner}/a/2`);
  const family = await start('family.mjs', `${owner}/b/1`);
  const foreign = await start('polite.mjs', `${randomUUID()}/a/2`);
  const members = groupMembers(family.pid);
  expect(members.length).toBeGreaterThan(1);
  const noSurvivor = (mark: string) => {
    throw new Error(`${mark} was not ended`);
  };
  const isKnown = (mark: string) => mark === `${owner}/a/1`;
  const reaped = await reapUnrecorded(owner, isKnown, GRACE_MS, noSurvivor);
  expect([...reaped].sort()).toEqual([`${owner}/a/2`, `${owner}/b/1`]);
  expect(await polite.exited).toEqual({ code: null, signal: 'SIGTERM' });
  expect(groupMembers(family.pid)).toEqual([]);
  for (const { pid, startTimeTicks } of [recorded, foreign]) expect(isAlive(pid, startTimeTicks)).toBe(true);
  expect(await reapUnrecorded(owner, isKnown, GRACE_MS, noSurvivor)).toEqual([]);
});
