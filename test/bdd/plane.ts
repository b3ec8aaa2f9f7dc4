/** A control plane as it is run: `llama-orch serve`, a process of its own, over a database and a data directory. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { endsWithFile } from '../support/lifetimes.js';
import { makeHome, type ServeProcess, startServe } from '../support/server.js';

/** Many start at once beside other tests. */
const START_MS = 80_000;

export interface PlaneSetting {
  /** YAML of its configuration. */
  readonly config: string;
  readonly env: Readonly<Record<string, string>>;
}

export class Plane implements AsyncDisposable {
  readonly #database: TestDatabase;
  readonly #home: Awaited<ReturnType<typeof makeHome>>;
  #setting: PlaneSetting;
  #process: ServeProcess | null = null;
  #url: string | null = null;
  /** Of the processes before this one. */
  #outputBefore = '';
  #ending: Promise<void> | null = null;
  readonly #hasEnded: () => void;

  private constructor(database: TestDatabase, home: Awaited<ReturnType<typeof makeHome>>, setting: PlaneSetting) {
    this.#database = database;
    this.#home = home;
    this.#setting = setting;
    this.#hasEnded = endsWithFile({ end: () => this[Symbol.asyncDispose](), kill: () => {} });
  }

  /** With a database and a data directory; not started yet. */
  static async make(setting: PlaneSetting): Promise<Plane> {
    return new Plane(await createDatabase(), await makeHome(), setting);
  }

  get setting(): PlaneSetting {
    return this.#setting;
  }

  /** Of all its processes, log and error output. */
  lines(): readonly string[] {
    const lines = `${this.#outputBefore}${this.#process?.output() ?? ''}`.split('\n');
    return lines.filter((line) => line !== '');
  }

  get url(): string {
    if (this.#url === null) throw new Error('the control plane is not up');
    return this.#url;
  }

  /** Resolves once its doors are open. @throws with what it wrote, when it is not up in time. */
  async start(): Promise<void> {
    const file = join(this.#home.path, 'config.yaml');
    await writeFile(file, this.#setting.config);
    const where = {
      LLAMA_ORCH_HOME: this.#home.path,
      ORCHD_ADDR: '127.0.0.1:0',
      DATABASE_URL: this.#database.url,
    };
    this.#process = startServe(file, { ...where, ...this.#setting.env }, START_MS);
    this.#url = await this.#process.open;
  }

  /** Stops it, and starts another over its database and data directory. */
  async startAnew(setting: PlaneSetting): Promise<void> {
    await this.#stop();
    this.#setting = setting;
    await this.start();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    try {
      if (this.#url !== null) await this.#stop();
    } finally {
      await this.#home.remove();
      await this.#database[Symbol.asyncDispose]();
      this.#hasEnded();
    }
  }

  /** By SIGTERM, which ends it in peace. */
  async #stop(): Promise<void> {
    const exit = await this.#process?.stop();
    this.#outputBefore = `${this.lines().join('\n')}\n`;
    this.#process = null;
    this.#url = null;
    if (exit?.code !== 0)
      throw new Error(`the control plane ended with ${exit?.code ?? exit?.signal}:\n${this.#outputBefore}`);
  }
}
