/**
 * Engines and models made ready before a replica starts: planned, carried out step by step, and written down. What is
 * there already, unchanged, is used as it is.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { PoolConfig } from '../../config/schema.js';
import type { Reason } from '../../core/pool.js';
import type { ProvisionPlan, ProvisionStep } from '../../core/provision/plan.js';
import { hasImage } from '../../host/provision/images.js';
import { clonedCommit, readPrepared, writePrepared } from '../../host/provision/preparedFile.js';
import { endLeftovers } from '../../host/provision/program.js';
import { ProvisionError } from '../../host/provision/provisionError.js';
import type { Database } from '../../store/database.js';
import { upsertPreparedEngine } from '../../store/preparedEngines.js';
import type { Telemetry } from '../../telemetry/events.js';
import { dryRun } from './dryRun.js';
import { Locks } from './locks.js';
import { folderOf, type ProvisionEnvironment, planOf } from './plan.js';
import type { Prepare, PrepareRun, Ready } from './prepare.js';
import { carryOut, makesSomething, type StepDeps, type StepRun } from './steps.js';
import { digestOf } from './verify.js';

const NOT_OURS: Ready = { engineDigest: null };

export interface ProvisioningDeps {
  readonly db: Database;
  readonly telemetry: Telemetry;
  readonly nodeId: string;
  readonly logsDir: string;
  readonly pools: readonly PoolConfig[];
  readonly env: ProvisionEnvironment;
}

export class Provisioning {
  readonly #deps: ProvisioningDeps;
  readonly #locks = new Locks();

  constructor(deps: ProvisioningDeps) {
    this.#deps = deps;
  }

  /** Ends what a killed life of this node was still building. */
  start(): Promise<void> {
    return endLeftovers(this.#mark);
  }

  /** What would be done for a pool now; null for one that this node does not have. */
  async plan(poolId: string): Promise<ProvisionPlan | null> {
    const pool = this.#deps.pools.find(({ id }) => id === poolId);
    return pool === undefined ? null : dryRun(pool, this.#deps.env);
  }

  prepareFor(pool: PoolConfig): Prepare {
    return async (modelRef, run) => {
      try {
        return await this.#prepare(pool, modelRef, run);
      } catch (error) {
        run.signal.throwIfAborted();
        return reasonOf(error);
      }
    };
  }

  get #mark(): string {
    return `${this.#deps.nodeId}/provision`;
  }

  /** Rejects with a ProvisionError for what stands in the way. */
  async #prepare(pool: PoolConfig, modelRef: string, run: PrepareRun): Promise<Ready | Reason> {
    const least = planOf(pool, this.#deps.env, { modelRef, present: true });
    const [obstacle] = least.obstacles;
    if (obstacle !== undefined) return obstacle;
    const deps = this.#stepDeps(pool);
    await mkdir(deps.cwd, { recursive: true });
    const engine = least.buildRef === '' ? NOT_OURS : await this.#engine(pool, modelRef, deps, run);
    if ('code' in engine) return engine;
    // A model that many replicas read is read once, and no engine waits for it.
    for (const step of least.steps.filter(isForModel)) {
      await this.#locks.run(step.path, run.signal, () => this.#carryOut([step], deps, run));
    }
    return engine;
  }

  /** Those that want the same engine take turns: the first makes it, the others find it. */
  #engine(pool: PoolConfig, modelRef: string, deps: StepDeps, run: PrepareRun): Promise<Ready | Reason> {
    const { env } = this.#deps;
    const folder = folderOf(pool, env);
    const fromNothing = planOf(pool, env);
    const key = makesSomething(fromNothing) ? folder : (fromNothing.prepared.binaryPath ?? folder);
    return this.#locks.run(key, run.signal, async () => {
      const present = await run.step('plan', async (say) => {
        const found = await this.#isPresent(pool, folder, deps, { say, signal: run.signal });
        say(found ? 'what is needed is there' : 'to be prepared');
        return found;
      });
      const plan = planOf(pool, env, { modelRef, present });
      const [obstacle] = plan.obstacles;
      if (obstacle !== undefined) return obstacle;
      await this.#carryOut(
        plan.steps.filter((step) => !isForModel(step)),
        deps,
        run,
      );
      return this.#writeDown(plan, folder, deps, { say: () => {}, signal: run.signal });
    });
  }

  /** Rejects at the first step that fails. */
  async #carryOut(steps: readonly ProvisionStep[], deps: StepDeps, { step, signal }: PrepareRun): Promise<void> {
    for (const next of steps) await step(next.name, (say) => carryOut(next, deps, { say, signal }));
  }

  #stepDeps({ id }: PoolConfig): StepDeps {
    const { db, nodeId, logsDir, env, telemetry } = this.#deps;
    const logFile = join(logsDir, `provision-${id}.log`);
    const onForgotten = (what: string, error: unknown) => telemetry.backgroundFailure(what, error);
    const cwd = join(env.homeDir, 'run');
    return { db, nodeId, onForgotten, allowHosts: env.allowHosts, cwd, logFile, mark: this.#mark };
  }

  /** Whether an earlier preparation can be used as it is; programs are compared with the digest they had then. */
  async #isPresent(pool: PoolConfig, folder: string, deps: StepDeps, run: StepRun): Promise<boolean> {
    const plan = planOf(pool, this.#deps.env, { present: true });
    const { image, runtime, binaryPath } = plan.prepared;
    if (image !== null) return runtime !== null && hasImage(runtime, image, { ...deps, signal: run.signal });
    if (binaryPath === null || !makesSomething(planOf(pool, this.#deps.env))) return false;
    const wanted = plan.digest ?? (await readPrepared(folder))?.digest ?? null;
    return wanted !== null && (await digestOf(deps, binaryPath, run)) === wanted;
  }

  /** What is on the disk counts; its row is for those who ask. */
  async #writeDown(plan: ProvisionPlan, folder: string, deps: StepDeps, run: StepRun): Promise<Ready> {
    const { engine, mode, buildRef, prepared } = plan;
    const { binaryPath, image, flags } = prepared;
    const digest = plan.digest ?? (binaryPath === null ? null : await digestOf(deps, binaryPath, run));
    const version = mode === 'source' ? await clonedCommit(folder) : null;
    const { db, nodeId, onForgotten } = deps;
    const isOurs = image !== null || binaryPath?.startsWith(folder) === true;
    if (isOurs) await writePrepared(folder, { buildRef, digest, version });
    const row = { nodeId, engine, mode, version, buildRef, digest, flags, binaryPath, image };
    await upsertPreparedEngine(db, row).catch((error: unknown) => onForgotten('prepared engine', error));
    return { engineDigest: digest };
  }
}

function isForModel(step: ProvisionStep): step is Extract<ProvisionStep, { kind: 'verify_model' }> {
  return step.kind === 'verify_model';
}

function reasonOf(error: unknown): Reason {
  if (error instanceof ProvisionError) return error.reason;
  const message = error instanceof Error ? error.message : String(error);
  return {
    code: 'PROVISION_FAILED',
    message,
    fix: 'It is tried again; where it stays, look at the log of the control plane.',
  };
}
