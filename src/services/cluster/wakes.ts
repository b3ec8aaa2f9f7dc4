/**
 * Nodes tell each other that there is something to look for, so that none waits for its next look: tasks in a queue, a run
 * that is to stop, logs that grew. What there is, is in the rows; a wake that is lost costs the time to the next look.
 */
import { Reconciler } from '../../runtime/reconciler.js';
import { delay } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { listen, notify } from '../../store/notices.js';

const LOOK_FOR_OTHERS_MS = 1_000;
/** At most so often, whatever happens: PostgreSQL commits notices one at a time. */
const TELL_EVERY_MS = 100;

const WAKES = ['queue', 'stop', 'log'] as const;
export type Wake = (typeof WAKES)[number];

export interface WakesDeps {
  readonly db: Database;
  readonly nodeId: string;
  /** Whether anybody else is there to be told. */
  readonly hasOthers: () => boolean;
  readonly on: Readonly<Record<Wake, () => void>>;
  readonly onError: (name: string, error: unknown) => void;
}

export class Wakes {
  readonly #deps: WakesDeps;
  readonly #ear: Reconciler;
  readonly #mouth: Reconciler;
  readonly #toTell = new Set<Wake>();

  constructor(deps: WakesDeps) {
    this.#deps = deps;
    const { onError } = deps;
    const intervalMs = LOOK_FOR_OTHERS_MS;
    this.#ear = new Reconciler({ name: 'wakes', intervalMs, run: (signal) => this.#listen(signal), onError });
    this.#mouth = new Reconciler({ name: 'wakes of others', intervalMs, run: (signal) => this.#tell(signal), onError });
  }

  start(): void {
    this.#ear.start();
    this.#mouth.start();
  }

  async stop(): Promise<void> {
    await Promise.all([this.#ear.stop(), this.#mouth.stop()]);
  }

  tell(what: Wake): void {
    if (!this.#deps.hasOthers()) return;
    this.#toTell.add(what);
    this.#mouth.wake();
  }

  async #tell(signal: AbortSignal): Promise<void> {
    const told = [...this.#toTell];
    if (told.length === 0) return;
    this.#toTell.clear();
    await notify(
      this.#deps.db,
      told.map((what) => `${what} ${this.#deps.nodeId}`),
    );
    await delay(TELL_EVERY_MS, signal);
  }

  async #listen(signal: AbortSignal): Promise<void> {
    const { db, on, hasOthers } = this.#deps;
    if (!hasOthers()) return;
    const onReady = () => {
      for (const what of WAKES) on[what]();
    };
    await listen(db, { onReady, onNotice: (payload) => this.#hear(payload) }, signal);
  }

  #hear(payload: string): void {
    const [what, from] = payload.split(' ');
    if (from === this.#deps.nodeId) return;
    const wake = WAKES.find((known) => known === what);
    if (wake !== undefined) this.#deps.on[wake]();
  }
}
