/**
 * Faults 3, 4 and 17: an engine that dies, that is cut off, and that hangs, at each phase of a completion; and the watchdogs.
 * A strict stream goes on byte by byte, any other is told; what a hung engine says once it goes on is stored nowhere.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sendSignal } from '../../src/host/procfs.js';
import { pollUntil } from '../../src/runtime/wait.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { type Confirmed, expectInvariants } from '../support/invariants.js';
import { planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { allReady, simConfig, startWorld, type World } from '../support/world.js';

const TOKENS = 24;
const IDLE_MS = 1_000;
const WALL_MS = 4_000;
const FIRST_TOKEN_MS = 150;
const PHASES = [0, 1, TOKENS / 2, TOKENS - 1, TOKENS] as const;
const READY_MS = 15_000;
/** Enough that no replica is struck so often in a row that it waits for long, or for an operator. */
const REPLICAS = 6;

let world: World;
let watch: SystemWatch;
let undisturbed = '';
let struck = 0;
const acknowledged = new Map<string, string | null>();
const readers: { taskId: string; frames: SseFrame[] }[] = [];
const ended: Confirmed[] = [];

beforeAll(async () => {
  const flags = ['--first-token-ms', String(FIRST_TOKEN_MS)];
  const calls = await logCalls();
  const { env } = calls;
  const config = simConfig({ replicas: REPLICAS, slots: 1, tokensPerSecond: 60, idleMs: IDLE_MS, flags, env });
  world = await startWorld({ config: config.replace('wall_ms: 60000', `wall_ms: ${WALL_MS}`) });
  const { database } = world;
  await callWitness(database);
  await allReady(world);
  watch = await SystemWatch.begin({ database, planes: [planeOfWorld(world)], calls });
  undisturbed = tokensOf(await run('strict')).join('');
});
afterAll(async () => {
  console.log(`faults 3, 4, 17: ${struck} engines struck`);
  await world?.[Symbol.asyncDispose]();
});

async function submit(determinism: string, overrides: Record<string, unknown> = {}): Promise<string> {
  const task = taskRequest({ seed: 3, max_tokens: TOKENS, determinism, ...overrides });
  expect((await post(world.url, '/v1/tasks', task)).status).toBe(202);
  acknowledged.set(task.task_id, null);
  return task.task_id;
}

async function read(taskId: string): Promise<SseFrame[]> {
  const frames = await readStream(world.url, taskId);
  readers.push({ taskId, frames });
  const { status, chunks } = await rowOf(taskId);
  ended.push({ taskId, status, chunks });
  return frames;
}

async function run(determinism: string): Promise<SseFrame[]> {
  return read(await submit(determinism));
}

async function rowOf(taskId: string) {
  const [row] = await world.database.query(
    `SELECT t.status, t.chunks, t.attempts, t.tokens_out AS "tokensOut", r.pid, r.endpoint FROM tasks t
     LEFT JOIN replicas r ON r.id = t.replica_id WHERE t.id = $1`,
    [taskId],
  );
  if (row === undefined) throw new Error(`no task ${taskId}`);
  return row;
}

/** Some replica serves. @returns the engines that do. */
async function someReady(): Promise<string[]> {
  const ready = async () =>
    (await world.database.query("SELECT endpoint FROM replicas WHERE state = 'READY' AND health = 'READY'")).map(
      ({ endpoint }) => endpoint,
    );
  expect(await pollUntil(async () => (await ready()).length > 0, { everyMs: 50, deadlineMs: READY_MS })).toBe(true);
  return ready();
}

async function setFault(endpoints: readonly string[], fault: string): Promise<void> {
  for (const endpoint of endpoints)
    await post(endpoint, '/sim/control', { fault }).then(
      (answer) => answer.arrayBuffer(),
      () => null, // it has been ended for it
    );
}

