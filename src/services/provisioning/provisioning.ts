/**
 * Engines and models made ready before a replica starts: planned, carried out step by step, and written down. What is
 * there already, unchanged, is used as it is.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { PoolConfig } from '../../config/schema.js';
import type { Reason } from '../../core/pool.js';
import type { ProvisionPlan } from '../../core/provision/plan.js';
import { clonedCommit, readPrepared, writePrepared } from '../../host/provision/preparedFile.js';
import { endLeftovers, runForExitCode } from '../../host/provision/program.js';
import { ProvisionError } from '../../host/provision/provisionError.js';
import type { Database } from '../../store/database.js';
import { upsertPreparedEngine } from '../../store/preparedEngines.js';
import { dryRun } from './dryRun.js';
import { Locks } from './locks.js';
import { folderOf, type ProvisionEnvironment, planOf } from './plan.js';
import type { Prepare, PrepareRun } from './prepare.js';
import { carryOut, makesSomething, type StepDeps } from './steps.js';
import { digestOf } from './verify.js';

const LOOK_DEADLINE_MS = 60_000;

export interface ProvisioningDeps {
  readonly db: Database;
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
    const folder = folderOf(pool, this.#deps.env);
    // Replicas that want the same take turns: the first makes it, the others find it.
    return async (modelRef, run) => {
      try {
        return await this.#locks.run(folder, run.signal, () => this.#prepare(pool, modelRef, folder, run));
      } catch (error) {
        run.signal.throwIfAborted();
        return reasonOf(error);
      }
    };
  }

  get #mark(): string {
    return `${this.#deps.nodeId}/provision`;
  }

  async #prepare(pool: PoolConfig, modelRef: string, folder: string, run: PrepareRun): Promise<Reason | null> {
    const { env } = this.#deps;
    const least = planOf(pool, env, { modelRef, present: true });
    if (least.steps.length === 0 && least.obstacles.length === 0) return null;
    const deps = this.#stepDeps(pool);
    const present = await run.step('plan', async (say) => {
      const found = await this.#isPresent(pool, folder, deps, { say, signal: run.signal });
      say(found ? 'what is needed is there' : 'to be prepared');
      return found;
    });
    const plan = planOf(pool, env, { modelRef, present });
    const [obstacle] = plan.obstacles;
    if (obstacle !== undefined) return obstacle;
    await mkdir(deps.cwd, { recursive: true });
    for (const step of plan.steps) {
      const failure = await run.step(step.name, (say) =>
        carryOut(step, deps, { say, signal: run.signal }).then(
          () => null,
          (error: unknown) => {
            run.signal.throwIfAborted();
            return reasonOf(error);
          },
        ),
      );
      if (failure !== null) return failure;
    }
    await this.#writeDown(plan, folder, { say: () => {}, signal: run.signal });
    return null;
  }

  #stepDeps({ id }: PoolConfig): StepDeps {
    const { db, nodeId, logsDir, env } = this.#deps;
    const logFile = join(logsDir, `provision-${id}.log`);
    return { db, nodeId, allowHosts: env.allowHosts, cwd: join(env.homeDir, 'run'), logFile, mark: this.#mark };
  }

  /** Whether an earlier preparation can be used as it is; programs are compared with the digest they had then. */
  async #isPresent(
    pool: PoolConfig,
    folder: string,
    deps: StepDeps,
    run: { readonly say: (detail: string) => void; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const plan = planOf(pool, this.#deps.env, { present: true });
    const { image, runtime, binaryPath } = plan.prepared;
    if (image !== null) {
      if (runtime === null) return false;
      const look =
        runtime.name === 'podman' ? ['image', 'exists', image] : ['image', 'inspect', '--format', 'ok', image];
      // Without the mark: podman leaves a helper behind that all later containers of this user share.
      const program = { ...deps, mark: null, signal: run.signal, deadlineMs: LOOK_DEADLINE_MS };
      return (await runForExitCode({ ...program, argv: [runtime.path, ...look] })) === 0;
    }
    if (binaryPath === null || !makesSomething(planOf(pool, this.#deps.env))) return false;
    const wanted = plan.digest ?? (await readPrepared(folder))?.digest ?? null;
    return wanted !== null && (await digestOf(this.#deps, binaryPath, run)) === wanted;
  }

  async #writeDown(
    plan: ProvisionPlan,
    folder: string,
    run: { readonly say: (detail: string) => void; readonly signal: AbortSignal },
  ): Promise<void> {
    const { engine, mode, buildRef, prepared } = plan;
    const { binaryPath, image, flags } = prepared;
    if (buildRef === '') return;
    const digest = plan.digest ?? (binaryPath === null ? null : await digestOf(this.#deps, binaryPath, run));
    const version = mode === 'source' ? await clonedCommit(folder) : null;
    const { db, nodeId } = this.#deps;
    const isOurs = image !== null || binaryPath?.startsWith(folder) === true;
    if (isOurs) await writePrepared(folder, { buildRef, digest, version });
    await upsertPreparedEngine(db, { nodeId, engine, mode, version, buildRef, digest, flags, binaryPath, image });
  }
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
