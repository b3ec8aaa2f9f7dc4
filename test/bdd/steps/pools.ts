/** What lies behind pools: the program of their engines, signs of life, leases, and the journal of what befell them. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { tokensOf } from '../../support/rest.js';
import type { Scenario } from '../scenario.js';
import { showTask } from '../shows.js';
import { step } from '../step.js';

/** Where the version of its engines stands. */
const programs = new WeakMap<Scenario, string>();

/** Of the engines that are started from now on, where a pool has the flags `--version-file {path of engine}`. */
step(/^the program of the engines has the version "([^"]+)"$/, async (scenario, version: string) => {
  const known = programs.get(scenario);
  const folder = known ?? (await mkdtemp(join(tmpdir(), 'llama-orch-bdd-')));
  const path = join(folder, 'version');
  await writeFile(path, version);
  if (known !== undefined) return;
  programs.set(scenario, folder);
  scenario.later(() => rm(folder, { recursive: true, force: true }));
  scenario.addFile('engine', { path, folder, digest: '' });
});

/** More comes than has come by now. */
step(/^"(\w+)" goes on streaming$/, async (scenario, name: string) => {
  const reader = scenario.reader(name);
  const before = tokensOf(reader.frames).length;
  await expect.poll(() => tokensOf(reader.frames).length).toBeGreaterThan(before);
});

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