/** Runs a task that meets a fault of its engine. */
async function runInto(fault: string): Promise<SseFrame[]> {
  const endpoints = new Set<string>();
  try {
    for (;;) {
      // Also those that came back since the last one.
      const ready = await someReady();
      for (const endpoint of ready) endpoints.add(endpoint);
      await setFault(ready, fault);
      const taskId = await submit('strict');
      const held = async () => (await rowOf(taskId)).endpoint ?? null;
      await expect.poll(held, { interval: 2 }).not.toBeNull();
      const met = endpoints.has(await held());
      const frames = await read(taskId);
      struck += met ? 1 : 0;
      if (met) return frames; // else one took it that came back meanwhile
    }
  } finally {
    await setFault([...endpoints], 'none');
  }
}

function expectWhole(frames: SseFrame[]): void {
  expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: TOKENS } });
  expect(tokensOf(frames).join('')).toBe(undisturbed);
}

describe('an engine that is killed', () => {
  it.each(PHASES)(
    'at token %i: a strict stream goes on, any other is told',
    async (phase) => {
      for (const determinism of ['strict', 'best_effort']) {
        await someReady();
        const taskId = await submit(determinism);
        const held = async () => (await rowOf(taskId)).pid ?? null;
        await expect.poll(held, { interval: 2 }).not.toBeNull();
        const pid = await held();
        const far = async () => (await rowOf(taskId)).tokensOut >= Math.min(phase, TOKENS - 2);
        expect(await pollUntil(far, { everyMs: 2, deadlineMs: 10_000 })).toBe(true);
        sendSignal(pid, 'SIGKILL');
        struck += 1;
        const frames = await read(taskId);
        const end = frames.at(-1);
        if (determinism === 'strict' || end?.event === 'end') expectWhole(frames);
        else expect(end).toMatchObject({ event: 'error', data: { code: 'WORKER_RESET', retriable: true } });
        if (determinism === 'best_effort' && phase === 0) expectWhole(frames);
      }
    },
    90_000,
  );
});

describe('an engine that hangs', () => {
  it.each(['hang-after-headers', ...PHASES.slice(0, -1).map((phase) => `hang-at-token:${phase}`)])(
    '%s: the task ends in time, and what comes later is stored nowhere',
    async (fault) => {
      const frames = await runInto(fault);
      expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'DECODE_TIMEOUT' } });
      expect(undisturbed.startsWith(tokensOf(frames).join(''))).toBe(true);
    },
    90_000,
  );

  it('stopped as a process, and goes on after its task was ended', async () => {
    await someReady();
    const taskId = await submit('strict', { max_tokens: 100 });
    await expect.poll(async () => (await rowOf(taskId)).tokensOut, { interval: 5 }).toBeGreaterThan(3);
    const { pid } = await rowOf(taskId);
    sendSignal(pid, 'SIGSTOP');
    struck += 1;
    const frames = await read(taskId);
    sendSignal(pid, 'SIGCONT');
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'DECODE_TIMEOUT' } });
    await someReady();
    expectWhole(await run('strict'));
  }, 90_000);
});

describe('the wall', () => {
  it('ends a task that never stops talking, and no token comes after it', async () => {
    await someReady();
    const taskId = await submit('strict', { max_tokens: 3_000 });
    const startedMs = performance.now();
    const frames = await read(taskId);
    expect(frames.at(-1)).toMatchObject({ event: 'error', data: { code: 'DECODE_TIMEOUT' } });
    expect(tokensOf(frames).length).toBeGreaterThan(WALL_MS / 50);
    expect(performance.now() - startedMs).toBeLessThan(WALL_MS + 5_000);
    struck += 1;
  });
});

it('all of it: I1 to I14', async () => {
  await someReady();
  const evidence = await watch.evidence({ acknowledged, readers, cancels: ended, patienceMs: READY_MS });
  await expectInvariants('faults 3, 4 and 17, engines', evidence);
}, 60_000);
