/**
 * The evidence of I1 to I14 that is gathered in the same way whatever is struck: what a system takes when it is quiet, what
 * it tells, which engines live, what they were asked to do, and a sign of life that is given before each look.
 */
import { pollUntil } from '../../src/runtime/wait.js';
import type { CallLog } from './invariantCalls.js';
import type { Asked } from './invariantFacts.js';
import {
  DATABASE_SLACK,
  databaseFloor,
  ENGINE_SLACK,
  engineFloor,
  PLANE_SLACK,
  planeFloor,
  type WatchedPlane,
} from './invariantFloors.js';
import { Proofs } from './invariantProofs.js';
import type { Evidence, Floor } from './invariants.js';
import { scrape } from './metrics.js';
import { enginesOfNodes, type ServerProcess } from './server.js';
import type { World } from './world.js';

/** The floor is the most that is seen in so many looks: what comes and goes at rest is not what a load leaves behind. */
const LOOKS = 6;
const LOOK_EVERY_MS = 150;
const QUIET_MS = 15_000;
/** The most that there is then: one of the loops may be asking. */
const AT_REST: Floor = { leases: 0, 'stream readers': 0, 'busy slots': 0, 'waiting calls': 0, 'taken connections': 1 };

export interface WatchOptions {
  readonly database: Asked;
  readonly planes: readonly WatchedPlane[];
  readonly calls: CallLog;
  /** What the sign of life asks that is not by default. */
  readonly request?: Readonly<Record<string, unknown>>;
}

export class SystemWatch {
  readonly proofs: Proofs;
  readonly #options: WatchOptions;
  readonly #floors = new Map<string, Floor>();
  /** Of the database, that lost what it had not written. */
  databaseCrashes = 0;

  private constructor(options: WatchOptions) {
    this.#options = options;
    this.proofs = new Proofs(options.database, options.request);
  }

  /** When all is ready, and nothing has been asked; what is used for the first time is, before its floor is taken. */
  static async begin(options: WatchOptions): Promise<SystemWatch> {
    const watch = new SystemWatch(options);
    await watch.prove();
    for (let look = 0; look < LOOKS; look += 1) {
      let floors: [string, Floor][] = [];
      const isQuiet = async () => {
        floors = await watch.#look();
        return floors.every(([, floor]) => Object.entries(AT_REST).every(([name, most]) => (floor[name] ?? 0) <= most));
      };
      await pollUntil(isQuiet, { everyMs: LOOK_EVERY_MS, deadlineMs: QUIET_MS });
      for (const [what, floor] of floors) watch.#floors.set(what, highest(watch.#floors.get(what), floor));
    }
    return watch;
  }

  /** A sign of life, at every door. */
  async prove(): Promise<void> {
    const doors = this.#doors();
    for (const [at, door] of doors.entries()) await this.proofs.run(door, doors[(at + 1) % doors.length]);
  }

  /** After a fault, with a sign of life; a suite adds what it has of its own. */
  async evidence(own: Partial<Evidence> = {}): Promise<Evidence> {
    const { database, planes, calls } = this.#options;
    const { proofs } = this;
    const views = (await Promise.all(this.#doors().map((url) => proofs.views(url)))).flat();
    await this.prove();
    const { databaseCrashes } = this;
    return {
      ...{ database, doors: this.#doors(), views, processes: () => enginesOfNodes(database) },
      floors: this.#claims(),
      metrics: () =>
        Promise.all(planes.map(async ({ url, sinceMs }) => ({ told: await scrape(url()), sinceMs: sinceMs() }))),
      engineCalls: { began: calls.began, databaseCrashes },
      ...own,
      acknowledged: new Map([...proofs.acknowledged, ...(own.acknowledged ?? [])]),
      readers: [...proofs.readers, ...(own.readers ?? [])],
      repeated: new Map([...proofs.repeated, ...(own.repeated ?? [])]),
      cancels: [...proofs.cancels, ...(own.cancels ?? [])],
    };
  }

  #doors(): string[] {
    return this.#options.planes.map(({ url }) => url());
  }

  #claims(): NonNullable<Evidence['floors']> {
    return this.#watched().map(({ what, look, slack }) => {
      return { what, was: this.#floors.get(what) ?? {}, now: look, slack };
    });
  }

  #look(): Promise<[string, Floor][]> {
    return Promise.all(this.#watched().map(async ({ what, look }): Promise<[string, Floor]> => [what, await look()]));
  }

  #watched(): { readonly what: string; readonly look: () => Promise<Floor>; readonly slack: Floor }[] {
    const { database, planes } = this.#options;
    return [
      ...planes.map((plane) => {
        const look = async () => planeFloor(plane, await this.#enginePids());
        return { what: plane.what, look, slack: PLANE_SLACK };
      }),
      { what: 'an engine', look: () => engineFloor(database), slack: ENGINE_SLACK },
      { what: 'the database', look: () => databaseFloor(database), slack: DATABASE_SLACK },
    ];
  }

  async #enginePids(): Promise<number[]> {
    return (await enginesOfNodes(this.#options.database)).map(({ pid }) => pid);
  }
}

function highest(one: Floor | undefined, other: Floor): Floor {
  return Object.fromEntries(
    Object.entries(other).map(([name, value]) => [name, Math.max(value, one?.[name] ?? value)]),
  );
}

let warnings = '';
process.on('warning', ({ name }) => {
  warnings += `${name}\n`;
});

/** A control plane in the process of the tests. */
export function planeOfWorld({ url }: World): WatchedPlane {
  return {
    what: 'the control plane',
    pid: () => process.pid,
    url: () => url,
    output: () => warnings,
    sinceMs: () => 0,
  };
}

/** The one that runs now. */
export function planeOfServer(what: string, server: () => ServerProcess): WatchedPlane {
  return {
    what,
    pid: () => server().pid,
    url: () => server().url,
    output: () => server().output(),
    sinceMs: () => server().startedMs,
  };
}
