/** Ends tasks that were to end with their readers, once the last of these, on whichever node, has been gone for the grace. */
import { Reconciler } from '../../runtime/reconciler.js';
import { delay } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { forgetReaders, leftTasks } from '../../store/readers.js';
import type { Cancellation } from '../cancellation.js';
import type { Membership } from '../cluster/membership.js';
import type { ReaderPresence } from './presence.js';

const LOOK_EVERY_MS = 250;
const FORGET_EVERY_MS = 5_000;
const STOP_WAIT_MS = 2_000;

export interface DisconnectsDeps {
  readonly db: Database;
  readonly cancellation: Cancellation;
  readonly membership: Membership;
  readonly presence: ReaderPresence;
  readonly onError: (name: string, error: unknown) => void;
}

export class Disconnects {
  readonly #deps: DisconnectsDeps;
  readonly #loops: readonly Reconciler[];
  /** Being ended; as many as one look finds. */
  readonly #ending = new Map<string, Promise<void>>();

  constructor(deps: DisconnectsDeps) {
    this.#deps = deps;
    const { onError, db } = deps;
    this.#loops = [
      new Reconciler({ name: 'disconnects', intervalMs: LOOK_EVERY_MS, run: () => this.#look(), onError }),
      new Reconciler({
        name: 'task readers of the past',
        intervalMs: FORGET_EVERY_MS,
        run: () => forgetReaders(db),
        onError,
      }),
    ];
  }

  start(): void {
    for (const loop of this.#loops) loop.start();
  }

  /** A cancel that takes longer is durable, and is gone on with by its holder. */
  async stop(): Promise<void> {
    await Promise.all(this.#loops.map((loop) => loop.stop()));
    const over = new AbortController();
    await Promise.race([Promise.all(this.#ending.values()), delay(STOP_WAIT_MS, over.signal)]);
    over.abort();
  }

  async #look(): Promise<void> {
    const { db, membership, presence } = this.#deps;
    for (const id of await leftTasks(db, membership.knowsOthers)) {
      // Came back while the database was away, which has not heard of it yet.
      if (presence.isRead(id)) continue;
      if (!this.#ending.has(id)) this.#ending.set(id, this.#end(id));
    }
  }

  /** Every node that sees it does the same: a cancel is idempotent, and the holder may be any of them. */
  async #end(taskId: string): Promise<void> {
    try {
      await this.#deps.cancellation.cancel(taskId, 'disconnect');
    } catch (error) {
      this.#deps.onError('disconnect', error);
    } finally {
      this.#ending.delete(taskId);
    }
  }
}
