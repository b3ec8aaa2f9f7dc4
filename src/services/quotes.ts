/**
 * What the pools have been like lately, and what is promised by it: how long tasks hold a slot, how fast engines decode,
 * and how each quote did against the wait that came.
 */
import {
  MIN_SAMPLES,
  mixServices,
  observeService,
  quoteStart,
  type ServiceTime,
  type Share,
  UNKNOWN_SERVICE,
} from '../core/prediction.js';
import type { StartBasis } from '../core/queue.js';
import type { Priority } from '../core/task.js';
import { Reconciler } from '../runtime/reconciler.js';
import type { Database } from '../store/database.js';
import { gradeQuotes, type LaneCalibration, type Quoted, quoteCalibration } from '../store/quotes.js';
import type { ClaimedTask } from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import type { Progress } from './fleet.js';

const WRITE_EVERY_MS = 250;
const MAX_PER_WRITE = 500;
/** Quotes not graded yet while the database is slow or away; the oldest of more are never graded. */
const MAX_WAITING = 10_000;
/** Ages kept with a task; the slots of a pool beyond them are taken to be spread evenly. */
const MAX_AGES = 64;

export type Calibration = LaneCalibration;

export interface QuotesDeps {
  readonly db: Database;
  readonly telemetry: Telemetry;
  /** Time a task holds a slot where too little has been measured, ms. */
  readonly assumedServiceMs: (poolId: string) => number;
}

/** What of a pool a prediction rests on, at one moment. */
export interface PoolLoad {
  readonly slotsTotal: number;
  readonly slotsReady: number;
  readonly slotsFree: number;
  readonly running: readonly { readonly priority: Priority; readonly heldMs: number }[];
  /** Tasks that wait ahead of one of the priority in question, of each priority. */
  readonly waiting: readonly { readonly priority: Priority; readonly depth: number }[];
}

interface Speed {
  readonly firstTokenMs: ServiceTime;
  readonly msPerToken: ServiceTime;
}

export class Quotes {
  readonly #deps: QuotesDeps;
  readonly #services = new Map<string, ServiceTime>();
  /** By replica; there are as many as the configuration names. */
  readonly #speeds = new Map<string, Speed>();
  readonly #ungraded = new Map<string, Quoted & { readonly task: ClaimedTask }>();
  readonly #writer: Reconciler;

  constructor(deps: QuotesDeps) {
    this.#deps = deps;
    this.#writer = new Reconciler({
      name: 'quote grades',
      intervalMs: WRITE_EVERY_MS,
      run: () => this.#write(),
      onError: (name, error) => deps.telemetry.backgroundFailure(name, error),
    });
  }

  start(): void {
    this.#writer.start();
  }

  async stop(): Promise<void> {
    await this.#writer.stop();
    await this.#write().catch((error: unknown) => this.#deps.telemetry.backgroundFailure('quote grades', error));
  }

  /** A task gave its slot back. */
  served(poolId: string, priority: Priority, heldMs: number): void {
    this.#services.set(laneKey(poolId, priority), observeService(this.#service(poolId, priority), heldMs));
  }

  /** An engine showed how fast it is. */
  progressed(replicaId: string, { firstTokenMs, tokensPerSecond }: Progress): void {
    const known = this.#speeds.get(replicaId) ?? { firstTokenMs: UNKNOWN_SERVICE, msPerToken: UNKNOWN_SERVICE };
    this.#speeds.set(replicaId, {
      firstTokenMs: firstTokenMs === null ? known.firstTokenMs : observeService(known.firstTokenMs, firstTokenMs),
      msPerToken:
        tokensPerSecond === null ? known.msPerToken : observeService(known.msPerToken, 1000 / tokensPerSecond),
    });
  }

  /** null: it has not run a task to its end since the program started. */
  speed(replicaId: string): { firstTokenMs: number; tokensPerSecond: number } | null {
    const known = this.#speeds.get(replicaId);
    if (known === undefined || known.msPerToken.samples === 0) return null;
    return { firstTokenMs: known.firstTokenMs.meanMs, tokensPerSecond: 1000 / known.msPerToken.meanMs };
  }

  /** From first to last token of so many, on the slowest of these replicas, ms; null: not known of all. */
  runMs(replicaIds: readonly string[], tokens: number): number | null {
    const speeds = replicaIds.map((id) => this.speed(id));
    let slowestMs: number | null = null;
    for (const speed of speeds) {
      if (speed === null) return null;
      slowestMs = Math.max(slowestMs ?? 0, speed.firstTokenMs + (tokens * 1000) / speed.tokensPerSecond);
    }
    return slowestMs;
  }

  /** What a quote for a task of that priority rests on: the times of the work that is ahead of it. */
  basis(poolId: string, priority: Priority, load: PoolLoad): StartBasis {
    const service = this.#ahead(poolId, priority, load);
    const isThin = service.samples < MIN_SAMPLES;
    return {
      slotsTotal: load.slotsReady > 0 ? load.slotsReady : load.slotsTotal,
      slotsFree: load.slotsFree,
      serviceMs: isThin ? this.#deps.assumedServiceMs(poolId) : Math.round(service.meanMs),
      deviationMs: isThin ? 0 : Math.round(Math.sqrt(service.varianceMs2)),
      samples: service.samples,
      slotsReady: load.slotsReady,
      heldMs: load.running.slice(0, MAX_AGES).map(({ heldMs }) => Math.round(heldMs)),
    };
  }

  #ahead(poolId: string, priority: Priority, load: PoolLoad): ServiceTime {
    const tasks = new Map<Priority, number>();
    const add = (of: Priority, count: number) => tasks.set(of, (tasks.get(of) ?? 0) + count);
    for (const running of load.running) add(running.priority, 1);
    for (const lane of load.waiting) add(lane.priority, lane.depth);
    const shares: Share[] = [...tasks]
      .filter(([, count]) => count > 0)
      .map(([of, count]) => ({ tasks: count, service: this.#service(poolId, of) }));
    return shares.length === 0 ? this.#service(poolId, priority) : mixServices(shares);
  }

  #service(poolId: string, priority: Priority): ServiceTime {
    return this.#services.get(laneKey(poolId, priority)) ?? UNKNOWN_SERVICE;
  }

  /** A task got its first slot: its quote, where it was given one, will be graded. */
  started(task: ClaimedTask): void {
    if (task.attempts !== 1) return;
    const { quote } = quoteStart(task.queuePosition, task.startBasis);
    if (quote === null) return this.#deps.telemetry.quoteWithheld(task);
    const [oldest] = this.#ungraded.keys();
    if (this.#ungraded.size >= MAX_WAITING && oldest !== undefined) this.#ungraded.delete(oldest);
    this.#ungraded.set(task.id, { taskId: task.id, quote, task });
  }

  async #write(): Promise<void> {
    while (this.#ungraded.size > 0) {
      const batch = [...this.#ungraded.values()].slice(0, MAX_PER_WRITE);
      const grades = await gradeQuotes(this.#deps.db, batch);
      for (const { taskId, actualMs } of grades) {
        const known = this.#ungraded.get(taskId);
        if (known !== undefined) this.#deps.telemetry.quoteGraded(known.task, known.quote, actualMs);
      }
      for (const { taskId } of batch) this.#ungraded.delete(taskId);
    }
  }

  calibration(): Promise<Calibration[]> {
    return quoteCalibration(this.#deps.db);
  }
}

function laneKey(poolId: string, priority: Priority): string {
  return `${priority} ${poolId}`;
}
