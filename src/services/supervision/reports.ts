/** What a replica tells of itself, and where it goes: its row, the journal of its pool, the log, the metrics. */
import { randomUUID } from 'node:crypto';
import type { BreakerState } from '../../core/breaker.js';
import type { Engine } from '../../core/errors.js';
import type { ReplicaHealth } from '../../core/health.js';
import type { Reason } from '../../core/pool.js';
import type { ReplicaState } from '../../core/replica.js';
import type { Database } from '../../store/database.js';
import { type ReplicaObserved, writeReplica } from '../../store/pools.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { Outbox } from '../outbox.js';
import type { PoolEvents } from '../poolEvents.js';
import type { Crashes, CrashFacts } from './crashes.js';

export interface StateChange {
  readonly from: ReplicaState;
  readonly to: ReplicaState;
  readonly message: string;
}

export type PreloadOutcome = 'passed' | 'failed' | 'refused';

/** All of it is told at once and written down in the order it was told, through the outbox; nothing throws, nobody waits. */
export interface ReplicaReports {
  /** @param observed everything that is known. @param offerChanged it takes work now, or takes none any more. */
  onChange(observed: ReplicaObserved, change: StateChange | null, offerChanged: boolean): void;
  onHealth(change: { readonly from: ReplicaHealth; readonly to: ReplicaHealth }): void;
  onBreaker(change: { readonly from: BreakerState; readonly to: BreakerState }): void;
  /** @param outcome `refused`: no process was started. */
  onPreloaded(outcome: PreloadOutcome, durationMs: number, reason: Reason | null): void;
  /** It serves beside others that run another version of their engine, as the configuration allows. */
  onVersionsMixed(reason: Reason): void;
  onReady(launchArgs: readonly string[] | null): void;
  onCrash(facts: CrashFacts): void;
  /** @param nth how many restarts it has had by now. */
  onRestart(restart: { readonly nth: number; readonly delayMs: number; readonly reason: Reason }): void;
  /** Its process group is gone, and others hold the ports it had. */
  onPortsHeld(ports: readonly number[]): void;
  /** @param ratio 0 … 1 */
  onKvUsage(engineVersion: string, ratio: number): void;
}

export interface ReportsDeps {
  readonly db: Database;
  readonly events: PoolEvents;
  readonly telemetry: Telemetry;
  readonly crashes: Crashes;
  /** A replica became ready, or stopped being so. */
  readonly onFleetChange: () => void;
  readonly outbox: Outbox;
}

export class Reports implements ReplicaReports {
  readonly #replica: { readonly id: string; readonly poolId: string; readonly engine: Engine };
  readonly #deps: ReportsDeps;
  #newest: ReplicaObserved | null = null;
  /** A write of the newest state is on its way; those between are of no use to anybody. */
  #rowWaits = false;

  constructor(replica: { id: string; poolId: string; engine: Engine }, deps: ReportsDeps) {
    this.#replica = replica;
    this.#deps = deps;
  }

  onChange(observed: ReplicaObserved, change: StateChange | null, offerChanged: boolean): void {
    this.#newest = observed;
    const onLost = () => {
      this.#rowWaits = false;
    };
    if (!this.#rowWaits) this.#deps.outbox.push(`state of ${this.#replica.id}`, () => this.#writeRow(), onLost);
    this.#rowWaits = true;
    if (change !== null) {
      const { message, ...states } = change;
      this.#deps.telemetry.replicaChanged(this.#replica, change);
      this.#event('replica_state', message, states);
    }
    if (change !== null || offerChanged) this.#deps.onFleetChange();
  }

  onHealth(change: { from: ReplicaHealth; to: ReplicaHealth }): void {
    this.#event('replica_health', `health is ${change.to}, was ${change.from}`, change);
  }

  onBreaker(change: { from: BreakerState; to: BreakerState }): void {
    this.#deps.telemetry.breakerChanged(this.#replica, change.to);
    this.#event('replica_breaker', `circuit breaker is ${change.to}, was ${change.from}`, change);
  }

  onPreloaded(outcome: PreloadOutcome, durationMs: number, reason: Reason | null): void {
    this.#deps.telemetry.preloaded(this.#replica, outcome, durationMs);
    const took = `after ${Math.round(durationMs)} ms`;
    const message = reason === null ? `preload passed ${took}` : `preload ${outcome} ${took}: ${reason.message}`;
    this.#event('replica_preload', message, {
      outcome,
      duration_ms: Math.round(durationMs),
      code: reason?.code ?? null,
    });
  }

  onVersionsMixed({ code, message }: Reason): void {
    const { id: replica_id, poolId: pool_id } = this.#replica;
    const human =
      'A replica serves beside others that run another version of their engine, as the configuration allows.';
    this.#deps.telemetry.log.warn({ pool_id, replica_id, code, detail: message, human }, 'engine versions mixed');
    this.#event('engine_versions_mixed', message, { code });
  }

  onReady(launchArgs: readonly string[] | null): void {
    this.#deps.crashes.ready(this.#replica.id, launchArgs);
  }

  onCrash(facts: CrashFacts): void {
    this.#deps.crashes.record(this.#replica, facts);
  }

  onRestart({ nth, delayMs, reason }: { nth: number; delayMs: number; reason: Reason }): void {
    this.#deps.telemetry.restarted(this.#replica);
    const detail = { nth, delay_ms: delayMs, code: reason.code };
    this.#event('replica_restart', `restart ${nth} in ${delayMs} ms: ${reason.message}`, detail);
  }

  onPortsHeld(ports: readonly number[]): void {
    this.#event('replica_ports_held', `the engine is gone and port ${ports.join(', ')} is still held`, { ports });
  }

  onKvUsage(engineVersion: string, ratio: number): void {
    this.#deps.telemetry.kvUsage(this.#replica, engineVersion, ratio);
  }

  async #writeRow(): Promise<void> {
    this.#rowWaits = false;
    if (this.#newest !== null) await writeReplica(this.#deps.db, this.#newest);
  }

  #event(kind: string, message: string, detail: Readonly<Record<string, unknown>>): void {
    const { poolId, id: replicaId } = this.#replica;
    const { outbox, events } = this.#deps;
    const id = randomUUID();
    outbox.push(`${kind} of ${replicaId}`, () => events.append({ id, poolId, replicaId, kind, message, detail }));
  }
}
