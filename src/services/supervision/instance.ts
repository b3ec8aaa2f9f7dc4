/**
 * One engine to talk to, for as long as it lasts: a process that was launched here, one that an earlier start of ours
 * left running, or an endpoint that somebody else runs. The replica decides what to do with it.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { Reason } from '../../core/pool.js';
import type { EngineAdapter } from '../../engines/adapter.js';
import type { LaunchSpec } from '../../engines/launch.js';
import { maskSecrets, redact } from '../../engines/redact.js';
import { freePorts } from '../../host/ports.js';
import { adoptEngineProcess, type EngineProcess, type ExitFacts, spawnEngineProcess } from '../../host/process.js';
import { readCmdline, readEnvironment } from '../../host/procfs.js';
import { type EngineLog, exitReason } from './gates.js';
import { loopbackUrl, type Recipe } from './recipe.js';

/** One that was ready before has nothing left to load. */
const ADOPT_DEADLINE_MS = 10_000;
const LOG_TAIL_LINES = 5;
/** Carried by the process, so that a later start of ours can learn them from it. */
const PORTS_VARIABLE = 'LLAMA_ORCH_PORTS';
/** What its arguments do not tell of what it runs. */
const BUILD_VARIABLE = 'LLAMA_ORCH_BUILD';

export interface InstanceFacts {
  readonly id: string;
  readonly nodeId: string;
  readonly gpuUuids: readonly string[];
  readonly gpuIndices: readonly number[];
  readonly workDir: string;
  readonly logFile: string;
}

/** What was made ready for one start. */
export interface Prepared {
  readonly modelRef: string;
  /** Hex, of the program or image; null: not known. */
  readonly engineDigest: string | null;
}

/** A process of an earlier start of ours, as it was written down. */
export interface Inherited {
  readonly pid: number;
  readonly startTimeTicks: number;
  readonly mark: string;
}

interface ProcessFacts {
  readonly process: EngineProcess;
  readonly spec: LaunchSpec;
  readonly ports: readonly number[];
  readonly apiKey: string;
  readonly mark: string;
  readonly adopted: boolean;
}

/** How an engine came to its end, and why. */
export interface Ended {
  readonly reason: Reason;
  /** null: its process had not ended by itself. */
  readonly exit: ExitFacts | null;
}

export class Instance {
  readonly adapter: EngineAdapter;
  readonly endpoint: string;
  /** null: somebody else's. */
  readonly own: ProcessFacts | null;
  readonly log: EngineLog;
  readonly #readyDeadlineMs: number;

  private constructor(recipe: Recipe, modelRef: string, facts: InstanceFacts, own: ProcessFacts | null) {
    this.own = own;
    this.#readyDeadlineMs = recipe.readyDeadlineMs;
    this.endpoint = own === null ? (recipe.endpoint ?? '') : loopbackUrl(own.ports[0] ?? 0);
    const { ports = [], apiKey = null } = own ?? {};
    this.adapter = recipe.adapter({ baseUrl: this.endpoint, ports, modelRef, apiKey });
    this.log = engineLog(facts.logFile, own);
  }

  /** Starts a process. Throws StartupError when that cannot be done. */
  static async launch(recipe: Recipe, prepared: Prepared, facts: InstanceFacts): Promise<Instance> {
    const { modelRef } = prepared;
    const { gpuUuids, gpuIndices, nodeId, id, workDir: cwd, logFile } = facts;
    const apiKey = randomUUID();
    const ports = await freePorts(recipe.portCount);
    const spec = recipe.launch({ modelRef, ports, apiKey, gpuUuids, gpuIndices });
    const mark = `${nodeId}/${id}/${randomUUID()}`;
    const { file, args } = spec;
    const own = { [PORTS_VARIABLE]: ports.join(','), [BUILD_VARIABLE]: buildOf(recipe, prepared, spec) };
    const env = { ...spec.env, ...own };
    const process = spawnEngineProcess({ file, args, env, cwd, logFile, mark });
    return new Instance(recipe, modelRef, facts, { process, spec, ports, apiKey, mark, adopted: false });
  }

  /** Takes over a running process; null when it is gone, or not what would be launched now. */
  static adopt(recipe: Recipe, prepared: Prepared, facts: InstanceFacts, inherited: Inherited): Instance | null {
    const { pid, mark } = inherited;
    const { modelRef } = prepared;
    const ports = (readEnvironment(pid, PORTS_VARIABLE) ?? '').split(',').map(Number);
    const apiKey = recipe.apiKeyVariable === null ? '' : readEnvironment(pid, recipe.apiKeyVariable);
    if (ports.length !== recipe.portCount || ports.includes(0) || apiKey === null) return null;
    const { gpuUuids, gpuIndices, logFile } = facts;
    const spec = recipe.launch({ modelRef, ports, apiKey, gpuUuids, gpuIndices });
    if (readEnvironment(pid, BUILD_VARIABLE) !== buildOf(recipe, prepared, spec)) return null;
    // Interpreters put words of their own before the arguments, never after them.
    const running = readCmdline(pid).slice(-spec.args.length);
    if (running.length !== spec.args.length || running.some((arg, at) => arg !== spec.args[at])) return null;
    if (Object.entries(spec.env).some(([name, value]) => readEnvironment(pid, name) !== value)) return null;
    const process = adoptEngineProcess({ ...inherited, logFile });
    if (process === null) return null;
    return new Instance(recipe, modelRef, facts, { process, spec, ports, apiKey, mark, adopted: true });
  }

  static attach(recipe: Recipe, modelRef: string, facts: InstanceFacts): Instance {
    return new Instance(recipe, modelRef, facts, null);
  }

  get readyDeadlineMs(): number {
    return this.own?.adopted === true ? ADOPT_DEADLINE_MS : this.#readyDeadlineMs;
  }

  /** Arguments it was started with, secrets masked; null: somebody else started it. */
  get launchArgs(): readonly string[] | null {
    return this.own === null ? null : maskSecrets(this.own.spec.args);
  }

  /** Resolves with why its process ended; never for one that somebody else runs. Not to be returned by an async function. */
  ended(): Promise<Ended> {
    if (this.own === null) return new Promise(() => {});
    return this.own.process.exited.then(async (exit) => ({
      exit,
      reason: await exitReason(exit, this.log, LOG_TAIL_LINES),
    }));
  }

  /** Drops the connections, which some engines wait for before they end, then ends the process and all its helpers. */
  async stop(graceMs: number): Promise<void> {
    await this.adapter.close().catch(() => {});
    await this.own?.process.stop({ graceMs: Math.min(graceMs, this.own.spec.stop.drainWindowMs) });
  }
}

/** A digest, since a variable is read back byte by byte: of the program, of what it was when it was made ready, and of the model. */
function buildOf(recipe: Recipe, { modelRef, engineDigest }: Prepared, { file }: LaunchSpec): string {
  const build = JSON.stringify([file, engineDigest, recipe.modelDigest(modelRef)]);
  return createHash('sha256').update(build).digest('hex');
}

function engineLog(file: string, own: ProcessFacts | null): EngineLog {
  if (own === null) return { file, patterns: [], tail: async () => [] };
  const tail = async (lines: number, maxBytes?: number) =>
    (await own.process.tail(lines, maxBytes)).map((line) => redact(line, [own.apiKey]));
  return { file, patterns: own.spec.logPatterns, tail };
}
