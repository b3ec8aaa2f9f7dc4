/** Pools, replicas, tasks and sessions: what they come to show, and what is told of them. */
import { expect } from 'vitest';
import { matches, mismatches } from '../matching.js';
import type { Scenario } from '../scenario.js';
import { eventsOf, showPool, showReplica, showSession, showTask } from '../shows.js';
import { type StepData, step } from '../step.js';

/** Waits until all rows hold: what is shown follows what happens by a moment. */
async function comesToShow(read: () => Promise<unknown>, table: StepData, scenario: Scenario): Promise<void> {
  const rows = scenario.rows(table);
  await expect.poll(async () => mismatches(await read(), rows), { interval: 100 }).toEqual([]);
}

step(/^the pool "([^"]+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showPool(scenario.doors, name), table, scenario),
);

step(/^the replica "([^"]+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showReplica(scenario.doors, name), table, scenario),
);

step(/^the task "(\w+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showTask(scenario.doors, scenario.taskId(name)), table, scenario),
);

step(/^the session "(\w+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showSession(scenario.doors, scenario.taskId(`session ${name}`)), table, scenario),
);

step(/^the session "(\w+)" is gone$/, (scenario, name: string) =>
  expect.poll(() => showSession(scenario.doors, scenario.taskId(`session ${name}`))).toBeNull(),
);

/** Later leases have higher ones, so that a holder of the past is known by its own. */
step(
  /^the lease of "(\w+)" has a higher fencing token than that of "(\w+)"$/,
  async (scenario, later: string, earlier: string) => {
    const tokenOf = async (name: string) => {
      const task = (await showTask(scenario.doors, scenario.taskId(name))) as {
        lease: { fencingToken: string } | null;
      };
      return BigInt(task.lease?.fencingToken ?? 0);
    };
    const than = await tokenOf(earlier);
    expect(than).toBeGreaterThan(0n);
    expect(await tokenOf(later)).toBeGreaterThan(than);
  },
);

/** Its registry entry tells of a later sign of life than it does now. */
step(/^the engines of "([^"]+)" give another sign of life$/, async (scenario, pool: string) => {
  const look = async () => {
    const { body } = await scenario.doors.rest('GET', `/pools/${pool}/status`);
    return (body as { last_heartbeat_ms: number | null }).last_heartbeat_ms ?? 0;
  };
  const before = await look();
  await expect.poll(look, { interval: 200 }).toBeGreaterThan(before);
});

/** In this order; others may stand between them. */
step(/^the pool "([^"]+)" has told:$/, async (scenario, pool: string, table: StepData) => {
  const missing = async () => {
    const rest = await eventsOf(scenario.doors, pool);
    return table.raw().filter(([kind = '', message = 'any']) => {
      const place = rest.findIndex((event) => event.kind === kind && matches(event.message, message));
      if (place >= 0) rest.splice(0, place + 1);
      return place < 0;
    });
  };
  await expect.poll(missing, { interval: 100 }).toEqual([]);
});

interface EventEdge {
  readonly cursor: string;
  readonly node: { readonly kind: string; readonly at: string; readonly message: string };
}

/** The newest come first, so what is read on from one is older. */
step(
  /^the events of "([^"]+)" can be read on from each of the last (\d+)$/,
  async (scenario, pool: string, count: number) => {
    const query = `query ($pool: String!, $first: Int!, $after: String) { pool(name: $pool) {
    events(first: $first, after: $after) { edges { cursor node { kind at message } } } } }`;
    const read = async (first: number, after: string | null): Promise<EventEdge[]> =>
      (await scenario.doors.graphql(query, { pool, first, after })).data.pool.events.edges;
    const last = await read(count, null);
    expect(last).toHaveLength(count);
    for (const [place, { cursor }] of last.slice(0, -1).entries()) {
      const older = last.slice(place + 1);
      expect(await read(older.length, cursor)).toEqual(older);
    }
  },
);
