/**
 * 200 blows on three pools of three replicas, of everything that can go wrong with an engine and with us, while tasks
 * flow. Afterwards: no task lost or ended twice, no answer wrong, no slot held twice, no engine started beside itself,
 * every replica ready, or given up with a cause and ready once resumed, no process left. The seed (CHAOS_SEEDS=1,2,3)
 * decides all that we choose; what the system makes of it differs each time, so a failure shows what was struck and when.
 */
import { cpSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { ENGINES, type Engine } from '../../src/core/errors.js';
import { delay, pollUntil } from '../../src/runtime/wait.js';
import { Blows, type BlowsDeps, type Struck } from '../support/chaosBlows.js';
import { HomeDatabase } from '../support/chaosDatabase.js';
import { type ReplicaFacts, readFacts, replicasOf, touchesOf } from '../support/chaosFacts.js';
import { DEADLINE_MS, Flow, modelOf } from '../support/chaosFlow.js';
import { type Act, BLOWS, planBlows, REPLICAS } from '../support/chaosPlan.js';
import { Plane } from '../support/chaosPlane.js';
import { scheduleOf, tally } from '../support/chaosTally.js';
import { breachesOf, mayBeAhead } from '../support/chaosVerdict.js';
import { ProcessWatch } from '../support/chaosWatch.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { SystemWatch } from '../support/invariantWatch.js';
import { random } from '../support/random.js';
import { makeHome, processesOf } from '../support/server.js';

const SEEDS = (process.env.CHAOS_SEEDS ?? '1').split(',').map(Number);
/** A folder for the logs of each run; the schedule is shown then too, as it is for a run that failed. */
const KEEP = process.env.CHAOS_KEEP;
const REST_MS = 90_000;
const READY_MS = 60_000;
const LEASES_MS = 30_000;
const MOST_RSS_BYTES = 512 * 1024 * 1024;
const START_FAULTS = fileURLToPath(new URL('./fixtures/startFaults.mjs', import.meta.url));

/** All but one, another one with each seed. */
function poolsOf(seed: number): Engine[] {
  return ENGINES.filter((_, index) => index !== (seed + 1) % ENGINES.length);
}

function configOf(pools: readonly Engine[], env: Readonly<Record<string, string>>): string {
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
      env: ${JSON.stringify(env)}
      simulated: { tokens_per_second: 60, first_token_ms: 20, load_ms: 100, vram_bytes: 1073741824 }`;
  return `
gpu:
  mode: simulated
  devices: [{ name: Big, memory_bytes: 25769803776 }, { name: Small, memory_bytes: 12884901888 }]
pools:${pools.map(one).join('')}
`;
}

/** Ready, or given up with a cause, or refused its memory, which is asked for as long as it takes. */
function isSettled({ state, lastError }: ReplicaFacts): boolean {
  const { code = '', message = '' } = lastError ?? {};
  const waits = state === 'BACKING_OFF' && code.startsWith('VRAM_') && message.includes('less than a replica needs');
  return state === 'READY' || (message !== '' && (waits || state === 'QUARANTINED' || state === 'FAILED'));
}

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

interface Run extends BlowsDeps {
  readonly seed: number;
  readonly home: string;
  readonly flow: Flow;
  readonly invariants: SystemWatch;
}

let home: { path: string; remove: () => Promise<void> } | null = null;
let watch: ProcessWatch | null = null;
let flow: Flow | null = null;

afterEach(async () => {
  flow?.abandon();
  watch?.close();
  if (home !== null && KEEP !== undefined) cpSync(join(home.path, 'logs'), KEEP, { recursive: true });
  await home?.remove();
  [home, watch, flow] = [null, null, null];
});

/** All replicas are ready, and tasks flow. */
async function begin(seed: number): Promise<Run> {
  const pools = poolsOf(seed);
  home = await makeHome();
  const startFaults = join(home.path, 'start-faults');
  const configFile = join(home.path, 'config.yaml');
  await mkdir(startFaults);
  const calls = await logCalls(START_FAULTS);
  await writeFile(configFile, configOf(pools, { ...calls.env, CHAOS_START_FAULTS: startFaults }));
  const plane = await Plane.start(home.path, configFile);
  const database = await HomeDatabase.of(home.path);
  await callWitness(database);
  watch = new ProcessWatch(home.path, () => plane.pid);
  await becomeReady(database);
  const [first = 'llamacpp'] = pools;
  const invariants = await SystemWatch.begin({
    ...{ database, calls, request: { engine: first, model_ref: modelOf(first) } },
    planes: [plane.watched()],
  });
  const tasks = new Flow(() => plane.url, pools, random(seed + 1_000));
  flow = tasks;
  await tasks.learn();
  tasks.start();
  return {
    ...{ seed, home: home.path, plane, database, watch, pools, startFaults, flow: tasks, invariants },
    someTask: () => tasks.someTask(),
  };
}

async function becomeReady(database: HomeDatabase): Promise<void> {
  let replicas: readonly ReplicaFacts[] = [];
  const areReady = async () => {
    replicas = await replicasOf(database);
    return replicas.every(({ state }) => state === 'READY');
  };
  const ready = await pollUntil(areReady, { everyMs: 200, deadlineMs: READY_MS });
  expect(ready, JSON.stringify(replicas, null, 1)).toBe(true);
}

async function strikeAll({ plane, seed, pools }: Run, blows: Blows): Promise<void> {
  for (const blow of planBlows(seed, pools)) {
    await delay(blow.gapMs);
    if (plane.hasDied) throw new Error(`the control plane died by itself:\n${plane.output}`);
    await blows.strike(blow);
  }
}

/** Nothing strikes any more. @returns the replicas that have not come back by themselves; now they have. */
async function comeToRest({ plane, database, ...run }: Run, blows: Blows): Promise<ReplicaFacts[]> {
  await blows.takeBack();
  await run.flow.finish();
  let replicas: ReplicaFacts[] = [];
  const atRest = async () => {
    replicas = await replicasOf(database);
    return replicas.every(isSettled);
  };
  const settled = await pollUntil(atRest, { everyMs: 200, deadlineMs: REST_MS });
  expect(settled, JSON.stringify(replicas, null, 1)).toBe(true);
  await blows.cureStarts();
  const away = replicas.filter(({ state }) => state !== 'READY');
  for (const pool of new Set(away.map(({ poolId }) => poolId))) await plane.resume(pool);
  await becomeReady(database);
  // A slot may be asked about for a while after its task has ended; what is held after that is a breach.
  const free = async () => (await database.query('SELECT 1 FROM leases WHERE released_at IS NULL')).length === 0;
  await pollUntil(free, { everyMs: 200, deadlineMs: LEASES_MS });
  return away;
}

/** Fault 28: I1 to I14. */
async function checkInvariants(run: Run, struck: readonly Struck[], touches: ReadonlyMap<string, readonly Struck[]>) {
  const readers = run.flow.asked.map(({ reader: { taskId, frames } }) => {
    return { taskId, frames, mayBeAhead: mayBeAhead(touches.get(taskId) ?? []) };
  });
  run.invariants.databaseCrashes = struck.filter(({ blow }) => killsDatabase(blow.kind.act)).length;
  const acknowledged = new Map(readers.map(({ taskId }) => [taskId, null]));
  const evidence = await run.invariants.evidence({ acknowledged, readers, patienceMs: DEADLINE_MS });
  return expectInvariants(`fault 28, seed ${run.seed}`, evidence);
}

/** As signs of life. */
function cancelledByUs({ invariants }: Run): ReadonlySet<string> {
  return new Set(invariants.proofs.cancels.map(({ taskId }) => taskId));
}

function killsDatabase(act: Act): boolean {
  return act.on === 'database' || (act.on === 'control plane' && act.how === 'killed unaware');
}

describe('200 blows', () => {
  it.each(SEEDS)('seed %i', { timeout: 600_000 }, async (seed) => {
    const run = await begin(seed);
    const blows = new Blows(run);
    const { struck } = blows;
    const times = [performance.now()];
    try {
      await strikeAll(run, blows);
      times.push(performance.now());
      const away = await comeToRest(run, blows);
      times.push(performance.now());
      const facts = await readFacts(run.database);
      const touches = touchesOf(facts, struck);
      const breaches = [
        ...breachesOf(facts, run.flow, touches, cancelledByUs(run)),
        ...[...run.watch.doubleStarts.values()].map((pair) => `two engines at once: ${pair}`),
      ];
      const { rssBytes: restRssBytes } = run.watch;
      const invariants = checkInvariants(run, struck, touches);
      await invariants.catch(() => {}); // told below, behind what it is about
      const exitCode = await run.plane.end();
      const warnings = warningsIn(run.home);
      const lives = run.plane.lives;
      console.log(tally({ ...run, struck, facts, touches, lives, restRssBytes, notReady: away, warnings, times }));
      expect(breaches).toEqual([]);
      await invariants;
      expect(struck).toHaveLength(BLOWS);
      expect(exitCode).toBe(0);
      expect(processesOf(run.home)).toEqual([]);
      expect(run.watch.peakRssBytes).toBeLessThan(MOST_RSS_BYTES);
      if (KEEP !== undefined) console.log(scheduleOf(struck));
    } catch (error) {
      console.log(scheduleOf(struck));
      throw error;
    }
  });
});
