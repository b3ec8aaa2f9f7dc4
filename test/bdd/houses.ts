/** Control planes of scenarios: those that ask for the same one share it, as long as nothing has gone wrong in it. */
import { expect } from 'vitest';
import { gql } from '../support/graphql.js';
import { startWorld, type World } from '../support/world.js';
import type { Configuration } from './configuration.js';

/** More would hold engines that no scenario asks for any more. */
const MAX_OPEN = 3;

interface House {
  readonly key: string;
  readonly world: World;
}

/** The one that was asked for least recently first. */
const open: House[] = [];

export interface HouseRequest {
  readonly configuration: Configuration;
  readonly env: Readonly<Record<string, string>>;
  /** True: nobody else gets it. */
  readonly own: boolean;
}

export async function houseFor({ configuration, env, own }: HouseRequest): Promise<World> {
  const key = JSON.stringify([configuration.text, env]);
  const place = own ? -1 : open.findIndex((house) => house.key === key);
  if (place >= 0) open.push(...open.splice(place, 1));
  const shared = place < 0 ? undefined : open.at(-1);
  if (shared !== undefined) return shared.world;
  while (open.length >= MAX_OPEN) await closeHouse(open[0]?.world);
  const world = await startWorld({ config: configuration.text, env, expectNotReady: true });
  open.push({ key: own ? '' : key, world });
  await (env.AUTH_TOKEN === undefined ? untilReady(world, configuration.becomeReady) : untilOpen(world));
  return world;
}

/** Ends a control plane that nobody shares, and starts another over its database. @returns that; it is not shared. */
export async function succeed(before: World, { configuration, env }: Omit<HouseRequest, 'own'>): Promise<World> {
  await before.plane.close();
  const databaseUrl = async () => before.database.url;
  const world = await startWorld({ config: configuration.text, env, databaseUrl, expectNotReady: true });
  await untilReady(world, configuration.becomeReady);
  return world;
}

export async function closeHouse(world: World | undefined): Promise<void> {
  const place = open.findIndex((house) => house.world === world);
  if (place >= 0) open.splice(place, 1);
  await world?.[Symbol.asyncDispose]();
}

async function untilReady(world: World, wanted: readonly string[]): Promise<void> {
  const notReady = async () => {
    const { data } = await gql(world.url, '{ pools { name ready notReadyBecause { code } } }');
    return data.pools.filter(({ name, ready }: { name: string; ready: boolean }) => !ready && wanted.includes(name));
  };
  await expect.poll(notReady, { timeout: 20_000 }).toEqual([]);
}

/** Where GraphQL asks for a token. */
async function untilOpen(world: World): Promise<void> {
  await expect.poll(async () => (await fetch(`${world.url}/ready`)).status, { timeout: 20_000 }).toBe(200);
}
