/** What the database did not hear while it was away is told to it afterwards, and no reader waits for ever. */
import { afterEach, describe, expect, it } from 'vitest';
import { type CutProxy, through } from '../support/cutProxy.js';
import { gql } from '../support/graphql.js';
import { logCalls } from '../support/invariantCalls.js';
import { callWitness } from '../support/invariantFacts.js';
import { expectInvariants } from '../support/invariants.js';
import { planeOfWorld, SystemWatch } from '../support/invariantWatch.js';
import { LONG } from '../support/long.js';
import { post, readStream, taskRequest, tokensOf } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World | null = null;
let proxy: CutProxy | null = null;

afterEach(async () => {
  await proxy?.mend().catch(() => {});
  await world?.[Symbol.asyncDispose]();
  await proxy?.[Symbol.asyncDispose]();
  world = null;
  proxy = null;
});

/** One replica, and what the invariants need. */
async function startWatched(databaseUrl?: (url: string) => Promise<string>): Promise<[World, SystemWatch]> {
  const calls = await logCalls();
  const config = simConfig({ replicas: 1, env: calls.env });
  world = await startWorld({ config, ...(databaseUrl !== undefined && { databaseUrl }) });
  const { database } = world;
  await callWitness(database);
  return [world, await SystemWatch.begin({ database, planes: [planeOfWorld(world)], calls })];
}

async function row(sql: string, ...values: unknown[]) {
  const [found] = (await world?.database.query(sql, values)) ?? [];
  if (found === undefined) throw new Error(`nothing found: ${sql}`);
  return found;
}

describe('a database that was away', () => {
  it('has the last state of a replica, and every event of it, once it is back', { timeout: 90_000 }, async () => {
    const databaseUrl = through((made) => {
      proxy = made;
    });
    const [, watch] = await startWatched(databaseUrl);
    const { pid } = await row("SELECT pid FROM replicas WHERE id = 'sim-0'");
    await proxy?.cut();
    process.kill(pid, 'SIGKILL');
    const startedAnew = () => world?.logLines().filter((line) => line.includes('"to":"READY"')).length;
    await expect.poll(startedAnew, { timeout: 30_000 }).toBe(2);
    await proxy?.mend();
    const state = () => row("SELECT state, restart_count, pid <> $1 AS other FROM replicas WHERE id = 'sim-0'", pid);
    await expect.poll(state, { timeout: 30_000 }).toEqual({ state: 'READY', restart_count: 1, other: true });
    const count = async (kind: string) =>
      Number((await row('SELECT count(*) FROM pool_events WHERE kind = $1', kind)).count);
    // They come in the order in which they were told, the row that says READY before the last of them.
    await expect.poll(() => count('replica_preload'), { timeout: 30_000 }).toBe(2);
    const states = "SELECT detail FROM pool_events WHERE kind = 'replica_state' ORDER BY seq";
    const movesNow = async () => (await world?.database.query(states)) ?? [];
    await expect.poll(async () => (await movesNow()).at(-1)?.detail.to).toBe('READY');
    expect([await count('replica_crashed'), await count('replica_restart')]).toEqual([1, 1]);
    expect(await count('replica_preload')).toBe(2);
    const moves = await movesNow();
    // No gap: each state begins where the one before it ended.
    for (const [at, { detail }] of moves.entries()) {
      if (at > 0) expect(detail.from).toBe(moves[at - 1]?.detail.to);
    }
    expect(moves.at(-1)?.detail.to).toBe('READY');
    const evidence = await watch.evidence({ patienceMs: 30_000 });
    await expectInvariants('a database that was away', evidence);
  });

  it.runIf(LONG)('leaves no reader waiting when it refuses the ending of a task', { timeout: 90_000 }, async () => {
    const [world, watch] = await startWatched();
    await world.database.query(`CREATE SEQUENCE endings;
      CREATE FUNCTION refuse_first() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF nextval('endings') = 1 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '22000'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER refuse_first BEFORE UPDATE ON tasks FOR EACH ROW WHEN (NEW.status = 'SUCCEEDED')
        EXECUTE FUNCTION refuse_first();`);
    const request = taskRequest({ model_ref: 'sim-7b', max_tokens: 5 });
    expect((await post(world.url, '/v1/tasks', request)).status).toBe(202);
    const frames = await readStream(world.url, request.task_id);
    expect(frames.at(-1)?.event).toBe('end');
    expect(tokensOf(frames)).toHaveLength(5);
    expect(world.logLines().join('')).toContain('attempt ending');
    const evidence = await watch.evidence({
      ...{ acknowledged: new Map([[request.task_id, null]]), readers: [{ taskId: request.task_id, frames }] },
      patienceMs: 30_000,
    });
    await expectInvariants('an ending that was refused', evidence);
  });
});

describe('a start that is refused before there is a process', () => {
  it.runIf(LONG)('is tried again for as long as it takes, and is not given up', { timeout: 60_000 }, async () => {
    const config = simConfig({ replicas: 1 }).replaceAll(/memory_bytes: \d+/g, 'memory_bytes: 1000000');
    world = await startWorld({ config, expectNotReady: true });
    const url = world.url;
    const refusals = async () =>
      Number(
        (
          await row(
            "SELECT count(*) FROM pool_events WHERE kind = 'replica_preload' AND detail->>'outcome' = 'refused'",
          )
        ).count,
      );
    await expect.poll(refusals, { timeout: 40_000 }).toBeGreaterThanOrEqual(6);
    const { data } = await gql(url, '{ pools { replicas { state restartCount breaker lastError { code } } } }');
    const [replica] = data.pools[0].replicas;
    expect(replica).toMatchObject({ restartCount: 0, lastError: { code: 'VRAM_INSUFFICIENT' } });
    expect(['BACKING_OFF', 'ABSENT', 'PROVISIONING']).toContain(replica.state);
  });
});
