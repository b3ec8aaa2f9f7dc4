/**
 * How long it takes to lease the next task to a free slot, with 10 and with 10 000 tasks waiting: the claim of the
 * dispatcher, asked from this process of the same PostgreSQL. Before each claim the depth is what it should be: a claimed
 * task ends, and another one is admitted. The second pair has batch tasks that have waited too long among the others, which
 * takes the claim that lets them go before. Rounds at both depths alternate.
 */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { Database } from '../dist/store/database.js';
import { claimTasks } from '../dist/store/queue.js';
import { keepAliveAgent, post, taskBody } from './http.mjs';
import { count, median, ms, percentile } from './stats.mjs';
import { MODEL, startEngine, startServer } from './world.mjs';

const CTX = 4096;
const DEPTHS = [10, 10_000];
const OPEN_AT_ONCE = 64;
const TTL_MS = 60_000;
const WEEK_MS = 7 * 24 * 3_600_000;
/** Beyond those of the server, which has one: its own dispatcher never offers it. */
const SLOT = 7;

export async function measureDequeue({ scope, postgres, quick, nodeArgs, say }) {
  const perRound = quick ? 100 : 400;
  const rounds = quick ? 2 : 3;
  const engine = await startEngine(scope, { tokensPerSecond: 1, slots: 1, ctx: CTX });
  const databaseUrl = await postgres.createDatabase();
  const server = await startServer(scope, { engineUrl: engine.url, databaseUrl, slots: 1, ctx: CTX, nodeArgs });
  const raw = new pg.Pool({ connectionString: databaseUrl, max: 2 });
  scope.defer('pool of the rows', () => raw.end());
  const database = new Database(databaseUrl, (error) => say(error.message));
  scope.defer('pool of the claims', () => database.close());
  const queue = { server, raw, database, agent: keepAliveAgent(OPEN_AT_ONCE), replicaId: await replicaOf(raw) };
  await submit(queue, 1, 'interactive'); // takes the one slot, for as long as we measure
  const tookMs = new Map(DEPTHS.flatMap((depth) => [false, true].map((ageing) => [keyOf(depth, ageing), []])));
  for (let round = 1; round <= rounds; round += 1) {
    for (const depth of DEPTHS) {
      await fillTo(queue, depth);
      for (const ageing of [false, true]) {
        const took = await claims(queue, perRound, ageing);
        tookMs.get(keyOf(depth, ageing))?.push(...took);
        say(`round ${round} of ${rounds}, ${count(depth)} wait${ageing ? ', some overdue' : ''}: ${ms(median(took))}`);
      }
    }
  }
  queue.agent.destroy();
  for (const child of [server, engine]) await child.stop();
  return [false, true].flatMap((ageing) =>
    rowsOf(
      ageing,
      DEPTHS.map((depth) => tookMs.get(keyOf(depth, ageing)) ?? []),
    ),
  );
}

function keyOf(depth, ageing) {
  return `${depth} ${ageing}`;
}

async function replicaOf(raw) {
  const { rows } = await raw.query('SELECT id FROM replicas');
  return rows[0].id;
}

async function submit({ server, agent }, total, priority) {
  for (let from = 0; from < total; from += OPEN_AT_ONCE) {
    const bodies = Array.from({ length: Math.min(OPEN_AT_ONCE, total - from) }, () =>
      taskBody({ priority, deadline_ms: WEEK_MS }),
    );
    await Promise.all(bodies.map((body) => post(`${server.url}/v1/tasks`, body, { agent })));
  }
}

/** What waited becomes history; then half of the depth is interactive and half is batch, which has waited for a minute. */
async function fillTo(queue, depth) {
  await queue.raw.query("UPDATE tasks SET status = 'SUCCEEDED', ended_at = now() WHERE status = 'QUEUED'");
  await submit(queue, depth / 2, 'interactive');
  await submit(queue, depth / 2, 'batch');
  await queue.raw.query(
    "UPDATE tasks SET created_at = now() - interval '1 minute' WHERE status = 'QUEUED' AND priority = 'batch'",
  );
  await queue.raw.query('VACUUM (ANALYZE) tasks');
}

async function claims(queue, total, ageing) {
  const { database, raw, replicaId } = queue;
  const claim = {
    ...{ poolId: 'bench', holder: randomUUID(), ttlMs: TTL_MS, ageing },
    ...{ serves: { engine: 'llamacpp', modelRef: MODEL }, slots: [{ replicaId, slot: SLOT }] },
  };
  const tookMs = [];
  for (let n = 0; n < total; n += 1) {
    const startedMs = performance.now();
    const [task] = await claimTasks(database, claim);
    tookMs.push(performance.now() - startedMs);
    if (task === undefined) throw new Error('nothing was claimed of a queue that is not empty');
    await raw.query(
      `WITH freed AS (UPDATE leases SET released_at = now(), release_reason = 'completed' WHERE id = $2)
       UPDATE tasks SET status = 'SUCCEEDED', ended_at = now() WHERE id = $1`,
      [task.id, task.leaseId],
    );
    await submit(queue, 1, task.priority);
  }
  return tookMs;
}

function rowsOf(ageing, [shallow, deep]) {
  const name = `dequeue, ${count(DEPTHS[1])} waiting${ageing ? ', some overdue' : ''}`;
  const row = (what, rank, aim) => ({
    what: `${name}: ${what}`,
    ours: ms(percentile(deep, rank)),
    raw: `${ms(percentile(shallow, rank))} (${DEPTHS[0]} waiting)`,
    result: `${(percentile(deep, rank) / percentile(shallow, rank)).toFixed(2)} of that`,
    aim,
  });
  return [row('p50', 50, '≤ 1.5 of that'), row('p99', 99, '')];
}
