/** The replicas of one pool: those that serve and, while a reload is under way, a second set beside them. */
import type { PoolConfig } from '../../config/schema.js';
import type { Reason } from '../../core/pool.js';
import { freeSeats } from '../../core/seats.js';
import { type Offers, offersOf } from '../../core/workload.js';
import type { InheritedSeat } from './inheritance.js';
import type { Device } from './memory.js';
import { SELF_TEST_DEADLINE_MS } from './preload.js';
import type { Recipe } from './recipe.js';
import type { Replica } from './replica.js';
import { type Room, roomBeside } from './room.js';

export interface PoolReplicasDeps {
  readonly make: (seat: InheritedSeat, modelRef: string) => Replica;
  /** The devices of a place, with the memory that is free on them now. */
  readonly devicesAt: (place: number) => readonly Device[];
  /** Waits until the rows of all replicas say what happened to them so far; false when that takes too long. */
  readonly written: () => Promise<boolean>;
  /** Their engines are gone for good: takes them out of the list. */
  readonly retire: (replicas: readonly Replica[]) => Promise<void>;
  /** Another set serves, or none does. */
  readonly onChange: () => void;
}

const NOT_WRITTEN: Reason = {
  code: 'DATABASE_AWAY',
  message: 'the database did not take the state of the replicas in time',
  fix: 'Look at PostgreSQL; start it again when it is well.',
};

export interface StartOptions {
  /** For each start on its own, ms. */
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
}

/** Started together, with one model. */
interface ReplicaSet {
  readonly modelRef: string;
  readonly replicas: readonly Replica[];
}

export class PoolReplicas {
  readonly config: PoolConfig;
  readonly recipe: Recipe;
  readonly #deps: PoolReplicasDeps;
  #serving: ReplicaSet;
  #beside: ReplicaSet | null = null;
  #draining = false;

  constructor(config: PoolConfig, recipe: Recipe, modelRef: string, deps: PoolReplicasDeps) {
    this.config = config;
    this.recipe = recipe;
    this.#serving = { modelRef, replicas: [] };
    this.#deps = deps;
  }

  get modelRef(): string {
    return this.#serving.modelRef;
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Those that tasks are given to. */
  get replicas(): readonly Replica[] {
    return this.#serving.replicas;
  }

  /** Those that a reload is about to put in place, or has put out of it. */
  get beside(): readonly Replica[] {
    return this.#beside?.replicas ?? [];
  }

  get all(): readonly Replica[] {
    return [...this.replicas, ...this.beside];
  }

  /** The others of the set that a replica was started with. A set that a reload puts in place has a version of its own. */
  standingWith(replicaId: string): readonly Replica[] {
    const isIt = ({ facts }: Replica) => facts.id === replicaId;
    return (this.beside.some(isIt) ? this.beside : this.replicas).filter((replica) => !isIt(replica));
  }

  get offers(): Offers {
    const { workloads, workloadFixes } = this.recipe;
    const taken = this.replicas.length === 0 ? workloads : this.replicas.flatMap((replica) => replica.workloads);
    return offersOf(taken, workloadFixes);
  }

  /** Longest its replicas may take from a start to ready, ms. */
  get readyDeadlineMs(): number {
    return this.recipe.readyDeadlineMs + SELF_TEST_DEADLINE_MS;
  }

  /** At a start, before anything else. */
  make(seats: readonly InheritedSeat[]): void {
    const { modelRef } = this.#serving;
    this.#serving = { modelRef, replicas: seats.map((seat) => this.#deps.make(seat, modelRef)) };
  }

  /** Starts its engines, or leaves them for the first task. */
  begin(): void {
    for (const replica of this.replicas) {
      if (this.config.preload) replica.start();
      else replica.rest();
    }
  }

  /** Engines of it are left for its first task. */
  get rests(): boolean {
    return this.replicas.some((replica) => replica.rests);
  }

  wake(): void {
    for (const replica of this.replicas) if (replica.rests) replica.start();
  }

  setDraining(draining: boolean): void {
    this.#draining = draining;
    this.#tell();
  }

  retryQuarantined(): void {
    for (const replica of this.replicas) replica.retry();
  }

  /**
   * Starts every replica anew with a model, in place of what it runs, whatever stands in the way of that model: none goes on
   * with another one. `serves` makes it the pool's model.
   * @returns null when all are ready, else the first thing that went wrong.
   */
  async setModel(modelRef: string, options: StartOptions): Promise<Reason | null> {
    return firstFailure(this.replicas.map((replica) => replica.setModel(modelRef, options)));
  }

  /** Its replicas run this model, and tasks that ask for it may come. */
  serves(modelRef: string): void {
    this.#serving = { modelRef, replicas: this.replicas };
  }

  /** Whether every replica could have a second one with that model beside it now. */
  room(modelRef: string): Promise<Room> {
    const places = Array.from({ length: this.config.replicas }, (_, place) => this.#deps.devicesAt(place));
    return roomBeside(this.recipe, modelRef, places);
  }

  /**
   * Starts as many replicas with another model beside those that serve: one first, the others when that one is ready.
   * `switchOver` lets them serve; `stopBeside` ends them, and has to where this failed.
   * @returns null when all are ready and their rows say so, else the first thing that went wrong.
   */
  async startBeside(modelRef: string, options: StartOptions): Promise<Reason | null> {
    if (this.#beside !== null) throw new Error(`pool ${this.config.id} has replicas beside it already`);
    const taken = new Set(this.replicas.map(({ facts }) => facts.ordinal));
    const replicas = freeSeats(this.config.replicas, taken).map((seat) =>
      this.#deps.make({ ...seat, inherited: null }, modelRef),
    );
    this.#beside = { modelRef, replicas };
    const [canary, ...others] = replicas;
    const start = (replica: Replica) => replica.setModel(modelRef, options);
    const failure = (canary && (await start(canary))) ?? (await firstFailure(others.map(start)));
    return (await this.#deps.written()) ? failure : (failure ?? NOT_WRITTEN);
  }

  /** The replicas beside serve from now on, and those that served take no more tasks; and back again. */
  switchOver(): void {
    if (this.#beside === null) throw new Error(`pool ${this.config.id} has no replicas beside it`);
    [this.#serving, this.#beside] = [this.#beside, this.#serving];
    this.#tell();
  }

  /** Ends the replicas that do not serve and takes them out of the list; rejects, to be repeated, when that is not written. */
  async stopBeside(): Promise<void> {
    await Promise.all(this.beside.map((replica) => replica.stop()));
    // A row that is still to be written would bring it back.
    if (!(await this.#deps.written())) throw new Error(NOT_WRITTEN.message);
    await this.#deps.retire(this.beside);
    this.#beside = null;
  }

  /** Whoever takes no new tasks says so, as far as its engine is up. */
  #tell(): void {
    for (const replica of this.replicas) {
      if (this.#draining) replica.drain();
      else replica.resumeDrained();
    }
    for (const replica of this.beside) replica.drain();
    this.#deps.onChange();
  }
}

async function firstFailure(outcomes: readonly Promise<Reason | null>[]): Promise<Reason | null> {
  return (await Promise.all(outcomes)).find((outcome) => outcome !== null) ?? null;
}
