/**
 * Fault 7: PostgreSQL is restarted (fast, and as in a crash), and is away for 30 s, while tasks flow. Submissions are refused
 * with a time to come back, engines and readers go on, nothing that was acknowledged is lost, and soon after all is well.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { delay } from '../../src/runtime/wait.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { type OwnPostgres, startOwnPostgres } from '../support/ownPostgres.js';
import { post, taskRequest, tokensOf } from '../support/rest.js';
import { ReturningReader, submitUntilAcknowledged } from '../support/returningReader.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const TOKENS = 160;
const OUTAGE_MS = 30_000;
const RECOVERED_MS = 10_000;
const PATIENCE_MS = 60_000;
/** A connection that is refused is noticed at once, one that is being made takes its deadline of 5 s. */
const ANSWERED_MS = 12_000;

let postgres: OwnPostgres;
let world: World;
let watch: SystemWatch;
let undisturbed = '';
const acknowledged = new Map<string, string | null>();
const readers: (ReturningReader & { mayBeAhead?: boolean })[] = [];

beforeAll(async () => {
  postgres = await startOwnPostgres();
  const calls = await logCalls();
  world = await startWorld({ config: simConfig({ tokensPerSecond: 50, env: calls.env }), database: postgres });
  await callWitness(postgres);
  watch = await SystemWatch.begin({ database: postgres, planes: [planeOfWorld(world)], calls });
  const first = ask();
  await first.reading;
  undisturbed = tokensOf(first.reader.frames).join('');
}, 90_000);
afterAll(() => world?.[Symbol.asyncDispose]());

function request() {
  return taskRequest({ seed: 9, max_tokens: TOKENS, deadline_ms: 200_000 });
}

/** One task, submitted until it is taken and read to its end. */
function ask() {
  const body = request();
  const reader = new ReturningReader(body.task_id);
  const reading = (async () => {
    if (!(await submitUntilAcknowledged(() => world.url, body, PATIENCE_MS))) throw new Error('it was not taken');
    acknowledged.set(body.task_id, null);
    readers.push(reader);
    await reader.readToEnd(() => world.url, PATIENCE_MS);
  })();
  reading.catch(() => {}); // looked at later
  return { reader, reading };
}

async function engines(): Promise<number[]> {
  return (await postgres.query('SELECT pid FROM replicas ORDER BY id')).map(({ pid }) => pid);
}

/** Submits and looks until the database is back. @returns the answers that were no receipts. */
async function knock(over: AbortSignal): Promise<Response[]> {
  const refusals: Response[] = [];
  while (!over.aborted) {
    const body = request();
    const askedMs = performance.now();
    const answer = await post(world.url, '/v1/tasks', body);
    expect(performance.now() - askedMs).toBeLessThan(ANSWERED_MS);
    await answer.arrayBuffer();
    if (answer.status === 202) acknowledged.set(body.task_id, null);
    else refusals.push(answer);
    await delay(100, over);
  }
  return refusals;
}

type Asked = ReturnType<typeof ask>;

interface Fault {
  readonly name: string;
  readonly mode: 'fast' | 'immediate';
  readonly awayMs: number;
}

/** Takes the database away while streams run, which go on. @returns how long it was away, and who was refused meanwhile. */
async function takeAway({ mode, awayMs }: Fault, asked: readonly Asked[]) {
  const seen = () => asked.reduce((sum, { reader }) => sum + reader.frames.length, 0);
  const over = new AbortController();
  const stoppedMs = performance.now();
  await postgres.stop(mode);
  const seenAtOutage = seen();
  const refused = knock(over.signal);
  await expect.poll(seen).toBeGreaterThan(seenAtOutage + 4); // live streams need no database
  await delay(awayMs);
  over.abort();
  const refusals = await refused;
  await postgres.start();
  const backMs = performance.now();
  return { refusals, backMs, tookMs: backMs - stoppedMs };
}

/** A newcomer is taken, and tasks run. @returns when, ms after the database was back. */
async function recover(backMs: number, late: Asked) {
  await expect.poll(() => acknowledged.has(late.reader.taskId), { timeout: RECOVERED_MS }).toBe(true);
  const takenMs = performance.now() - backMs;
  // Whoever was cut off has its stream again, or its place in the queue.
  const running = async () =>
    Number(
      (await postgres.query("SELECT count(*)::int AS n FROM tasks WHERE status IN ('LEASED', 'STREAMING')"))[0]?.n,
    );
  await expect.poll(running, { timeout: RECOVERED_MS }).toBeGreaterThan(0);
  const recoveredMs = performance.now() - backMs;
  expect(recoveredMs).toBeLessThan(RECOVERED_MS);
  return { takenMs, recoveredMs };
}

async function strike(fault: Fault): Promise<void> {
  const before = await engines();
  const asked = Array.from({ length: 6 }, ask);
  await expect.poll(() => asked.filter(({ reader }) => reader.frames.length > 5).length).toBeGreaterThanOrEqual(4);
  const { refusals, backMs, tookMs } = await takeAway(fault, asked);
  const late = ask();
  const { takenMs, recoveredMs } = await recover(backMs, late);
  await Promise.all([...asked, late].map(({ reading }) => reading));
  expect(refusals.length).toBeGreaterThan(0);
  for (const answer of refusals) {
    expect(answer.status).toBe(503);
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
  }
  expect(await engines()).toEqual(before);
  for (const { reader } of asked) expect(tokensOf(reader.frames).join('')).toBe(undisturbed);
  const [away, taken, run] = [tookMs, takenMs, recoveredMs].map(Math.round);
  console.log(
    `fault 7, ${fault.name}: away ${away} ms, ${refusals.length} submissions refused, taken again after ${taken} ms, tasks run after ${run} ms`,
  );
}

describe('PostgreSQL', () => {
  it.each<Fault>([
    { name: 'restart, fast', mode: 'fast', awayMs: 0 },
    { name: 'restart, immediate', mode: 'immediate', awayMs: 0 },
    { name: 'restart, immediate, again', mode: 'immediate', awayMs: 500 },
    { name: 'away for 30 s', mode: 'fast', awayMs: OUTAGE_MS },
  ])('$name', { timeout: 150_000 }, async (fault) => {
    await strike(fault);
    // Those that the knocking left in the queue too.
    const left = async () =>
      (await postgres.query("SELECT id FROM tasks WHERE status IN ('QUEUED', 'LEASED', 'STREAMING')")).length;
    await expect.poll(left, { timeout: PATIENCE_MS }).toBe(0);
    const texts = new Map([...acknowledged.keys()].map((id) => [id, undisturbed]));
    if (fault.mode === 'immediate') watch.databaseCrashes += 1;
    const evidence = await watch.evidence({ acknowledged: texts, readers, patienceMs: 120_000 });
    await expectInvariants(`fault 7, ${fault.name}`, evidence);
    expect(world.logLines().join('')).not.toContain('unhandled');
  });
});
