/**
 * The one owner of a replica: starts its engine, takes it through every gate, watches it, and starts it again when it
 * dies. Others ask (`stop`, `recycle`, `setModel`) and are told the outcome; nobody else touches the process.
 */
import { type BreakerState, breakerOf } from '../../core/breaker.js';
import { ENGINE_VERSION_MIXED, mixedVersions } from '../../core/engineVersion.js';
import { ewma } from '../../core/ewma.js';
import { healthOf, NO_SPEED, type ReplicaHealth, type Speed, speedAfter } from '../../core/health.js';
import type { Reason } from '../../core/pool.js';
import { nextReplicaState, type ReplicaEvent, type ReplicaState } from '../../core/replica.js';
import { afterExit, backoffMs, DEFAULT_RESTART_POLICY } from '../../core/restart.js';
import type { Workload } from '../../core/workload.js';
import type { EngineAdapter } from '../../engines/adapter.js';
import { Changes } from '../../runtime/changes.js';
import { delay, pollUntil, within } from '../../runtime/wait.js';
import type { ReplicaObserved } from '../../store/pools.js';
import type { Progress, ReadyReplica, Recycle, Sign } from '../fleet.js';
import { UNMENDABLE } from '../provisioning/prepare.js';
import {
  EngineLife,
  type LifeOwner,
  observedOf,
  type ReplicaDeps,
  type ReplicaFacts,
  reasonOf,
  SHORT_GRACE_MS,
} from './engineLife.js';
import type { Inherited } from './instance.js';
import type { MemoryPlan } from './memory.js';
import type { StateChange } from './reports.js';

const EWMA_WEIGHT = 0.2;
const LOOK_FOR_OTHERS_EVERY_MS = 250;
/** What comes next is an operator's decision. */
const GIVEN_UP: ReadonlySet<ReplicaState> = new Set(['QUARANTINED', 'FAILED']);

const STOPPED: Reason = { code: 'INTERRUPTED', message: 'it was stopped before its engine was started', fix: null };

const NOT_PRELOADED: Reason = {
  code: 'NOT_PRELOADED',
  message: 'its engine is started for the first task of its pool (preload: false)',
  fix: 'Submit a task, or resume the pool.',
};

/** What was asked of the owner since the run began; the run ends for the first that is not `keep`. */
type Ask = 'keep' | 'stop' | 'recycle';

export class Replica {
  readonly facts: ReplicaFacts;
  readonly #deps: ReplicaDeps;
  #modelRef: string;
  #state: ReplicaState = 'ABSENT';
  #ask: Ask = 'keep';
  #asked = new AbortController();
  /** Ends a backoff before its time. */
  #hurry = new AbortController();
  #life: Promise<void> | null = null;
  #engine: EngineLife | null = null;
  /** Taken by the first engine. */
  #inherited: Inherited | null;
  #engineVersion: string | null = null;
  #lastError: Reason | null = null;
  #failures = 0;
  /** Starts in a row that were refused: before there was a process, or for the version of the engine. */
  #refusals = 0;
  #restarts = 0;
  /** Ended for good, without anybody waiting. */
  #killed = false;
  /** Why it is being started anew, where that is its own fault. */
  #blamed: Reason | null = null;
  #speed: Speed = NO_SPEED;
  #health: ReplicaHealth = 'LOADING';
  #breaker: BreakerState = 'CLOSED';
  #backoffUntilMs: number | null = null;
  #heartbeatMs: number | null = null;
  #firstTokenMs: number | null = null;
  /** As its engines were last seen to take; null: none with this model has been tried. */
  #workloads: readonly Workload[] | null = null;
  /** Whether it took work when that was last told. */
  #offered = false;
  readonly #changes = new Changes();

  constructor(facts: ReplicaFacts, modelRef: string, deps: ReplicaDeps) {
    this.facts = facts;
    this.#modelRef = modelRef;
    this.#deps = deps;
    this.#inherited = deps.inherited;
  }

