/** The checker of the invariants finds what it is there to find: each breach is made, and named. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { callWitness } from '../support/invariantFacts.js';
import { breachesOf, type Evidence, expectInvariants } from '../support/invariants.js';
import { scrape } from '../support/metrics.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;
let sound: Evidence;
/** The tasks that ended well, by a cancel, and well again. */
let done: string;
let canceled: string;
let frames: SseFrame[];
let text: string;

async function run(maxTokens: number): Promise<string> {
  const request = taskRequest({ max_tokens: maxTokens, seed: 4 });
  expect((await post(world.url, '/v1/tasks', request)).status).toBe(202);
  return request.task_id;
}

beforeAll(async () => {
  world = await startWorld({ config: simConfig({ replicas: 1, slots: 2, tokensPerSecond: 200 }) });
  const { database, url } = world;
  await callWitness(database);
  done = await run(6);
  frames = await readStream(url, done);
  text = tokensOf(frames).join('');
  canceled = await run(1_000);
  await readStream(url, canceled, { until: (frame) => frame.event === 'token' });
  expect((await post(url, `/v1/tasks/${canceled}/cancel`, {})).status).toBe(204);
  const [row] = await database.query<{ status: string; chunks: number }>(
    'SELECT status, chunks FROM tasks WHERE id = $1',
    [canceled],
  );
  const [engine] = await database.query<{ pid: number; mark: string }>('SELECT pid, mark FROM replicas');
  // The depth of the lanes is told twice a second.
  const isTold = async () => (await scrape(url)).get('active_leases')?.[0]?.value === 0;
  expect(await pollUntil(isTold, { everyMs: 100, deadlineMs: 15_000 })).toBe(true);
  sound = {
    ...{ database, doors: [url], readers: [{ taskId: done, frames }], engineRuns: 2, patienceMs: 20_000 },
    acknowledged: new Map([
      [done, text],
      [canceled, null],
    ]),
    repeated: new Map([[done, [{ task_id: done }, { task_id: done }]]]),
    cancels: [{ taskId: canceled, status: row?.status ?? '', chunks: row?.chunks ?? 0 }],
    processes: engine === undefined ? [] : [engine],
    views: [{ what: 'the stream', before: frames, after: await readStream(url, done) }],
    floors: [{ what: 'it', before: { fds: 30 }, after: { fds: 31 }, slack: { fds: 2 } }],
    metrics: async () => [await scrape(url)],
  };
});
afterAll(() => world?.[Symbol.asyncDispose]());

/** Does that to the rows, looks, and takes it back. */
async function breachesAfter(sql: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: world.database.url });
  await client.connect();
  try {
    await client.query('BEGIN');
    await client.query(sql.replaceAll('$done', `'${done}'`).replaceAll('$canceled', `'${canceled}'`));
    const database: Evidence['database'] = {
      query: async (question, values) => (await client.query(question, values)).rows,
    };
    return await breachesOf({ ...sound, database });
  } finally {
    await client.query('ROLLBACK').catch(() => {});
    await client.end();
  }
}

