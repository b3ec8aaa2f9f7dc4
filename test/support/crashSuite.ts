/** kill -9 of the real program at seven points of a task's life, for as many seeds as a test file asks for. */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Scope } from '../../src/runtime/scope.js';
import { CLAIM, type CrashPoint, CrashTrap, END, type Fate, FIRST_TOKEN, flushOf, INSERT } from './crashPoints.js';
import { createDatabase, type TestDatabase } from './database.js';
import { logCalls } from './invariantCalls.js';
import { callWitness } from './invariantFacts.js';
import { expectInvariants } from './invariants.js';
import { planeOfServer, SystemWatch } from './invariantWatch.js';
import { between, pick, random } from './random.js';
import { indicesOf, taskRequest, tokensOf } from './rest.js';
import { ReturningReader, submitUntilAcknowledged } from './returningReader.js';
import { makeHome, processesOf, type ServerProcess, startServer } from './server.js';
import { simConfig } from './world.js';

const MAX_TOKENS = 40;
const SEEDS_ASKED = [1, 2, 3];
const MOST_TASKS = 4;
const PATIENCE_MS = 60_000;
const ROUND_MS = 90_000;

/** By name: the point, and what becomes of the transaction there. Seeds decide where the name does not. */
const POINTS: readonly [string, (chance: () => number) => readonly [CrashPoint, Fate]][] = [
  ['before the insert is durable', () => [INSERT, 'is lost']],
  ['after the insert, before its answer', () => [INSERT, 'commits']],
  ['at the claim', (chance) => [CLAIM, either(chance)]],
  ['at the first token', (chance) => [FIRST_TOKEN, either(chance)]],
  ['at a flush', (chance) => [flushOf(between(chance, 2, MAX_TOKENS - 1)), either(chance)]],
  ['before the terminal write is durable', () => [END, 'is lost']],
  ['after the terminal write, before its readers know', () => [END, 'commits']],
];

function either(chance: () => number): Fate {
  return chance() < 0.5 ? 'commits' : 'is lost';
}

/** One database and one data directory, over all lives of the control plane. */
class Lives {
  readonly database: TestDatabase;
  readonly trap: CrashTrap;
  /** By id, of every task that was acknowledged: the text that it must have. */
  readonly acknowledged = new Map<string, string>();
  readonly readers: ReturningReader[] = [];
  readonly #home: string;
  readonly #texts = new Map<number, string>();
  #server: ServerProcess | null = null;
  #watch: SystemWatch | null = null;

  constructor(home: string, database: TestDatabase, trap: CrashTrap) {
    this.#home = home;
    this.database = database;
    this.trap = trap;
  }

