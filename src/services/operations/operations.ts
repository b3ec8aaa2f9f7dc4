/** Begins operations, one at a time per pool, carries them out in the background, and lets them be followed. */
import { randomUUID } from 'node:crypto';
import { conflict, notFound, type Refusal, RefusalError } from '../../core/errors.js';
import { isUuid } from '../../core/ids.js';
import { type OperationKind, planned } from '../../core/operation.js';
import type { Clock } from '../../runtime/clock.js';
import { delay } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import {
  closeLeftBehind,
  insertOperation,
  type NewOperation,
  type OperationRecord,
  operationUnderWay,
  readOperation,
} from '../../store/operations.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { PoolEvents } from '../poolEvents.js';
import { OperationFeed, OperationReader } from './feed.js';
import { OperationRun, type Outcome, type RunFacts, reasonOf } from './run.js';

/** Of the insert of one operation, together with what stood in its way. */
const INSERT_ATTEMPTS = 3;
const INSERT_AGAIN_MS = 250;

export interface OperationsDeps {
  readonly db: Database;
  readonly clock: Clock;
  /** Of this node, which carries them out. */
  readonly nodeId: string;
  readonly events: PoolEvents;
  readonly telemetry: Telemetry;
}

export type OperationWork = (run: OperationRun) => Promise<Outcome>;

export class Operations {
  readonly #deps: OperationsDeps;
  readonly #feed = new OperationFeed();
  readonly #running = new Set<Promise<void>>();
  /** By pool: the one that is at work on it. */
  readonly #busy = new Map<string, string>();
  /** Ids of those whose rows are ours to end. */
  readonly #ours = new Set<string>();
  readonly #stop = new AbortController();

  constructor(deps: OperationsDeps) {
    this.#deps = deps;
  }

  /** What is under way ends as interrupted, as soon as its present step lets go. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
  }

  /** @returns its id; it goes on by itself. @throws RefusalError conflict, naming the operation that is under way. */
  async begin(
    poolId: string,
    kind: OperationKind,
    input: Readonly<Record<string, unknown>>,
    work: OperationWork,
  ): Promise<string> {
    const { clock, nodeId } = this.#deps;
    // Its row may be closed already, by a node that took this one for lost: until it finds that, it acts on the pool.
    const atWork = this.#busy.get(poolId);
    if (atWork !== undefined) throw new RefusalError(underWay(poolId, atWork));
    const id = randomUUID();
    const course = planned(kind);
    const row = { id, poolId, kind, steps: course.steps, input, createdAtMs: clock.nowMs(), nodeId };
    this.#busy.set(poolId, nameOf({ kind, id }));
    try {
      await this.#insert(row);
    } catch (error) {
      this.#busy.delete(poolId);
      throw error;
    }
    const deps = { ...this.#deps, feed: this.#feed, signal: this.#stop.signal };
    const run = this.#carryOut(new OperationRun({ id, poolId, kind }, course, deps), work)
      .catch((error: unknown) => this.#deps.telemetry.backgroundFailure(kind.toLowerCase(), error))
      .finally(() => {
        this.#running.delete(run);
        if (this.#busy.get(poolId) === nameOf({ kind, id })) this.#busy.delete(poolId);
        this.#ours.delete(id);
      });
    this.#running.add(run);
    return id;
  }

  /**
   * An answer that was lost on the way is asked for again: the row, found with its id, is the one that was written. What no
   * try could learn is left behind, and closed by whoever meets it.
   * @throws RefusalError conflict, naming the operation that is under way; unavailable.
   */
  async #insert(row: NewOperation): Promise<void> {
    const { id, poolId, nodeId } = row;
    this.#ours.add(id);
    try {
      for (let attempt = 1; ; attempt += 1) {
        if (await this.#tryInsert(row, attempt)) return;
        const first = await operationUnderWay(this.#deps.db, poolId);
        if (first?.id === id) return;
        const isLeftBehind = first !== null && first.nodeId === nodeId && !this.#ours.has(first.id);
        const isInTheWay = first !== null && !isLeftBehind;
        if (isInTheWay || attempt >= INSERT_ATTEMPTS) throw new RefusalError(underWay(poolId, nameOf(first)));
        if (isLeftBehind) await closeLeftBehind(this.#deps.db, first.id);
      }
    } catch (error) {
      this.#ours.delete(id);
      throw error;
    }
  }

  async #tryInsert(row: NewOperation, attempt: number): Promise<boolean> {
    try {
      return await insertOperation(this.#deps.db, row);
    } catch (error) {
      if (attempt >= INSERT_ATTEMPTS || this.#stop.signal.aborted) throw error;
      await delay(INSERT_AGAIN_MS, this.#stop.signal);
      return false;
    }
  }

  /** @throws RefusalError not_found */
  async read(id: string): Promise<OperationRecord> {
    const record = isUuid(id) ? await readOperation(this.#deps.db, id) : null;
    if (record === null) throw new RefusalError(notFound('id', `operation ${id} not found`));
    return record;
  }

  /** The present state, then every change, to the terminal one. @throws RefusalError not_found */
  async open(id: string): Promise<OperationReader> {
    await this.read(id);
    return new OperationReader(this.#deps.db, id.toLowerCase(), this.#feed);
  }

  async #carryOut(run: OperationRun, work: OperationWork): Promise<void> {
    const label = run.facts.kind.toLowerCase();
    await this.#record(run.facts, `${label}_started`, `${label} started`, {});
    let outcome: Outcome;
    try {
      await run.begin();
      outcome = await work(run);
    } catch (error) {
      const reason = reasonOf(error);
      if (reason.code === 'INTERNAL') this.#deps.telemetry.backgroundFailure(label, error);
      outcome = { end: 'fail', outcome: reason.code === 'INTERRUPTED' ? 'interrupted' : 'failed', error: reason };
    }
    // Whoever reads its end may begin the next one; until that is written, the row stands in the way.
    this.#busy.delete(run.facts.poolId);
    await run.end(outcome);
    const facts = { end: outcome.end, ...outcome.facts, ...(run.isClosed && { closed_elsewhere: true }) };
    await this.#record(run.facts, `${label}_ended`, `${label}: ${outcome.outcome}`, facts);
  }

  #record({ id, poolId }: RunFacts, kind: string, message: string, facts: Readonly<Record<string, unknown>>) {
    return this.#deps.events.record({ poolId, replicaId: null, kind, message, detail: { operation: id, ...facts } });
  }
}

function nameOf(operation: { readonly kind: OperationKind; readonly id: string } | null): string {
  return operation === null ? 'another operation' : `${operation.kind.toLowerCase()} ${operation.id}`;
}

function underWay(poolId: string, name: string): Refusal {
  return conflict('pool', `${name} is under way on pool ${poolId}; wait for it to end`);
}
