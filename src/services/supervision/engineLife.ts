/** One engine from the preparations for its start to its end: launched, taken over or attached to, tested, watched. */

import type { Engine } from '../../core/errors.js';
import type { Reason } from '../../core/pool.js';
import type { ReplicaEvent } from '../../core/replica.js';
import type { Workload } from '../../core/workload.js';
import type { EngineProps } from '../../engines/adapter.js';
import { EngineError } from '../../engines/failure.js';
import { heldPorts } from '../../host/ports.js';
import { reapOrphan } from '../../host/process.js';
import { StartupError } from '../../host/startupError.js';
import type { Clock } from '../../runtime/clock.js';
import { delay, within } from '../../runtime/wait.js';
import type { EngineRun } from '../fleet.js';
import type { Prepare } from '../provisioning/prepare.js';
import type { CrashFacts } from './crashes.js';
import { workloadGate } from './gates.js';
import { type Ended, type Inherited, Instance, type InstanceFacts } from './instance.js';
import type { Device } from './memory.js';
import { PreloadSteps, passGates } from './preload.js';
import type { Recipe } from './recipe.js';
import type { ReplicaReports } from './reports.js';
import { VersionGuard, type VersionRules } from './versions.js';
import type { VramClaim, VramLedger } from './vram.js';
import { Watch } from './watch.js';

/** How much later than its sockets the end of a process may be told. */
const EXIT_TOLD_MS = 1_500;
/** For what is not worth waiting for. */
export const SHORT_GRACE_MS = 1_000;
/** The kernel closes a socket with its last process. */
const PORTS_FREE_DEADLINE_MS = 1_000;
/** Last lines of its log that a crash record keeps. */
const CRASH_LOG_LINES = 40;
const MAX_NAME_CHARS = 200;
const NOTHING_HELD: ReadonlyMap<string, number> = new Map();

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
  readonly prepare: Prepare;
  readonly chance: () => number;
  /** The replica's devices, with the memory that no engine of ours holds. */
  readonly devices: () => readonly Device[];
  readonly vram: VramLedger;
  /** Tokens of one slot. */
  readonly contextLength: number;
  /** What a stream may be silent before it is given up, ms. */
  readonly idleTimeoutMs: number;
  /** How often an idle engine decodes a token to show that it can, ms; 0: never. */
  readonly canaryEveryMs: number;
  readonly reports: ReplicaReports;
  readonly versions: VersionRules;
  /** What an earlier start left running for this replica. */
  readonly inherited: Inherited | null;
}

/** The replica, as its engine sees it. */
export interface LifeOwner {
  readonly facts: ReplicaFacts;
  readonly deps: ReplicaDeps;
  readonly modelRef: string;
  /** The state goes on. */
  readonly move: (event: ReplicaEvent, message: string) => void;
  /** Something that is shown of it changed. */
  readonly changed: () => void;
  readonly onReady: (life: EngineLife) => void;
  /** It gave a sign of life, or owes one. */
  readonly onBeat: () => void;
}

export class EngineLife {
  readonly steps: PreloadSteps;
  readonly #owner: LifeOwner;
  readonly #version: VersionGuard;
  readonly #startedMs: number;
  #launchedMs: number | null = null;
  #readySinceMs: number | null = null;
  #instance: Instance | null = null;
  #inherited: Inherited | null;
  #watch: Watch | null = null;
  #props: EngineProps | null = null;
  #kvUsage: number | null = null;
  #workloads: readonly [Workload, ...Workload[]] | null = null;
  #claim: VramClaim | null = null;
  #fault: string | null = null;
  /** Of what was made ready for it. */
  #engineDigest: string | null = null;

  /** @param inherited what an earlier start of ours left running: taken over, or else ended, before anything is started. */
  constructor(owner: LifeOwner, inherited: Inherited | null) {
    const { clock, versions: rules, reports } = owner.deps;
    this.#owner = owner;
    const onMixed = (reason: Reason) => reports.onVersionsMixed(reason);
    this.#version = new VersionGuard({ id: owner.facts.id, modelRef: owner.modelRef, rules, onMixed });
    this.#inherited = inherited;
    this.#startedMs = clock.monotonicMs();
    this.steps = new PreloadSteps(clock, owner.changed);
  }