  get state(): ReplicaState {
    return this.#state;
  }

  get lastError(): Reason | null {
    return this.#lastError;
  }

  get heartbeatMs(): number | null {
    return this.#heartbeatMs;
  }

  get engineVersion(): string | null {
    return this.#engineVersion;
  }

  /** The version that the others of its set must have; null: no engine of it serves, or was let in to do so. */
  get heldVersion(): string | null {
    return this.#ask === 'keep' ? (this.#engine?.heldVersion ?? null) : null;
  }

  /** What it takes, or may take as long as no engine of it has been tried. */
  get workloads(): readonly Workload[] {
    return this.#engine?.workloads ?? this.#workloads ?? this.#deps.recipe.workloads;
  }

  /** VRAM its process was given on a device, bytes. */
  vramHeldOn(uuid: string): number {
    return this.#engine?.held.get(uuid) ?? 0;
  }

  /** Leaves its engine for later; one that an earlier start left running goes on. */
  rest(): void {
    if (this.#inherited !== null) return this.start();
    this.#lastError = NOT_PRELOADED;
    this.#changed(null);
  }

  get rests(): boolean {
    return this.#life === null && this.#lastError === NOT_PRELOADED;
  }

  start(): void {
    if (this.#killed) return;
    if (this.rests) this.#lastError = null;
    this.#life ??= this.#live();
    this.#changed(null);
  }

  /** Ends the engine and the owner's loop; resolves once the process group is gone. */
  async stop(): Promise<void> {
    this.#request('stop');
    await this.#life;
    // A replica that was given up has no life to end, but is not given up any more.
    this.#move('stop', 'stopped');
    this.#life = null;
    this.#ask = 'keep';
    this.#asked = new AbortController();
  }

  /** Ends the process without grace; the owner's loop is not asked and need not be. */
  async kill(): Promise<void> {
    this.#killed = true;
    this.#request('stop');
    await this.#engine?.instance?.own?.process.stop({ graceMs: 0 }).catch(() => {});
  }

  /**
   * Ends the engine's process and starts it anew; resolves when the old one is gone.
   * @param only the engine that is meant: another one, started since, is left alone.
   */
  async recycle({ reason, blame }: Recycle, only?: EngineAdapter): Promise<void> {
    const old = this.#engine?.instance ?? null;
    if (old === null || old.own === null || (only !== undefined && old.adapter !== only)) return;
    this.#lastError = reason;
    if (blame && this.#ask === 'keep') this.#blamed = reason;
    this.#request('recycle');
    await this.#changes.until(() => this.#engine?.instance !== old);
  }

  /** Serves another model from now on. @returns null when it is ready, else what went wrong (the caller decides). */
  async setModel(modelRef: string, options: { deadlineMs: number; signal: AbortSignal }): Promise<Reason | null> {
    await this.stop();
    if (options.signal.aborted || this.#killed) return STOPPED;
    this.#modelRef = modelRef;
    this.#failures = 0;
    this.#lastError = null;
    this.#speed = NO_SPEED;
    this.#firstTokenMs = null;
    this.#workloads = null;
    this.start();
    using deadline = within(options.deadlineMs, options.signal);
    await this.#changes.until(() => this.#state === 'READY' || this.#lastError !== null, deadline.signal);
    if (this.#state === 'READY') return null;
    return (
      this.#lastError ?? {
        code: 'START_TIMEOUT',
        message: `${this.facts.id} was not ready in time`,
        fix: 'Look at its log.',
      }
    );
  }

  /** An operator gives it another chance, now: where it was given up, and where it is backing off. */
  retry(): void {
    this.#deps.vram.forgive(this.facts.id);
    this.#hurry.abort();
    if (this.rests) return this.start();
    if (!GIVEN_UP.has(this.#state)) return;
    this.#failures = 0;
    this.#move('retry', 'resumed by an operator');
    this.#life = this.#live();
  }

  /** Takes no more tasks; what runs on it goes on. */
  drain(): void {
    this.#move('drain', 'takes no more tasks');
  }

  /** Takes tasks again, with the same process. */
  resumeDrained(): void {
    this.#move('resume', 'takes tasks again');
  }

  /** Asks for a sign of life now, and offers nothing before it has come. */
  doubt(sign: Sign): void {
    this.#engine?.watch?.doubt(sign);
  }

  ready(): ReadyReplica | null {
    const { instance = null, watch = null, run = null } = this.#engine ?? {};
    if (this.#state !== 'READY' || this.#ask !== 'keep') return null;
    if (instance === null || run === null || watch?.suspect !== false) return null;
    const { id, poolId, engine, slots } = this.facts;
    return {
      ...{ id, poolId, engine, slots, run, modelRef: this.#modelRef },
      engineVersion: this.#engineVersion ?? '',
      vramFreeBytes: Math.min(...this.#deps.devices().map(({ freeBytes }) => freeBytes), Number.MAX_SAFE_INTEGER),
      adapter: instance.adapter,
      modelFile: modelFileOf(this.#deps.recipe.memory(this.#modelRef)),
    };
  }

  progressed({ firstTokenMs, tokensPerSecond }: Progress): void {
    this.#heartbeatMs = this.#deps.clock.nowMs();
    this.#engine?.watch?.progressed();
    this.#firstTokenMs = ewma(this.#firstTokenMs, firstTokenMs, EWMA_WEIGHT);
    this.#speed = speedAfter(this.#speed, tokensPerSecond);
  }

  #request(ask: Ask): void {
    if (this.#ask === 'stop') return;
    this.#ask = ask;
    this.#asked.abort();
  }

  async #live(): Promise<void> {
    while (this.#ask !== 'stop' && !this.#killed) {
      this.#ask = 'keep';
      this.#blamed = null;
      this.#asked = new AbortController();
      const engine = this.#nextEngine();
      const failure = await this.#run(engine, this.#asked.signal);
      if (GIVEN_UP.has(this.#state)) return;
      if (failure !== null && !(await this.#backOff(failure, engine))) return;
    }
  }

  #nextEngine(): EngineLife {
    this.#workloads = this.#engine?.workloads ?? this.#workloads;
    const owner: LifeOwner = {
      ...{ facts: this.facts, deps: this.#deps, modelRef: this.#modelRef },
      move: (event, message) => this.#move(event, message),
      changed: () => this.#changed(null),
      onReady: (engine) => this.#becomeReady(engine),
      onBeat: () => this.#beat(),
    };
    this.#engine = new EngineLife(owner, this.#inherited);
    this.#inherited = null;
    return this.#engine;
  }

  /** One engine from start to end. @returns why it ended, or null when it was asked to. */
  async #run(engine: EngineLife, signal: AbortSignal): Promise<Reason | null> {
    this.#move('provision', `preparing to start ${this.#modelRef}`);
    const failure = await this.#failureOf(engine, signal);
    if (failure !== null && engine.readyForMs === null && !this.#wasAsked()) {
      const outcome = this.#state === 'PROVISIONING' ? 'refused' : 'failed';
      this.#deps.reports.onPreloaded(outcome, engine.ageMs, failure);
    }
    try {
      await this.#tearDown(engine);
    } catch (error) {
      return this.#survived(error);
    }
    if (failure === null || this.#wasAsked()) return null;
    return this.#state === 'PROVISIONING' && UNMENDABLE.has(failure.code) ? this.#refused(failure) : failure;
  }

  async #failureOf(engine: EngineLife, signal: AbortSignal): Promise<Reason | null> {
    try {
      const obstacle = await engine.provision(signal);
      if (obstacle !== null || signal.aborted) return obstacle;
      this.#move('launch', `starting ${this.#modelRef}`);
      const ended = await engine.live(signal);
      const failure = this.#blamed === null ? ended : { reason: this.#blamed, exit: null };
      if (failure === null || this.#wasAsked()) return null;
      const crash = await engine.crash(failure);
      if (crash !== null) this.#deps.reports.onCrash(crash);
      return failure.reason;
    } catch (error) {
      return reasonOf(error);
    }
  }

  /** Somebody wanted the end of this run; nothing failed. */
  #wasAsked(): boolean {
    return this.#ask === 'stop' || (this.#ask === 'recycle' && this.#blamed === null);
  }

  #refused(failure: Reason): Reason {
    this.#lastError = failure;
    this.#move('refuse', failure.message);
    return failure;
  }

  /** A process that nothing ends: whatever is started beside it would fight it for its GPU. */
  #survived(error: unknown): Reason {
    const message = error instanceof Error ? error.message : String(error);
    const fix = 'Look at the driver (dmesg); the host may have to be restarted. Then resume the pool.';
    this.#lastError = { code: 'ENGINE_SURVIVES_SIGKILL', message, fix };
    this.#move('give_up', message);
    return this.#lastError;
  }

  #becomeReady({ instance, props, ageMs }: EngineLife): void {
    const { clock, reports } = this.#deps;
    this.#engineVersion = props?.version ?? null;
    this.#heartbeatMs = clock.nowMs();
    this.#lastError = null;
    this.#refusals = 0;
    const taken = instance?.own?.adopted === true ? ', taken over from an earlier start' : '';
    this.#move('passed', `ready with ${this.#modelRef}${taken}`);
    reports.onReady(instance?.launchArgs ?? null);
    reports.onPreloaded('passed', ageMs, null);
  }

  /** The engine gave a sign of life, or owes one. */
  #beat(): void {
    if (this.#engine?.watch?.suspect === false) {
      this.#heartbeatMs = this.#deps.clock.nowMs();
      this.#engineVersion = this.#engine.props?.version ?? this.#engineVersion;
      if ((this.#engine.readyForMs ?? 0) >= DEFAULT_RESTART_POLICY.stableMs) this.#failures = 0;
    }
    this.#changed(null);
  }

  async #tearDown(engine: EngineLife): Promise<void> {
    const asked = this.#asked.signal.aborted;
    if (this.#wasAsked() || engine.isRunning) this.#move('stop', 'stopping the engine');
    // One that is started anew was caught going on, or hanging: it has nothing left to finish.
    const graceMs = this.#ask === 'recycle' ? SHORT_GRACE_MS : Number.POSITIVE_INFINITY;
    await engine.end(asked ? graceMs : 0);
    // Looked at again: it may have been asked to stop while it was ending by itself.
    if (!this.#wasAsked()) return;
    this.#move('stop', 'stopping the engine');
    this.#move('exited', 'the engine is gone');
  }

  /** @returns false when the replica is given up. */
  async #backOff(failure: Reason, engine: EngineLife): Promise<boolean> {
    this.#lastError = failure;
    // The engine is sound, and the others may go any time: it is not given up.
    const isRefused = this.#state === 'PROVISIONING' || failure.code === ENGINE_VERSION_MIXED;
    const delayMs = isRefused ? this.#delayOfRefused() : this.#delayOfFailed(engine);
    if (delayMs === null) {
      this.#move('give_up', `given up after ${this.#failures} failures in a row: ${failure.message}`);
      return false;
    }
    const { clock, reports } = this.#deps;
    this.#backoffUntilMs = clock.nowMs() + delayMs;
    if (this.#state !== 'PROVISIONING') {
      this.#restarts += 1;
      reports.onRestart({ nth: this.#restarts, delayMs, reason: failure });
    }
    const event = this.#state === 'STOPPING' ? 'failed' : 'exited';
    this.#move(event, `${failure.message} Next start in ${delayMs} ms.`);
    // What was asked before is done: from here on, only what comes next cuts the wait short.
    if (this.#ask === 'recycle') {
      this.#ask = 'keep';
      this.#asked = new AbortController();
    }
    this.#hurry = new AbortController();
    using over = within(null, this.#asked.signal, this.#hurry.signal);
    await this.#untilWorthIt(failure, engine, delayMs, over.signal);
    this.#backoffUntilMs = null;
    this.#move(this.#ask === 'stop' ? 'stop' : 'retry', 'backoff is over');
    return true;
  }

  /** What was refused for its version need not wait any longer once the others have gone. */
  async #untilWorthIt(failure: Reason, engine: EngineLife, delayMs: number, signal: AbortSignal): Promise<void> {
    const version = engine.props?.version;
    if (failure.code !== ENGINE_VERSION_MIXED || version === undefined) return delay(delayMs, signal);
    const others = () => this.#deps.versions.others(this.#modelRef);
    const fits = async () => mixedVersions(version, others()) === null;
    await pollUntil(fits, { everyMs: LOOK_FOR_OTHERS_EVERY_MS, deadlineMs: delayMs, signal });
  }

  #delayOfRefused(): number {
    this.#refusals += 1;
    return backoffMs(DEFAULT_RESTART_POLICY, this.#refusals, this.#deps.chance());
  }

  /** null: it failed too often. */
  #delayOfFailed({ readyForMs }: EngineLife): number | null {
    const run = { failuresBefore: this.#failures, readyForMs: readyForMs ?? 0 };
    const decision = afterExit(DEFAULT_RESTART_POLICY, run, this.#deps.chance());
    this.#failures = decision.failures;
    this.#refusals = 0;
    return decision.next === 'restart' ? decision.delayMs : null;
  }

  #move(event: ReplicaEvent, message: string): void {
    const from = this.#state;
    const to = nextReplicaState(from, event);
    if (to === null || to === from) return;
    this.#state = to;
    this.#changed({ from, to, message });
  }

  #changed(change: StateChange | null): void {
    const { reports } = this.#deps;
    const wasOffered = this.#offered;
    const { health, breaker } = this.#judged();
    const before = { health: this.#health, breaker: this.#breaker };
    this.#health = health;
    this.#breaker = breaker;
    this.#offered = this.ready() !== null;
    reports.onChange(this.#observed(), change, this.#offered !== wasOffered);
    if (health !== before.health) reports.onHealth({ from: before.health, to: health });
    if (breaker !== before.breaker) reports.onBreaker({ from: before.breaker, to: breaker });
    this.#changes.tell();
  }

  #judged(): { readonly health: ReplicaHealth; readonly breaker: BreakerState } {
    const { idleTimeoutMs } = this.#deps;
    const watch = this.#engine?.watch ?? null;
    const vitals = watch?.vitals ?? { silentForMs: null, canaryMs: null, idleTimeoutMs };
    const state = this.#state;
    return {
      health: healthOf(state, { ...vitals, speed: this.#speed }),
      breaker: breakerOf({ state, failures: this.#failures, suspect: watch?.suspect === true }),
    };
  }

  #observed(): ReplicaObserved {
    const { id, poolId, ordinal, slots, deviceMask, gpuUuids, nodeId } = this.facts;
    return {
      ...{ id, poolId, ordinal, slotsTotal: slots, deviceMask, gpuUuids, nodeId },
      ...observedOf(this.#engine, this.#inherited),
      ...{ state: this.#state, health: this.#health, breaker: this.#breaker, modelRef: this.#modelRef },
      engineVersion: this.#engineVersion,
      restartCount: this.#restarts,
      backoffUntilMs: this.#backoffUntilMs,
      lastError: this.#lastError,
      lastHeartbeatMs: this.#heartbeatMs,
      tokensPerSecond: this.#speed.recent,
      firstTokenMs: this.#firstTokenMs,
      workloads: this.workloads,
    };
  }
}

function modelFileOf(plan: MemoryPlan | null): string | null {
  return plan?.kind === 'gguf' ? plan.path : null;
}
