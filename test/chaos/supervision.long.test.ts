/**
 * 200 blows on three pools of three replicas, of everything that can go wrong with an engine and with us, while tasks
 * flow. Afterwards: no task lost or ended twice, no answer wrong, no slot held twice, no engine started beside itself,
 * every pool ready or given up with a cause, no process left. The seed decides all that we choose (CHAOS_SEEDS=1,2,3);
 * what the operating system makes of it differs a little each time, so a failure shows what was struck and when.
 */
import { cpSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { ENGINES, type Engine } from '../../src/core/errors.js';
import { delay, pollUntil } from '../../src/runtime/wait.js';
import { Blows } from '../support/chaosBlows.js';
import { HomeDatabase } from '../support/chaosDatabase.js';
import { type ReplicaFacts, readFacts, replicasOf, touchesOf } from '../support/chaosFacts.js';
import { Flow, modelOf } from '../support/chaosFlow.js';
import { BLOWS, planBlows, REPLICAS } from '../support/chaosPlan.js';
import { Plane } from '../support/chaosPlane.js';
import { scheduleOf, tally } from '../support/chaosTally.js';
import { breachesOf } from '../support/chaosVerdict.js';
import { ProcessWatch } from '../support/chaosWatch.js';
import { random } from '../support/random.js';
import { makeHome, processesOf } from '../support/server.js';

const SEEDS = (process.env.CHAOS_SEEDS ?? '1').split(',').map(Number);
/** Where the logs of a run go that failed. */
const KEEP = process.env.CHAOS_KEEP;
const REST_MS = 90_000;
const READY_AGAIN_MS = 60_000;
const MOST_RSS_BYTES = 512 * 1024 * 1024;
const START_FAULTS = fileURLToPath(new URL('./fixtures/startFaults.mjs', import.meta.url));

/** All but one, another one with each seed. */
function poolsOf(seed: number): Engine[] {
  return ENGINES.filter((_, index) => index !== (seed + 1) % ENGINES.length);
}

function configOf(pools: readonly Engine[], startFaults: string): string {
  const one = (engine: Engine) => `
  - id: ${engine}
    engine: ${engine}
    model: ${modelOf(engine)}
    ctx: 4096
    devices: [0, 1]
    replicas: ${REPLICAS}
    slots: 2
    queue: { capacity: 64, full_policy: reject }
    timeouts: { wall_ms: 120000, idle_ms: 2500 }
    provisioning:
      mode: simulated
      env: { NODE_OPTIONS: '--import=${START_FAULTS}', CHAOS_START_FAULTS: '${startFaults}' }
      simulated: { tokens_per_second: 60, first_token_ms: 20, load_ms: 100, vram_bytes: 1073741824 }`;
  return `
gpu:
  mode: simulated
  devices: [{ name: Big, memory_bytes: 25769803776 }, { name: Small, memory_bytes: 12884901888 }]
pools:${pools.map(one).join('')}
`;
}

const settled = ({ state, lastError }: ReplicaFacts): boolean =>
  state === 'READY' || (['QUARANTINED', 'FAILED'].includes(state) && (lastError?.message ?? '') !== '');

/** The warnings of the control plane's log, by what was about to be done. */
function warningsIn(home: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of readFileSync(join(home, 'logs', 'llama-orch.log'), 'utf8').split('\n')) {
    if (!/"level":"(warn|error|fatal)"/.test(line)) continue;
    const { msg = '', task = '' } = JSON.parse(line) as { msg?: string; task?: string };
    const name = task === '' ? msg : `${msg} (${task})`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

let home: { path: string; remove: () => Promise<void> } | null = null;
let watch: ProcessWatch | null = null;

afterEach(async ({ task }) => {
  watch?.close();
  watch = null;
  if (home !== null && KEEP !== undefined && task.result?.state === 'fail')
    cpSync(join(home.path, 'logs'), KEEP, { recursive: true });
  await home?.remove();
  home = null;
});

describe('200 blows', () => {
  it.each(SEEDS)('seed %i', { timeout: 600_000 }, async (seed) => {
    const pools = poolsOf(seed);
    home = await makeHome();
    const startFaults = join(home.path, 'start-faults');
    const configFile = join(home.path, 'config.yaml');
    await mkdir(startFaults);
    await writeFile(configFile, configOf(pools, startFaults));
    const plane = await Plane.start(home.path, configFile);
    const database = await HomeDatabase.of(home.path);
    watch = new ProcessWatch(home.path, () => plane.pid);
    const areReady = async () => (await replicasOf(database)).every(({ state }) => state === 'READY');
    expect(await pollUntil(areReady, { everyMs: 100, deadlineMs: READY_AGAIN_MS })).toBe(true);

    const flow = new Flow(() => plane.url, pools, random(seed + 1_000));
    await flow.learn();
    flow.start();
    const blows = new Blows({ plane, database, watch, pools, startFaults, someTask: () => flow.someTask() });
    const startedMs = performance.now();
    const report = () => console.log(scheduleOf(blows.struck));
    try {
      for (const blow of planBlows(seed, pools)) {
        await delay(blow.gapMs);
        if (plane.hasDied) throw new Error(`the control plane died by itself:\n${plane.output}`);
        await blows.strike(blow);
      }
      const blowsEndMs = performance.now();
      await blows.takeBack();
      await flow.finish();
      let replicas: ReplicaFacts[] = [];
      const atRest = async () => {
        replicas = await replicasOf(database);
        return replicas.every(settled);
      };
      expect(await pollUntil(atRest, { everyMs: 200, deadlineMs: REST_MS }), JSON.stringify(replicas)).toBe(true);
      await blows.cureStarts();
      const givenUp = replicas.filter(({ state }) => state !== 'READY');
      for (const pool of new Set(givenUp.map(({ poolId }) => poolId))) await plane.resume(pool);
      expect(await pollUntil(areReady, { everyMs: 200, deadlineMs: READY_AGAIN_MS })).toBe(true);
      const free = async () => (await database.query('SELECT 1 FROM leases WHERE released_at IS NULL')).length === 0;
      await pollUntil(free, { everyMs: 200, deadlineMs: 30_000 });
      const restEndMs = performance.now();

      const facts = await readFacts(database);
      const touches = touchesOf(facts, blows.struck);
      const breaches = breachesOf(facts, flow, touches);
      const known = new Set(facts.replicas.map(({ mark }) => mark));
      for (const { pid, mark } of watch.engines())
        if (!known.has(mark)) breaches.push(`process ${pid} of ${mark} is left`);
      breaches.push(...[...watch.doubleStarts.values()].map((pair) => `two engines at once: ${pair}`));
      const restRssBytes = watch.rssBytes;
      const exitCode = await plane.end();
      console.log(
        tally({
          ...{ seed, facts, flow, touches, watch, lives: plane.lives, restRssBytes, struck: blows.struck },
          quarantined: givenUp.map(({ id, lastError }) => `${id} ${lastError?.code}`),
          warnings: warningsIn(home.path),
          seconds: {
            blows: Math.round((blowsEndMs - startedMs) / 1000),
            rest: Math.round((restEndMs - blowsEndMs) / 1000),
          },
        }),
      );
      expect(breaches).toEqual([]);
      expect(blows.struck).toHaveLength(BLOWS);
      expect(exitCode).toBe(0);
      expect(processesOf(home.path)).toEqual([]);
      expect(watch.peakRssBytes).toBeLessThan(MOST_RSS_BYTES);
    } catch (error) {
      report();
      throw error;
    }
  });
});
