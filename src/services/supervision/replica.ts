/**
 * The one owner of a replica: starts its engine, takes it through every gate, watches it, and starts it again when it
 * dies. Others ask (`stop`, `recycle`, `setModel`) and are told the outcome; nobody else touches the process.
 */
import type { Engine } from '../../core/errors.js';
import type { Reason } from '../../core/pool.js';
import { nextReplicaState, type ReplicaEvent, type ReplicaState } from '../../core/replica.js';
import { afterExit, DEFAULT_RESTART_POLICY } from '../../core/restart.js';
import type { EngineAdapter, EngineHealth, EngineProps } from '../../engines/adapter.js';
import { EngineError } from '../../engines/failure.js';
import { reapOrphan } from '../../host/process.js';
import { StartupError } from '../../host/startupError.js';
import type { Clock } from '../../runtime/clock.js';
import { delay, within } from '../../runtime/wait.js';
import type { ReplicaObserved } from '../../store/pools.js';
import type { EngineRun, ReadyReplica } from '../fleet.js';
import { cpuGate, decodeGate, propsGate, readyGate } from './gates.js';
import { type Inherited, Instance, type InstanceFacts } from './instance.js';
import { type Device, firstMisfit, firstUnusable, needOf } from './memory.js';
import type { Recipe } from './recipe.js';

export const SELF_TEST_DEADLINE_MS = 30_000;
const HEARTBEAT_EVERY_MS = 2_000;
const HEARTBEAT_DEADLINE_MS = 5_000;
/** So many heartbeats in a row without an answer, and the engine is started anew. */
const MISSED_HEARTBEATS = 3;
const RECYCLE_GRACE_MS = 1_000;
/** How much later than its sockets the end of a process may be told. */
const EXIT_TOLD_MS = 1_500;

export interface ReplicaFacts extends InstanceFacts {
  readonly poolId: string;
  readonly ordinal: number;
  readonly engine: Engine;
  readonly slots: number;
  readonly deviceMask: string;
}

export interface ReplicaDeps {
  readonly clock: Clock;
  readonly recipe: Recipe;
  readonly chance: () => number;
  /** The replica's devices, with the memory that no engine of ours holds. */
  readonly devices: () => readonly Device[];
  /** Told after every change, with everything that is known; writes it down and wakes who waits. */
  readonly onChange: (
    observed: ReplicaObserved,
    change: { from: ReplicaState; to: ReplicaState; message: string } | null,
  ) => void;
  readonly onUnexpectedExit: () => void;
  /** What an earlier start left running for this replica. */
  readonly inherited: Inherited | null;
}

/** What was asked of the owner since the run began; the run ends for the first that is not `keep`. */
type Ask = 'keep' | 'stop' | 'recycle';

export class Replica {
  readonly facts: ReplicaFacts;
  readonly #deps: ReplicaDeps;
  #modelRef: string;
  #state: ReplicaState = 'ABSENT';
  #ask: Ask = 'keep';
  #asked = new AbortController();
  #life: Promise<void> | null = null;
  #instance: Instance | null = null;
  #inherited: Inherited | null;
  #held: ReadonlyMap<string, number> = new Map();
  #engineVersion: string | null = null;
  #props: EngineProps | null = null;
  #lastError: Reason | null = null;
  #failures = 0;
  #restarts = 0;
  #backoffUntilMs: number | null = null;
  #heartbeatMs: number | null = null;
  #readySinceMs: number | null = null;
  #tokensPerSecond: number | null = null;
  #firstTokenMs: number | null = null;
  /** A connection was lost since the last heartbeat; the death of a process is told later than its sockets close. */
  #doubted = false;
  #look = new AbortController();
  #listeners = new Set<() => void>();

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

  /** VRAM its process was given on a device, bytes. */
  vramHeldOn(uuid: string): number {
    return this.#held.get(uuid) ?? 0;
  }

  start(): void {
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
    this.#request('stop');
    await this.#instance?.own?.process.stop({ graceMs: 0 }).catch(() => {});
  }

  /**
   * Ends the engine's process and starts it anew at once; resolves when the old one is gone.
   * @param only the engine that is meant: another one, started since, is left alone.
   */
  async recycle(cause: string, only?: EngineAdapter): Promise<void> {
    const old = this.#instance;
    if (old === null || old.own === null || (only !== undefined && old.adapter !== only)) return;
    this.#lastError = { code: 'RECYCLED', message: cause, fix: null };
    this.#request('recycle');
    await this.#until(() => this.#instance !== old);
  }