  get instance(): Instance | null {
    return this.#instance;
  }

  get watch(): Watch | null {
    return this.#watch;
  }

  get props(): EngineProps | null {
    return this.#props;
  }

  /** The version that the others of its set must have too; null: it is not there, or has not been let in. */
  get heldVersion(): string | null {
    return this.#instance === null ? null : this.#version.held;
  }

  /** What it was seen to take; null: that has not been tried yet. */
  get workloads(): readonly Workload[] | null {
    return this.#workloads;
  }

  /** 0 … 1; null: not told. */
  get kvUsage(): number | null {
    return this.#kvUsage;
  }

  /** Since its start, with everything that came before the launch. */
  get ageMs(): number {
    return this.#owner.deps.clock.monotonicMs() - this.#startedMs;
  }

  /** null: it has not been ready. */
  get readyForMs(): number | null {
    return this.#readySinceMs === null ? null : this.#owner.deps.clock.monotonicMs() - this.#readySinceMs;
  }

  /** VRAM booked for it, bytes by GPU UUID. */
  get held(): ReadonlyMap<string, number> {
    return this.#claim?.held ?? NOTHING_HELD;
  }

  /** What a run of it depends on; null while nothing is known of it. */
  get run(): EngineRun | null {
    const { facts, deps, modelRef } = this.#owner;
    if (this.#props === null) return null;
    const { version: engineVersion, modelId, modelDigest } = this.#props;
    return {
      ...{ engineVersion, modelId, gpuUuids: facts.gpuUuids, determinism: deps.recipe.determinism },
      // What was verified here goes before what the engine says of itself.
      modelDigest: deps.recipe.modelDigest(modelRef) ?? modelDigest,
      launchArgs: this.#instance?.launchArgs ?? null,
    };
  }

  /** Its process as it is to be written down: that of an earlier start until it is taken over or ended. */
  get process(): Inherited | null {
    const own = this.#instance?.own;
    if (own == null) return this.#inherited;
    const { pid, startTimeTicks } = own.process;
    return { pid, startTimeTicks, mark: own.mark };
  }

  get isRunning(): boolean {
    return this.#instance?.own?.process.hasExited === false;
  }

  /** Everything that is looked at and brought here before a process is started. */
  async provision(signal: AbortSignal): Promise<Reason | null> {
    const { deps, modelRef } = this.#owner;
    const { step } = this.steps;
    const unfit = await step('check_model', async () => deps.recipe.check(modelRef));
    if (unfit !== null || signal.aborted) return unfit;
    const made = await deps.prepare(modelRef, { signal, step });
    if ('code' in made) return made;
    this.#engineDigest = made.engineDigest;
    if (signal.aborted) return null;
    return step('reserve_memory', () => this.#reserveMemory(signal));
  }

  /**
   * Starts the engine and stays with it. @returns how it came to its end: by itself, or because a gate or the watch found
   * fault with it; null when the signal came first.
   */
  async live(signal: AbortSignal): Promise<Ended | null> {
    this.#launchedMs = this.#owner.deps.clock.monotonicMs();
    const instance = await this.steps.step('start_engine', async (say) => {
      const engaged = await this.#engage();
      say(engaged.own === null ? `attached to ${engaged.endpoint}` : `process ${engaged.own.process.pid}`);
      return engaged;
    });
    this.#instance = instance;
    // Written before anything else happens, so that a death of ours now leaves no engine that nobody knows.
    this.#owner.changed();
    const ended = await this.#untilItEnds(instance, signal);
    this.#fault = ended?.reason.code ?? null;
    return ended;
  }

  /** What a crash record keeps of it; null where nothing of ours was started. */
  async crash({ reason, exit }: Ended): Promise<CrashFacts | null> {
    if (this.#instance?.own == null) return null;
    const { modelRef, deps } = this.#owner;
    const { log, launchArgs } = this.#instance;
    const ranForMs = deps.clock.monotonicMs() - (this.#launchedMs ?? this.#startedMs);
    const engineVersion = this.#props?.version ?? null;
    const lastLines = await log.tail(CRASH_LOG_LINES).catch(() => []);
    const { readyForMs } = this;
    return { modelRef, engineVersion, exit, reason, lastLines, launchArgs, ranForMs, readyForMs };
  }

  /** Ends what runs of it and gives back what was booked. Rejects when a process survives SIGKILL. */
  async end(graceMs: number): Promise<void> {
    try {
      await this.#stopInstance(graceMs);
      // Left behind when something stood in the way of taking it over.
      if (this.#inherited !== null) await reapOrphan({ ...this.#inherited, graceMs: SHORT_GRACE_MS });
      this.#inherited = null;
      this.#claim?.release(this.#fault);
      this.#claim = null;
    } finally {
      this.#instance = null;
    }
  }

  /** The next start takes other ports, so one that stays held is told, and is no reason to wait. */
  async #stopInstance(graceMs: number): Promise<void> {
    const instance = this.#instance;
    await instance?.stop(graceMs);
    const held = await heldPorts(instance?.own?.ports ?? [], PORTS_FREE_DEADLINE_MS);
    if (held.length > 0) this.#owner.deps.reports.onPortsHeld(held);
  }

  /** What its devices cannot give it; when they can, it is booked at once, so that two starts do not count on the same. */
  async #reserveMemory(signal: AbortSignal): Promise<Reason | null> {
    const { deps, modelRef, facts } = this.#owner;
    const { recipe, devices, contextLength } = deps;
    const start = {
      ...{ recipe, modelRef, contextLength, devices },
      ...{ replicaId: facts.id, poolId: facts.poolId, slots: facts.slots },
      ...{ gpuUuids: facts.gpuUuids, gpuIndices: facts.gpuIndices, inherited: this.#inherited !== null },
      isReady: () => this.#readySinceMs !== null,
      pid: () => (this.isRunning ? (this.process?.pid ?? null) : null),
    };
    const claim = await deps.vram.claim(start, signal);
    if ('code' in claim) return claim;
    this.#claim = claim;
    return null;
  }

  async #engage(): Promise<Instance> {
    const { facts, modelRef } = this.#owner;
    const { recipe } = this.#owner.deps;
    if (!recipe.spawns) return Instance.attach(recipe, modelRef, facts);
    const prepared = { modelRef, engineDigest: this.#engineDigest };
    const inherited = this.#inherited;
    if (inherited !== null) {
      const adopted = Instance.adopt(recipe, prepared, facts, inherited);
      if (adopted === null) await reapOrphan({ ...inherited, graceMs: SHORT_GRACE_MS });
      this.#inherited = null;
      if (adopted !== null) return adopted;
    }
    return Instance.launch(recipe, prepared, facts);
  }

  /** Whatever comes first: the process ends, a gate or the watch finds fault with it, or it is to end. */
  async #untilItEnds(instance: Instance, signal: AbortSignal): Promise<Ended | null> {
    const over = new AbortController();
    using both = within(null, signal, over.signal);
    const aborted = new Promise<null>((resolve) => {
      if (signal.aborted) resolve(null);
      else signal.addEventListener('abort', () => resolve(null), { once: true });
    });
    const watched = this.#testAndWatch(instance, both.signal)
      .then((reason) => (reason === null ? null : { reason, exit: null }))
      .catch((error: unknown) => blame(error, instance));
    try {
      return await Promise.race([instance.ended(), watched, aborted]);
    } finally {
      over.abort();
      await watched;
      this.#watch = null;
    }
  }

  async #testAndWatch(instance: Instance, stop: AbortSignal): Promise<Reason | null> {
    const { facts, deps, modelRef, move } = this.#owner;
    const gates = {
      ...{ instance, steps: this.steps, slots: facts.slots, modelId: deps.recipe.modelId(modelRef) },
      onAnswer: () => move('answers', 'the engine answers; its model is loading'),
      onHealthy: () => move('healthy', 'the engine reports ready; it is tested'),
      onProps: (props: EngineProps) => this.#keep(props),
      compareVersion: () => this.#version.admit(this.#props?.version ?? ''),
      workloads: deps.recipe.workloads,
      onWorkloads: (taken: readonly [Workload, ...Workload[]]) => {
        this.#workloads = taken;
      },
    };
    const failure = await passGates(gates, stop);
    if (failure !== null || stop.aborted) return failure;
    this.#readySinceMs = deps.clock.monotonicMs();
    this.#watch = this.#newWatch(instance);
    this.#owner.onReady(this);
    return this.#watch.run(stop);
  }

  #keep(props: EngineProps): void {
    const { version, modelId } = props;
    this.#props = { ...props, version: shownName(version), modelId: shownName(modelId) };
  }

  /** One that somebody else runs may be exchanged under us; a process of ours stays what it is. */
  async #recheckVersion({ adapter, own }: Instance, closely: boolean, signal: AbortSignal): Promise<Reason | null> {
    const before = this.#props;
    const props = own !== null || !closely ? null : await adapter.props(signal).catch(() => null);
    if (props !== null) this.#keep(props);
    const found = this.#version.recheck(this.#props?.version ?? '');
    // What its tasks ran with until now was the one before.
    if (found !== null) this.#props = before;
    return found;
  }

