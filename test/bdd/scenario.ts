/** What one scenario knows: its control plane, its tasks by the names it gave them, and the last answer. */
import { randomUUID } from 'node:crypto';
import { type Configuration, configurationOf } from './configuration.js';
import { type Answer, Doors, type TaskReader } from './doors.js';
import { closeHouse, openHouse, untilReady } from './houses.js';
import type { Metrics } from './metrics.js';
import type { Plane } from './plane.js';
import { removeProof, writeProof } from './proof.js';
import { QuickPickleWorld, setWorldConstructor } from './quickpickle.js';
import { latestEvents } from './shows.js';
import type { StepData } from './step.js';
import { Transcript } from './transcript.js';

/** Reading all that could be seen of a control plane that does not answer takes a while. */
const END_MS = 120_000;

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
  readonly transcript = new Transcript();
  /** The last answer of a door, or what a command printed. */
  answer: Answer | null = null;
  /** Global id of the last operation that was begun. */
  operationId: string | null = null;
  readonly #taskIds = new Map<string, string>();
  readonly #readers = new Map<string, TaskReader>();
  readonly #files = new Map<string, ModelFile>();
  readonly #cleanups: (() => unknown)[] = [];
  #hasEnded = false;
  #plane: Plane | null = null;
  /** Nobody else has it: it ends with the scenario. */
  #owns = false;
  #doors: Doors | null = null;
  #metrics: Metrics | null = null;
  /** By pool: the newest event when the scenario came, if it is not the first here. */
  #events: ReadonlyMap<string, string> = new Map();
  #linesBefore = 0;

  override async init(): Promise<void> {
    this.context.task.meta.scenario = { feature: this.info.feature, name: this.info.scenario };
    this.context.onTestFinished(({ task }) => this.#end(task.result?.state === 'fail'), END_MS);
  }

  /** Brings up what it describes, or goes where another scenario has it already. */
  async enter(table: StepData): Promise<void> {
    const row = (cells: Record<string, string>) =>
      Object.fromEntries(Object.entries(cells).map(([column, cell]) => [column, this.filled(cell)]));
    const configuration = configurationOf(table.hashes().map(row), this.sections);
    await this.enterConfigured({ configuration, own: this.hasOwnHost });
  }

  async enterConfigured(request: { configuration: Configuration; own: boolean }): Promise<void> {
    if (this.#owns) await closeHouse(this.#plane ?? undefined);
    this.#owns = request.own || this.info.tags.includes('@own');
    let isNew = true;
    await openHouse({
      ...request,
      own: this.#owns,
      env: { ...this.env },
      onPlane: (plane, fresh) => {
        isNew = fresh;
        this.#arriveAt(plane, isNew);
      },
      doorsOf: (plane) => this.#openDoors(plane),
    });
    if (!isNew) this.#events = await latestEvents(this.doors);
    this.#metrics = await this.doors.metrics();
  }

  #arriveAt(plane: Plane, isNew: boolean): void {
    if (this.#hasEnded) throw new Error('the scenario has ended before its control plane was there');
    this.#plane = plane;
    this.#doors = null;
    this.#metrics = null;
    this.#events = new Map();
    this.#linesBefore = isNew ? 0 : plane.lines().length;
  }

  #openDoors(plane: Plane): Doors {
    this.#doors = new Doors(plane.url, this.transcript, plane.setting.env.AUTH_TOKEN);
    return this.#doors;
  }

  /** The control plane is stopped; another begins where it ended. */
  async startAnew(table: StepData): Promise<void> {
    if (!this.#owns) throw new Error('others may use this control plane — give the scenario its own by @own');
    const { text, becomeReady } = configurationOf(table.hashes(), this.sections);
    await this.plane.startAnew({ config: text, env: { ...this.env } });
    await untilReady(this.#openDoors(this.plane), becomeReady);
  }

  get plane(): Plane {
    if (this.#plane === null) throw new Error('the scenario has no control plane yet');
    return this.#plane;
  }

  get doors(): Doors {
    if (this.#doors === null) throw new Error('the scenario has no control plane yet, or it is not up');
    return this.#doors;
  }

  /** As they were when the scenario came. */
  get metricsBefore(): Metrics {
    if (this.#metrics === null) throw new Error('the scenario has no control plane yet');
    return this.#metrics;
  }

  /** Cursor of the newest event of a pool when the scenario came; undefined where it saw the beginning. */
  lastEventBefore(pool: string): string | undefined {
    return this.#events.get(pool);
  }

  /** Of this scenario alone. */
  logLines(): readonly string[] {
    return this.plane.lines().slice(this.#linesBefore);
  }

  /** Calls `cleanup` at the end, the last that was given first. */
  later(cleanup: () => unknown): void {
    this.#cleanups.push(cleanup);
  }

  /** By the names that it gave them. */
  taskIds(): ReadonlyMap<string, string> {
    return this.#taskIds;
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
    this.#hasEnded = true;
    try {
      if (failed) await writeProof(this);
      else await removeProof(this);
      for (const reader of this.#readers.values()) reader.leave();
      if (this.#doors !== null && !failed) await this.#cancelAll(this.#doors);
    } finally {
      try {
        if (failed || this.#owns) await closeHouse(this.#plane ?? undefined);
      } finally {
        for (const cleanup of this.#cleanups.reverse()) await cleanup();
      }
    }
  }

  /** The next scenario finds the engines idle. Tasks that ended, or were never admitted, are not touched by it. */
  async #cancelAll(doors: Doors): Promise<void> {
    const ids = [...this.#taskIds.values()];
    await Promise.all(ids.map((id) => doors.rest('POST', `/v1/tasks/${id}/cancel`, '{}')));
  }
}

setWorldConstructor(Scenario);