  /** Starts the program, and asks each question once while nothing disturbs it. */
  async begin(): Promise<void> {
    await callWitness(this.database);
    const calls = await logCalls();
    await writeFile(this.#configFile, simConfig({ replicas: 2, slots: 1, tokensPerSecond: 200, env: calls.env }));
    await this.resurrect();
    const planes = [planeOfServer('the control plane', () => this.#running)];
    this.#watch = await SystemWatch.begin({ database: this.database, planes, calls });
    for (const seed of SEEDS_ASKED) {
      const reader = await this.ask(seed, 'interactive');
      this.#texts.set(seed, tokensOf(reader.frames).join(''));
    }
    expect(new Set(this.#texts.values()).size).toBe(SEEDS_ASKED.length);
  }

  textOf(seed: number): string {
    return this.#texts.get(seed) ?? '';
  }

  /** Submits until it is acknowledged, and reads to the end, through any number of lives. */
  async ask(seed: number, priority: string, taskId: string = randomUUID()): Promise<ReturningReader> {
    const url = () => this.#running.url;
    const body = taskRequest({ task_id: taskId, seed, priority, max_tokens: MAX_TOKENS });
    if (!(await submitUntilAcknowledged(url, body, PATIENCE_MS))) throw new Error(`task ${taskId} was not taken`);
    const reader = new ReturningReader(taskId);
    await reader.readToEnd(url, PATIENCE_MS);
    return reader;
  }

  async check(title: string): Promise<void> {
    if (this.#watch === null) throw new Error('nothing was begun');
    const { acknowledged, readers } = this;
    const evidence = await this.#watch.evidence({ acknowledged, readers, patienceMs: PATIENCE_MS });
    await expectInvariants(title, evidence);
  }

  async kill(): Promise<void> {
    this.#running.signal('SIGKILL');
    await this.#running.exited;
  }

  async resurrect(): Promise<void> {
    const env = { DATABASE_URL: this.database.url };
    this.#server = await startServer(this.#home, { args: ['--config', this.#configFile], env });
  }

  async end(): Promise<void> {
    this.#running.signal('SIGTERM');
    expect((await this.#running.exited).code).toBe(0);
    expect(processesOf(this.#home)).toEqual([]);
  }

  get #configFile(): string {
    return join(this.#home, 'config.yaml');
  }

  get #running(): ServerProcess {
    if (this.#server === null) throw new Error('the control plane was never started');
    return this.#server;
  }
}

async function round(lives: Lives, chance: () => number, point: CrashPoint, fate: Fate): Promise<void> {
  const tasks = Array.from({ length: between(chance, 1, MOST_TASKS) }, () => ({
    ...{ taskId: randomUUID(), seed: pick(chance, SEEDS_ASKED), priority: pick(chance, ['interactive', 'batch']) },
  }));
  const ids = tasks.map(({ taskId }) => taskId);
  await lives.trap.arm(point);
  const asked = Promise.all(tasks.map(({ seed, priority, taskId }) => lives.ask(seed, priority, taskId)));
  // Looked at below; until then a failure is not one that nobody handles.
  asked.catch(() => {});
  await lives.trap.sprung();
  await lives.kill();
  await lives.trap.release(fate);
  expect(await lives.trap.isOver(point, ids), `${point.name} ${fate}`).toBe(fate === 'commits');
  await lives.resurrect();
  const readers = await asked;
  for (const [index, { taskId, seed }] of tasks.entries()) {
    lives.acknowledged.set(taskId, lives.textOf(seed));
    expectOneStream(readers[index]?.frames ?? [], lives.textOf(seed));
  }
  lives.readers.push(...readers);
  await lives.check(`${point.name} ${fate}`);
}

function expectOneStream(frames: ReturningReader['frames'], text: string): void {
  expect(frames.filter(({ event }) => event === 'started')).toHaveLength(1);
  expect(frames.filter(({ event }) => event === 'end' || event === 'error')).toHaveLength(1);
  expect(frames.at(-1)).toMatchObject({ event: 'end', data: { tokens_out: MAX_TOKENS } });
  expect(indicesOf(frames)).toEqual(Array.from({ length: MAX_TOKENS }, (_, index) => index));
  expect(tokensOf(frames).join('')).toBe(text);
}

/** @param seeds decide the tasks, the flush, and which way a transaction goes. */
export function crashSuite(seeds: readonly number[]): void {
  describe(`kill -9 at named points, ${seeds.length} seeds each`, () => {
    const scope = new Scope();
    let lives: Lives;
    beforeAll(async () => {
      const database = await createDatabase();
      scope.defer('database', async () => database[Symbol.asyncDispose]());
      const trap = await CrashTrap.in(database);
      scope.defer('trap', () => trap[Symbol.asyncDispose]());
      const home = await makeHome();
      scope.defer('home', home.remove);
      lives = new Lives(home.path, database, trap);
      await lives.begin();
    });
    afterAll(() => scope.close());

    it.each(POINTS)('%s', { timeout: ROUND_MS + seeds.length * 10_000 }, async (name, at) => {
      for (const seed of seeds) {
        const chance = random(seed * 31 + name.length);
        const [point, fate] = at(chance);
        await round(lives, chance, point, fate);
      }
    });

    it('and nothing is left when it is stopped', { timeout: ROUND_MS }, () => lives.end());
  });
}
