/** The checker of the invariants finds what it is there to find: each breach is made, and named. */
import { open } from 'node:fs/promises';
import { createServer } from 'node:net';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import {
  DATABASE_SLACK,
  databaseFloor,
  PLANE_SLACK,
  planeFloor,
  type WatchedPlane,
} from '../support/invariantFloors.js';
import { breachesOf, type Evidence, expectInvariants, type Floor, verdictsOn } from '../support/invariants.js';
import { planeOfWorld } from '../support/invariantWatch.js';
import { scrape } from '../support/metrics.js';
import { post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { enginesOfNodes } from '../support/server.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;
let sound: Evidence;
/** The tasks that ended well, by a cancel, and well again. */
let done: string;
let canceled: string;
let frames: SseFrame[];
let text: string;
let plane: WatchedPlane;
let floor: Floor;
let calls: readonly string[];

async function run(maxTokens: number): Promise<string> {
  const request = taskRequest({ max_tokens: maxTokens, seed: 4 });
  expect((await post(world.url, '/v1/tasks', request)).status).toBe(202);
  return request.task_id;
}

beforeAll(async () => {
  const log = await logCalls();
  world = await startWorld({ config: simConfig({ replicas: 1, slots: 2, tokensPerSecond: 200, env: log.env }) });
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
  // The depth of the lanes is told twice a second.
  const isTold = async () => (await scrape(url)).get('active_leases')?.[0]?.value === 0;
  expect(await pollUntil(isTold, { everyMs: 100, deadlineMs: 15_000 })).toBe(true);
  calls = log.began();
  plane = planeOfWorld(world);
  floor = await planeFloor(plane, []);
  sound = {
    ...{ database, doors: [url], readers: [{ taskId: done, frames }], patienceMs: 20_000 },
    engineCalls: { began: log.began },
    acknowledged: new Map([
      [done, text],
      [canceled, null],
    ]),
    repeated: new Map([[done, [{ task_id: done }, { task_id: done }]]]),
    cancels: [{ taskId: canceled, status: row?.status ?? '', chunks: row?.chunks ?? 0 }],
    processes: () => enginesOfNodes(database),
    views: [{ what: 'the stream', before: frames, after: await readStream(url, done) }],
    floors: [{ what: 'it', was: floor, now: () => planeFloor(plane, []), slack: PLANE_SLACK }],
    metrics: async () => [{ told: await scrape(url), sinceMs: 0 }],
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
  ['I14', "UPDATE tasks SET correlation_id = 'another' WHERE id = $done", /no engine was called for it/],
  ['I14', 'UPDATE leases SET task_id = $canceled WHERE task_id = $done', /called 1 times for 0 leases/],
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
  ['I9', () => ({ processes: async () => [{ pid: 1, mark: 'nobody' }] }), /process 1 of nobody/],
  ['I10', () => ({ patienceMs: -1 }), /waited/],
  ['I11', () => ({ views: [{ what: 'it', before: 1, after: 2 }] }), /not what it was/],
  [
    'I12',
    () => ({ floors: [{ what: 'it', was: { fds: 9 }, now: async () => ({ fds: 12 }), slack: { fds: 2 } }] }),
    /has 12 fds/,
  ],
  ['I12', () => ({ floors: [{ what: 'it', was: { fds: 9 }, now: async () => ({}), slack: {} }] }), /has Infinity fds/],
  ['I13', () => ({ metrics: async () => [{ told: new Map(), sinceMs: 0 }] }), /tasks_enqueued_total is 0/],
  [
    'I13',
    () => ({ metrics: async () => [{ told: await scrape(world.url), sinceMs: Date.now() }] }),
    /tasks_enqueued_total is 2, the database has 0/,
  ],
  ['I14', () => ({ engineCalls: { began: () => [...calls, calls[0] ?? ''] } }), /called 2 times for 1 leases/],
  ['I14', () => ({ engineCalls: { began: () => [...calls, 'another'] } }), /which is no task/],
  ['I14', () => ({ engineCalls: { began: () => Array(9).fill(calls[0]) } }), /called 9 times for 2 tasks/],
  ['I11', () => ({ notApplicable: { views: 'there is nothing to see' } }), /is checked, though/],
];

describe('the checker of the invariants', () => {
  it('finds nothing wrong where nothing is, and has looked at all of it', async () => {
    const verdicts = await expectInvariants('an undisturbed run', sound);
    expect(verdicts.filter(({ checked }) => checked === null || checked === 0)).toEqual([]);
    expect(new Set(verdicts.map(({ invariant }) => invariant)).size).toBe(14);
  });

  it('says what it has not checked, and does not let it pass without a reason', async () => {
    const { database } = sound;
    const unchecked = (await verdictsOn({ database })).filter(({ checked }) => checked === null);
    const names = ['I1', 'I4', 'I5', 'I6', 'I7', 'I9', 'I10', 'I11', 'I12', 'I13', 'I14'];
    expect(new Set(unchecked.map(({ invariant }) => invariant))).toEqual(new Set(names));
    const unexplained = (await breachesOf({ database })).filter((breach) => breach.includes('nobody says why'));
    expect(unexplained).toHaveLength(unchecked.length);
    const { views: _, ...others } = sound;
    expect(await breachesOf({ ...others, notApplicable: { views: 'nothing was disturbed' } })).toEqual([]);
  });

  it('sees what is left open: a listener, files, timers, a connection that somebody holds', async () => {
    const before = await databaseFloor(world.database);
    const server = createServer().listen(0, '127.0.0.1');
    const files = await Promise.all(Array.from({ length: 4 }, () => open('/dev/null')));
    const timers = Array.from({ length: 60 }, () => setTimeout(() => {}, 60_000));
    const client = new pg.Client({ connectionString: world.database.url, application_name: 'llama-orch test' });
    try {
      await client.connect();
      await client.query('BEGIN');
      const breaches = async () => (await breachesOf(sound)).filter((breach) => breach.startsWith('I12:')).join('\n');
      await expect.poll(breaches).toMatch(/other files.*listening sockets.*timers/s);
      const now = () => databaseFloor(world.database);
      const floors = [{ what: 'the database', was: before, now, slack: DATABASE_SLACK }];
      await expect
        .poll(() => breachesOf({ ...sound, floors }))
        .toEqual([expect.stringContaining('1 open transactions')]);
    } finally {
      for (const timer of timers) clearTimeout(timer);
      await Promise.all([client.end(), ...files.map((file) => file.close())]);
      await new Promise((closed) => server.close(closed));
    }
    await expectInvariants('what was left open is closed', sound);
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