  /** Serves another model from now on. @returns null when it is ready, else what went wrong (the caller decides). */
  async setModel(modelRef: string, options: { deadlineMs: number; signal: AbortSignal }): Promise<Reason | null> {
    await this.stop();
    this.#modelRef = modelRef;
    this.#failures = 0;
    this.#lastError = null;
    this.start();
    using deadline = within(options.deadlineMs, options.signal);
    await this.#until(() => this.#state === 'READY' || this.#lastError !== null, deadline.signal);
    if (this.#state === 'READY') return null;
    return (
      this.#lastError ?? {
        code: 'START_TIMEOUT',
        message: `${this.facts.id} was not ready in time`,
        fix: 'Look at its log.',
      }
    );
  }

  /** An operator gives a quarantined replica another chance. */
  retry(): void {
    if (this.#state !== 'QUARANTINED') return;
    this.#failures = 0;
    this.#move('retry', 'resumed by an operator');
    this.#life = this.#live();
  }

  /** Asks for a sign of life now, and offers nothing before it has come. */
  doubt(): void {
    if (this.#doubted) return;
    this.#doubted = true;
    this.#look.abort();
  }

  ready(): ReadyReplica | null {
    const instance = this.#instance;
    if (this.#state !== 'READY' || instance === null || this.#ask !== 'keep' || this.#doubted) return null;
    const { id, poolId, engine, slots } = this.facts;
    return {
      id,
      poolId,
      engine,
      slots,
      engineVersion: this.#engineVersion ?? '',
      run: this.#engineRun(instance),
      vramFreeBytes: Math.min(...this.#deps.devices().map(({ freeBytes }) => freeBytes), Number.MAX_SAFE_INTEGER),
      adapter: instance.adapter,
    };
  }

  #engineRun({ launchArgs }: Instance): EngineRun {
    return {
      engineVersion: this.#engineVersion ?? '',
      modelId: this.#props?.modelId ?? null,
      modelDigest: this.#props?.modelDigest ?? null,
      launchArgs,
      gpuUuids: this.facts.gpuUuids,
      determinism: this.#deps.recipe.determinism,
    };
  }

  progressed(facts: { firstTokenMs: number | null; tokensPerSecond: number | null }): void {
    this.#heartbeatMs = this.#deps.clock.nowMs();
    this.#firstTokenMs = ewma(this.#firstTokenMs, facts.firstTokenMs);
    this.#tokensPerSecond = ewma(this.#tokensPerSecond, facts.tokensPerSecond);
  }

  #request(ask: Ask): void {
    if (this.#ask === 'stop') return;
    this.#ask = ask;
    this.#asked.abort();
  }

  async #live(): Promise<void> {
    while (this.#ask !== 'stop') {
      this.#ask = 'keep';
      this.#asked = new AbortController();
      const failure = await this.#run(this.#asked.signal);
      if (this.#state === 'QUARANTINED') return;
      if (failure === null || this.#ask !== 'keep') continue;
      if (!(await this.#backOff(failure))) return;
    }
  }

  /** One process from start to end. @returns why it ended, or null when it was asked to. */
  async #run(signal: AbortSignal): Promise<Reason | null> {
    this.#move('provision', `preparing to start ${this.#modelRef}`);
    let failure: Reason | null;
    try {
      failure = this.#deps.recipe.check(this.#modelRef) ?? (await this.#memoryObstacle());
      if (failure === null) this.#move('launch', `starting ${this.#modelRef}`);
      failure ??= await this.#launchAndWatch(signal);
    } catch (error) {
      failure = reasonOf(error);
    }
    try {
      await this.#tearDown(signal);
    } catch (error) {
      return this.#survived(error);
    }
    return signal.aborted ? null : failure;
  }

  /** A process that nothing ends: whatever is started beside it would fight it for its GPU. */
  #survived(error: unknown): Reason {
    const message = error instanceof Error ? error.message : String(error);
    const fix = 'Look at the driver (dmesg); the host may have to be restarted. Then resume the pool.';
    this.#lastError = { code: 'ENGINE_SURVIVES_SIGKILL', message, fix };
    this.#move('give_up', message);
    return this.#lastError;
  }

  /** What its devices cannot give it; when they can, it is booked at once, so that two starts do not count on the same. */
  async #memoryObstacle(): Promise<Reason | null> {
    const plan = this.#deps.recipe.memory(this.#modelRef);
    const before = this.#deps.devices();
    const needs = await needOf(plan, before);
    if ('code' in needs) return needs;
    const devices = this.#deps.devices();
    // What an earlier start left running has its memory already.
    const misfit = firstUnusable(devices) ?? (this.#inherited === null ? firstMisfit(needs, devices) : null);
    if (misfit === null) {
      this.#held = new Map(needs.map((need, index) => [devices[index]?.uuid ?? '', need.totalBytes]));
    }
    return misfit;
  }

  async #launchAndWatch(signal: AbortSignal): Promise<Reason | null> {
    const instance = await this.#engage();
    this.#instance = instance;
    // Written before anything else happens, so that a death of ours now leaves no engine that nobody knows.
    this.#changed(null);
    const over = new AbortController();
    using both = within(null, signal, over.signal);
    const stop = both.signal;
    try {
      const watched = this.#preload(instance, stop)
        .then((failure) => failure ?? this.#watch(instance.adapter, stop))
        .catch((error: unknown) => this.#blame(error, instance));
      const aborted = new Promise<null>((resolve) =>
        signal.addEventListener('abort', () => resolve(null), { once: true }),
      );
      const reason = await Promise.race([instance.ended(), watched, ...(signal.aborted ? [null] : [aborted])]);
      over.abort();
      await watched;
      return reason;
    } finally {
      over.abort();
    }
  }

  /** Sockets close before the end of their process is told, and the end says why. */
  async #blame(error: unknown, instance: Instance): Promise<Reason> {
    if (!(error instanceof EngineError) || !error.engineLost) return reasonOf(error);
    const end = await Promise.race([instance.ended(), delay(EXIT_TOLD_MS).then(() => null)]);
    return end ?? reasonOf(error);
  }

  async #engage(): Promise<Instance> {
    const { recipe } = this.#deps;
    if (!recipe.spawns) return Instance.attach(recipe, this.#modelRef, this.facts);
    const inherited = this.#inherited;
    if (inherited !== null) {
      const adopted = Instance.adopt(recipe, this.#modelRef, this.facts, inherited);
      if (adopted === null) await reapOrphan({ ...inherited, graceMs: RECYCLE_GRACE_MS });
      this.#inherited = null;
      if (adopted !== null) return adopted;
    }
    return Instance.launch(recipe, this.#modelRef, this.facts);
  }

  /** Every gate between a started process and Ready, in order. */
  async #preload(instance: Instance, stop: AbortSignal): Promise<Reason | null> {
    const { adapter, log, readyDeadlineMs: deadlineMs } = instance;
    const onAnswer = () => this.#move('answers', 'the engine answers; its model is loading');
    const late = await readyGate(adapter, { deadlineMs, logFile: log.file, onAnswer }, stop);
    if (late !== null || stop.aborted) return late;
    const onCpu = await cpuGate(log);
    if (onCpu !== null) return onCpu;
    this.#move('healthy', 'the engine reports ready; decoding one token');
    using deadline = within(SELF_TEST_DEADLINE_MS, stop);
    const broken = await this.#selfTest(adapter, deadline.signal);
    if (broken !== null || stop.aborted) return broken;
    this.#readySinceMs = this.#deps.clock.monotonicMs();
    this.#heartbeatMs = this.#deps.clock.nowMs();
    this.#lastError = null;
    this.#doubted = false;
    const taken = instance.own?.adopted === true ? ', taken over from an earlier start' : '';
    this.#move('passed', `ready with ${this.#modelRef}${taken}`);
    return null;
  }

  async #selfTest(adapter: EngineAdapter, signal: AbortSignal): Promise<Reason | null> {
    const props = await adapter.props(signal);
    this.#engineVersion = props.version;
    this.#props = props;
    const modelId = this.#deps.recipe.modelId(this.#modelRef);
    const wrong = propsGate(props, { slots: this.facts.slots, modelId });
    if (wrong === null) await decodeGate(adapter, signal);
    return wrong;
  }

  /** Asks for a sign of life until the engine gives none, or the run is over. */
  async #watch(adapter: EngineAdapter, stop: AbortSignal): Promise<Reason | null> {
    let missed = 0;
    while (!stop.aborted) {
      await this.#pause(stop);
      if (stop.aborted) return null;
      this.#look = new AbortController();
      const health = await this.#heartbeat(adapter, stop);
      if (health?.ready === true) {
        missed = 0;
        // Unless the doubt is younger than the question.
        if (!this.#look.signal.aborted) this.#doubted = false;
        this.#heartbeatMs = this.#deps.clock.nowMs();
        this.#changed(null);
        continue;
      }
      missed += 1;
      if (missed >= MISSED_HEARTBEATS) {
        return {
          code: 'ENGINE_SILENT',
          message: `no sign of life in ${missed} heartbeats: ${health?.detail ?? 'no answer'}`,
          fix: `Look at ${this.facts.logFile}.`,
        };
      }
    }
    return null;
  }

  async #pause(stop: AbortSignal): Promise<void> {
    using either = within(null, stop, this.#look.signal);
    await delay(HEARTBEAT_EVERY_MS, either.signal);
  }

  async #heartbeat(adapter: EngineAdapter, stop: AbortSignal): Promise<EngineHealth | null> {
    using deadline = within(HEARTBEAT_DEADLINE_MS, stop);
    return await adapter.health(deadline.signal).catch(() => null);
  }

  async #tearDown(signal: AbortSignal): Promise<void> {
    const { aborted } = signal;
    if (aborted) this.#move('stop', 'stopping the engine');
    // One that is started anew was caught going on, or hanging: it has nothing left to finish.
    const graceMs = this.#ask === 'recycle' ? RECYCLE_GRACE_MS : Number.POSITIVE_INFINITY;
    try {
      await this.#instance?.stop(aborted ? graceMs : 0);
      // Left behind when something stood in the way of taking it over.
      if (this.#inherited !== null) await reapOrphan({ ...this.#inherited, graceMs: RECYCLE_GRACE_MS });
      this.#inherited = null;
      this.#held = new Map();
    } finally {
      this.#instance = null;
    }
    // Looked at again: it may have been asked to stop while it was ending by itself.
    if (!signal.aborted) return;
    this.#move('stop', 'stopping the engine');
    this.#move('exited', 'the engine is gone');
  }

  /** @returns false when the replica is given up. */
  async #backOff(failure: Reason): Promise<boolean> {
    const { clock } = this.#deps;
    const readyForMs = this.#readySinceMs === null ? 0 : clock.monotonicMs() - this.#readySinceMs;
    this.#readySinceMs = null;
    this.#lastError = failure;
    const decision = afterExit(
      DEFAULT_RESTART_POLICY,
      { failuresBefore: this.#failures, readyForMs },
      this.#deps.chance(),
    );
    this.#failures = decision.failures;
    if (decision.next === 'quarantine') {
      this.#move('give_up', `given up after ${decision.failures} failures in a row: ${failure.message}`);
      return false;
    }
    this.#restarts += 1;
    this.#backoffUntilMs = clock.nowMs() + decision.delayMs;
    this.#deps.onUnexpectedExit();
    this.#move('exited', `${failure.message} Next start in ${decision.delayMs} ms.`);
    await delay(decision.delayMs, this.#asked.signal);
    this.#backoffUntilMs = null;
    this.#move(this.#ask === 'stop' ? 'stop' : 'retry', 'backoff is over');
    return true;
  }

  #move(event: ReplicaEvent, message: string): void {
    const from = this.#state;
    const to = nextReplicaState(from, event);
    if (to === null || to === from) return;
    this.#state = to;
    this.#changed({ from, to, message });
  }

  #changed(change: { from: ReplicaState; to: ReplicaState; message: string } | null): void {
    this.#deps.onChange(this.#observed(), change);
    for (const listener of [...this.#listeners]) listener();
  }

  async #until(condition: () => boolean, signal?: AbortSignal): Promise<void> {
    while (!condition() && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const done = () => {
          this.#listeners.delete(done);
          signal?.removeEventListener('abort', done);
          resolve();
        };
        this.#listeners.add(done);
        signal?.addEventListener('abort', done);
      });
    }
  }

  #observed(): ReplicaObserved {
    const { id, poolId, ordinal, slots, deviceMask, gpuUuids, nodeId } = this.facts;
    const { endpoint = null, own = null } = this.#instance ?? {};
    // Until it is taken over or ended, what an earlier start left stays written down.
    const known = own === null ? this.#inherited : { ...own.process, mark: own.mark };
    return {
      id,
      poolId,
      ordinal,
      deviceMask,
      gpuUuids,
      nodeId,
      state: this.#state,
      slotsTotal: slots,
      // Of each device; where shares differ, the largest.
      vramBytes: Math.max(0, ...this.#held.values()),
      endpoint,
      pid: known?.pid ?? null,
      pidStartTicks: known === null ? null : String(known.startTimeTicks),
      mark: known?.mark ?? null,
      engineVersion: this.#engineVersion,
      modelId: this.#props?.modelId ?? null,
      restartCount: this.#restarts,
      backoffUntilMs: this.#backoffUntilMs,
      lastError: this.#lastError,
      lastHeartbeatMs: this.#heartbeatMs,
      tokensPerSecond: this.#tokensPerSecond,
      firstTokenMs: this.#firstTokenMs,
    };
  }
}

const EWMA_WEIGHT = 0.2;

function ewma(mean: number | null, sample: number | null): number | null {
  if (sample === null) return mean;
  return mean === null ? sample : mean + EWMA_WEIGHT * (sample - mean);
}

function reasonOf(error: unknown): Reason {
  if (error instanceof StartupError) return { code: 'START_FAILED', message: error.message, fix: error.fix };
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'PRELOAD_FAILED', message, fix: 'Look at the log of the replica.' };
}
