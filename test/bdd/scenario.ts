/** What one scenario knows: its control plane, its tasks by the names it gave them, and the last answer. */
import { randomUUID } from 'node:crypto';

import { type Sample, scrape } from '../support/metrics.js';
import type { World } from '../support/world.js';
import { configurationOf } from './configuration.js';
import { type Answer, Doors, type TaskReader } from './doors.js';
import { closeHouse, houseFor, succeed } from './houses.js';
import { writeProof } from './proof.js';
import { QuickPickleWorld, setWorldConstructor } from './quickpickle.js';
import type { StepData } from './step.js';

interface ModelFile {
  readonly path: string;
  readonly folder: string;
  /** `sha256:` and hex digits. */
  readonly digest: string;
}

export class Scenario extends QuickPickleWorld {
  /** For the next control plane of this scenario. */
  readonly env: Record<string, string> = {};
  /** The host is made for this scenario: no other can have its control plane. */
  hasOwnHost = false;
  /** Sections of its configuration beside the pools. */
  readonly sections: Record<string, unknown> = {};
  /** The last answer of a door, or what a command printed. */
  answer: Answer | null = null;
  /** Global id of the last operation that was begun. */
  operationId: string | null = null;
  readonly #taskIds = new Map<string, string>();
  readonly #readers = new Map<string, TaskReader>();
  readonly #files = new Map<string, ModelFile>();
  readonly #cleanups: (() => unknown)[] = [];
  #world: World | null = null;
  /** Nobody else has it: it ends with the scenario. */
  #owns = false;
  #doors: Doors | null = null;
  #metrics: ReadonlyMap<string, readonly Sample[]> = new Map();
  #linesBefore = 0;

  override async init(): Promise<void> {
    this.context.onTestFinished(({ task }) => this.#end(task.result?.state === 'fail'), 30_000);
  }

  /** Brings up what it describes, or goes where another scenario has it already. */
  async enter(table: StepData): Promise<void> {
    const row = (cells: Record<string, string>) =>
      Object.fromEntries(Object.entries(cells).map(([column, cell]) => [column, this.filled(cell)]));
    const configuration = configurationOf(table.hashes().map(row), this.sections);
    await this.enterConfigured({ configuration, own: this.hasOwnHost });
  }

  async enterConfigured(request: { configuration: ReturnType<typeof configurationOf>; own: boolean }): Promise<void> {
    this.#owns = request.own || this.info.tags.includes('@own');
    this.#world = await houseFor({ ...request, own: this.#owns, env: this.env });
    this.#doors = new Doors(this.#world.url);
    this.#linesBefore = this.#world.logLines().length;
    const isOpen = this.env.AUTH_TOKEN === undefined || this.env.AUTH_OPTIONAL === 'true';
    if (isOpen) this.#metrics = await scrape(this.#world.url);
  }

  /** The control plane is stopped; another begins where it ended. */
  async startAnew(table: StepData): Promise<void> {
    const before = this.world;
    if (!this.#owns) throw new Error('others may use this control plane — give the scenario its own by @own');
    const world = await succeed(before, {
      configuration: configurationOf(table.hashes(), this.sections),
      env: this.env,
    });
    this.later(() => closeHouse(before));
    this.#world = world;
    this.#doors = new Doors(world.url);
    this.#linesBefore = 0;
  }

  get world(): World {
    if (this.#world === null) throw new Error('the scenario has no control plane yet');
    return this.#world;
  }

  get doors(): Doors {
    if (this.#doors === null) throw new Error('the scenario has no control plane yet');
    return this.#doors;
  }

  /** As they were when the scenario came. */
  get metricsBefore(): ReadonlyMap<string, readonly Sample[]> {
    return this.#metrics;
  }

  /** Of this scenario alone. */
  logLines(): readonly string[] {
    return this.world.logLines().slice(this.#linesBefore);
  }

  /** Calls `cleanup` at the end, the last that was given first. */
  later(cleanup: () => unknown): void {
    this.#cleanups.push(cleanup);
  }

  /** The id of the task of that name, which has a new one when it is named for the first time. */
  taskId(name: string): string {
    const known = this.#taskIds.get(name) ?? randomUUID();
    this.#taskIds.set(name, known);
    return known;
  }

  /** The reader of that task, which begins at the first question. */
  reader(name: string): TaskReader {
    const reader = this.#readers.get(name) ?? this.readAgain(name);
    this.#readers.set(name, reader);
    return reader;
  }

  /** Another reader of it, in the place of the one before. */
  readAgain(name: string, after?: number): TaskReader {
    this.#readers.get(name)?.leave();
    const reader = this.doors.stream(this.taskId(name), after);
    this.#readers.set(name, reader);
    return reader;
  }

  /** A file that a model may lie in, which exists by now. */
  addFile(name: string, file: ModelFile): void {
    this.#files.set(name, file);
  }

  /**
   * Text of a feature: `{id of NAME}` is the id of that task, `{path of NAME}`, `{folder of NAME}` and
   * `{digest of NAME}` tell of a file, and
   * `{answer id}` is the id in the last answer.
   */
  filled(text: string): string {
    const { id = '' } = (this.answer?.body ?? {}) as { id?: string };
    const ids = text.replace(/\{id of ([\w ]+)\}/g, (_whole, name: string) => this.taskId(name));
    return ids
      .replaceAll('{answer id}', id)
      .replace(/\{(path|folder|digest) of ([\w.]+)\}/g, (_whole, what: keyof ModelFile, name: string) => {
        const file = this.#files.get(name);
        if (file === undefined) throw new Error(`there is no file ${name}`);
        return file[what];
      });
  }

  /** The rows of a table, filled. */
  rows(table: StepData): string[][] {
    return table.raw().map((row) => row.map((cell) => this.filled(cell)));
  }

  async #end(failed: boolean): Promise<void> {
    try {
      if (failed) await writeProof(this);
      for (const reader of this.#readers.values()) reader.leave();
      if (this.#world !== null && !failed) await this.#cancelAll();
    } finally {
      if (failed || this.#owns) await closeHouse(this.#world ?? undefined);
      for (const cleanup of this.#cleanups.reverse()) await cleanup();
    }
  }

  /** The next scenario finds the engines idle. Tasks that ended, or were never admitted, are not touched by it. */
  async #cancelAll(): Promise<void> {
    const ids = [...this.#taskIds.values()];
    await Promise.all(ids.map((id) => this.doors.rest('POST', `/v1/tasks/${id}/cancel`, '{}')));
  }
}

setWorldConstructor(Scenario);