  #newWatch(instance: Instance): Watch {
    const { adapter, log, own } = instance;
    const { deps, onBeat } = this.#owner;
    const { clock, idleTimeoutMs, canaryEveryMs } = deps;
    const onKvUsage = (ratio: number | null) => {
      this.#kvUsage = ratio;
      if (ratio !== null) deps.reports.onKvUsage(this.#props?.version ?? '', ratio);
    };
    const isOurs = own !== null;
    const [workload] = this.#workloads ?? (['completion'] as const);
    const canary = (signal: AbortSignal) => workloadGate(adapter, workload, signal);
    const recheck = (closely: boolean, signal: AbortSignal) => this.#recheckVersion(instance, closely, signal);
    const told = { isOurs, onBeat, onKvUsage, recheck };
    return new Watch({ clock, adapter, canary, logFile: log.file, idleTimeoutMs, canaryEveryMs, ...told });
  }
}

/** What is written down of an engine, and before there is one, of what an earlier start left. */
export function observedOf(engine: EngineLife | null, inherited: Inherited | null) {
  const process = engine === null ? inherited : engine.process;
  return {
    // Of each device; where shares differ, the largest.
    vramBytes: Math.max(0, ...(engine?.held.values() ?? [])),
    endpoint: engine?.instance?.endpoint ?? null,
    pid: process?.pid ?? null,
    pidStartTicks: process === null ? null : String(process.startTimeTicks),
    mark: process?.mark ?? null,
    modelId: engine?.props?.modelId ?? null,
    preload: engine?.steps.all ?? [],
    kvUsage: engine?.kvUsage ?? null,
  };
}

/** What an engine calls itself and its model, fit for a row and a label. */
function shownName(name: string): string {
  return name.replace(/[\p{Cc}\p{Cs}]/gu, '\uFFFD').slice(0, MAX_NAME_CHARS);
}

/** Sockets close before the end of their process is told, and the end says why. */
async function blame(error: unknown, instance: Instance): Promise<Ended> {
  const found = { reason: reasonOf(error), exit: null };
  if (!(error instanceof EngineError) || !error.engineLost) return found;
  return (await Promise.race([instance.ended(), delay(EXIT_TOLD_MS).then(() => null)])) ?? found;
}

export function reasonOf(error: unknown): Reason {
  if (error instanceof StartupError) return { code: 'START_FAILED', message: error.message, fix: error.fix };
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'PRELOAD_FAILED', message, fix: 'Look at the log of the replica.' };
}
