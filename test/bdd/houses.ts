/** Control planes of scenarios: those that ask for the same one share it, as long as nothing has gone wrong in it. */
import type { Configuration } from './configuration.js';
import type { Doors } from './doors.js';
import { eventually } from './eventually.js';
import { Plane } from './plane.js';

/** More would hold engines that no scenario asks for any more. */
const MAX_OPEN = 3;

interface House {
  readonly key: string;
  readonly plane: Plane;
}

/** Those that may be shared: they were ready once. The one that was asked for least recently first. */
const open: House[] = [];

export interface HouseRequest {
  readonly configuration: Configuration;
  readonly env: Readonly<Record<string, string>>;
  /** True: nobody else gets it, and who asked for it closes it. */
  readonly own: boolean;
  /**
   * Gets the control plane before anything can go wrong with it, so that it can tell of it, and close it. It is not up
   * yet if it is new.
   */
  readonly onPlane: (plane: Plane, isNew: boolean) => void;
  /** The doors of one that is up. */
  readonly doorsOf: (plane: Plane) => Doors;
}

/** Resolves once the pools are ready that are to be. */
export async function openHouse({ configuration, env, own, onPlane, doorsOf }: HouseRequest): Promise<void> {
  const key = JSON.stringify([configuration.text, env]);
  const place = own ? -1 : open.findIndex((house) => house.key === key);
  if (place >= 0) open.push(...open.splice(place, 1));
  const shared = place < 0 ? undefined : open.at(-1);
  if (shared !== undefined) {
    onPlane(shared.plane, false);
    return untilAtRest(doorsOf(shared.plane));
  }
  while (open.length >= MAX_OPEN) await closeHouse(open[0]?.plane);
  const plane = await Plane.make({ config: configuration.text, env });
  onPlane(plane, true);
  await plane.start();
  await untilReady(doorsOf(plane), configuration.becomeReady);
  if (!own) open.push({ key, plane });
}

export async function closeHouse(plane: Plane | undefined): Promise<void> {
  const place = open.findIndex((house) => house.plane === plane);
  if (place >= 0) open.splice(place, 1);
  await plane?.[Symbol.asyncDispose]();
}

interface Standing {
  readonly name: string;
  readonly ready: boolean;
  readonly activeLeases: number;
  readonly queue: { readonly depth: number };
  readonly operation: object | null;
}

const STANDING = '{ pools { name ready activeLeases queue { depth } operation { kind } notReadyBecause { code } } }';

async function standings(doors: Doors): Promise<Standing[]> {
  const { data, errors } = await doors.graphql(STANDING);
  if (errors !== undefined) throw new Error(JSON.stringify(errors));
  return data.pools;
}

export async function untilReady(doors: Doors, wanted: readonly string[]): Promise<void> {
  const notReady = async () => (await standings(doors)).filter(({ name, ready }) => !ready && wanted.includes(name));
  await eventually(notReady).toEqual([]);
}

/** What the scenario before has caused is over, and counted: no pool does anything, and no counter moves from look to look. */
async function untilAtRest(doors: Doors): Promise<void> {
  const busy = async () =>
    (await standings(doors)).filter(
      ({ activeLeases, queue, operation }) => activeLeases > 0 || queue.depth > 0 || operation !== null,
    );
  await eventually(busy).toEqual([]);
  let before: ReadonlyMap<string, string> | null = null;
  const moved = async () => {
    const now = (await doors.metrics()).counters();
    const others = [...now].filter(([series, value]) => before?.get(series) !== value);
    before = now;
    return others.map(([series]) => series);
  };
  await eventually(moved).toEqual([]);
}