const IN_THE_DATABASE: readonly [string, string, RegExp][] = [
  ['I2', "UPDATE tasks SET status = 'STREAMING' WHERE id = $done", /has not ended/],
  ['I2', "UPDATE tasks SET status = 'FAILED' WHERE id = $done", /its log ends by end/],
  [
    'I2',
    "UPDATE tasks SET status = 'QUEUED' WHERE id = $done; UPDATE tasks SET status = 'SUCCEEDED' WHERE id = $done",
    /was SUCCEEDED and became QUEUED/,
  ],
  [
    'I2',
    "INSERT INTO stream_chunks SELECT task_id, ord + 1, kind, first_seq, last_seq, payload, at FROM stream_chunks WHERE task_id = $done AND kind = 'end'; UPDATE tasks SET chunks = chunks + 1 WHERE id = $done",
    /2 ends/,
  ],
  [
    'I3',
    "INSERT INTO leases (task_id, replica_id, slot, holder, acquired_at, expires_at, released_at) SELECT task_id, replica_id, slot, holder, acquired_at - interval '9 s', expires_at, acquired_at + interval '9 s' FROM leases WHERE task_id = $done",
    /at the same time/,
  ],
  ['I3', 'UPDATE tasks SET attempts = 2 WHERE id = $done', /had 1 leases/],
  [
    'I3',
    'UPDATE tasks SET lease_id = NULL WHERE id = $done; UPDATE tasks SET lease_id = (SELECT min(id) FROM leases) WHERE id = $canceled',
    /came under lease 1 after|is newer/,
  ],
  ['I4', "DELETE FROM stream_chunks WHERE task_id = $done AND kind = 'tokens'", /its end is number 7 after 0 tokens/],
  [
    'I4',
    "UPDATE stream_chunks SET payload = '[\"x\"]' WHERE task_id = $done AND kind = 'tokens'",
    /receipt is of other tokens/,
  ],
  ['I4', "UPDATE artifacts SET content = '{}'", /not what its id says/],
  ['I4', "UPDATE stream_chunks SET payload = '[\"x\"]' WHERE task_id = $done AND kind = 'tokens'", /its reader saw/],
  ['I5', "UPDATE tasks SET status = 'CANCELED' WHERE id = $done", /its reader was told SUCCEEDED/],
  [
    'I6',
    "INSERT INTO leases (task_id, replica_id, slot, holder, acquired_at, expires_at, released_at, release_reason) SELECT task_id, replica_id, slot, holder, acquired_at + interval '9 s', expires_at, acquired_at + interval '9 s', 'completed' FROM leases WHERE task_id = $done",
    /run to its end 2 times/,
  ],
  ['I7', "UPDATE tasks SET status = 'SUCCEEDED' WHERE id = $canceled", /its end says cancelled/],
  [
    'I7',
    "INSERT INTO stream_chunks SELECT task_id, ord + 1, 'tokens', 999, 999, '[\"x\"]', at FROM stream_chunks WHERE task_id = $canceled AND kind = 'end'",
    /after its cancel/,
  ],
  ['I8', 'UPDATE leases SET released_at = NULL WHERE task_id = $done', /is still held/],
  ['I8', 'UPDATE leases SET slot = 9 WHERE task_id = $done', /has 2 slots/],
  ['I8', 'UPDATE queue_lanes SET depth = depth + 1', /the lanes count 2/],
  ['I8', 'UPDATE gpus SET memory_total_bytes = 1', /has 1 bytes/],
  ['I9', "UPDATE replicas SET mark = 'another'", /is left/],
  ['I10', "UPDATE tasks SET created_at = created_at - interval '1 min' WHERE id = $done", /waited 60\d\d\d ms/],
  ['I11', "UPDATE stream_chunks SET payload = '[\"x\"]' WHERE task_id = $done AND kind = 'tokens'", /its text is "x/],
  ['I13', "UPDATE tasks SET status = 'DROPPED' WHERE id = $canceled", /tasks_dropped_total is 0, the database has 1/],
  ['I14', 'UPDATE tasks SET attempts = 5 WHERE id = $done', /started 5 times/],
];

const IN_THE_EVIDENCE: readonly [string, () => Partial<Evidence>, RegExp][] = [
  ['I1', () => ({ acknowledged: new Map([['00000000-0000-0000-0000-000000000000', null]]) }), /is lost/],
  [
    'I4',
    () => ({ readers: [{ taskId: done, frames: frames.filter((_, at) => at !== 3) }] }),
    /saw the indices 0 1 3|saw the indices/,
  ],
  ['I5', () => ({ readers: [{ taskId: done, frames: frames.slice(0, -1) }] }), /saw 0 ends/],
  ['I5', () => ({ readers: [{ taskId: done, frames: [...frames, ...frames.slice(-1)] }] }), /saw 2 ends/],
  ['I6', () => ({ repeated: new Map([[done, [1, 2]]]) }), /2 different receipts/],
  ['I7', () => ({ cancels: [{ taskId: canceled, status: 'STREAMING', chunks: 1 }] }), /it was STREAMING/],
  ['I9', () => ({ processes: [{ pid: 1, mark: 'nobody' }] }), /process 1 of nobody/],
  ['I10', () => ({ patienceMs: -1 }), /waited/],
  ['I11', () => ({ views: [{ what: 'it', before: 1, after: 2 }] }), /not what it was/],
  [
    'I12',
    () => ({ floors: [{ what: 'it', before: { fds: 9 }, after: { fds: 12 }, slack: { fds: 2 } }] }),
    /has 12 fds/,
  ],
  ['I13', () => ({ metrics: async () => [new Map()] }), /tasks_enqueued_total is 0/],
  ['I14', () => ({ engineRuns: 3 }), /ran 3 times for 2 leases/],
];

describe('the checker of the invariants', () => {
  it('finds nothing wrong where nothing is, and has looked at all of it', async () => {
    const verdicts = await expectInvariants('an undisturbed run', sound);
    expect(verdicts.filter(({ checked }) => checked === null || checked === 0)).toEqual([]);
    expect(new Set(verdicts.map(({ invariant }) => invariant)).size).toBe(14);
  });

  it('says what it has not checked', async () => {
    const { database } = sound;
    const unchecked = (await expectInvariants('the database alone', { database })).filter(
      ({ checked }) => checked === null,
    );
    expect(new Set(unchecked.map(({ invariant }) => invariant))).toEqual(
      new Set(['I1', 'I4', 'I5', 'I6', 'I7', 'I9', 'I10', 'I11', 'I12', 'I13', 'I14']),
    );
  });

  it.each(IN_THE_DATABASE.filter(([, sql]) => sql !== 'INSERT_NOTHING'))('%s: %s', async (invariant, sql, words) => {
    const found = (await breachesAfter(sql)).filter((breach) => breach.startsWith(`${invariant}:`));
    expect(found.join('\n')).toMatch(words);
  });

  it.each(IN_THE_EVIDENCE)('%s, of evidence: %s', async (invariant, evidence, words) => {
    const breaches = await breachesOf({ ...sound, ...evidence() });
    expect(breaches.filter((breach) => breach.startsWith(`${invariant}:`)).join('\n')).toMatch(words);
  });
});
