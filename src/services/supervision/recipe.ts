/** How the replicas of a pool are made: which process (if any), and which dialect speaks to it. No effects. */
import { isAbsolute } from 'node:path';
import { pathOfFileUrl } from '../../config/fileUrl.js';
import type { PoolConfig } from '../../config/schema.js';
import { isListed } from '../../core/egress.js';
import type { Reason } from '../../core/pool.js';
import type { Offers, Workload } from '../../core/workload.js';
import type { EngineAdapter } from '../../engines/adapter.js';
import { DIALECTS, type Dialect } from '../../engines/dialects.js';
import type { DeterminismClaim, EngineLaunch, LaunchSpec } from '../../engines/launch.js';
import { modelPath, modelSource, promisedDigest } from '../provisioning/modelSource.js';
import { type ProvisionEnvironment, planOf } from '../provisioning/plan.js';
import { inContainer, isMountable } from './container.js';
import { changesMemory, type MemoryPlan } from './memory.js';

export interface LaunchFacts {
  readonly modelRef: string;
  /** As many as `portCount`; the first is the one that completions go to. */
  readonly ports: readonly number[];
  readonly apiKey: string;
  readonly gpuUuids: readonly string[];
  readonly gpuIndices: readonly number[];
}

export interface AdapterFacts {
  readonly baseUrl: string;
  readonly ports: readonly number[];
  readonly modelRef: string;
  readonly apiKey: string | null;
}

export interface Recipe {
  /** False: somebody else runs the engine; we only attach to `endpoint`. */
  readonly spawns: boolean;
  readonly endpoint: string | null;
  readonly simulated: boolean;
  readonly portCount: number;
  /** Where its process carries the API key; null: the engine has no keys. */
  readonly apiKeyVariable: string | null;
  readonly determinism: DeterminismClaim;
  /** What its engines may take; whether they do is tried when they are up. */
  readonly workloads: readonly Workload[];
  /** What has to be done for them to take what they do not. */
  readonly workloadFixes: Offers;
  /** Longest time from a start to ready, ms. */
  readonly readyDeadlineMs: number;
  /** The name by which the engine must call itself; null where somebody else chose it. */
  modelId(modelRef: string): string | null;
  /** Digest that the model was verified to have before the start, as sha256:hex; null: the configuration names none. */
  modelDigest(modelRef: string): string | null;
  /** What a replica will need of its GPUs; null: only the engine knows. */
  memory(modelRef: string): MemoryPlan | null;
  /** Says what stands in the way of a start, before anything is started. */
  check(modelRef: string): Reason | null;
  launch(facts: LaunchFacts): LaunchSpec;
  adapter(facts: AdapterFacts): EngineAdapter;
}

/** Where GPUs are pretended, a real engine may run without one. */
export interface RecipeEnvironment extends ProvisionEnvironment {
  /** The built simulator program. */
  readonly simEntry: string;
  readonly nodeBinary: string;
  /** Where a container runtime finds the containers of this user. */
  readonly containerEnv: Readonly<Record<string, string>>;
  readonly fileExists: (path: string) => boolean;
}

type Provision = Omit<Recipe, 'adapter' | 'portCount' | 'apiKeyVariable' | 'modelDigest'>;

/** Extra connections beside one per slot: health, metrics, token counts. */
const PROBE_CONNECTIONS = 8;
/** For an engine that somebody else starts. */
const ATTACH_DEADLINE_MS = 120_000;
/** Where engines fetch models that are given by name. */
const MODEL_HUB = new URL('https://huggingface.co/');
const SIM_DRAIN_WINDOW_MS = 2_000;
const SIM_DEFAULTS = { tokens_per_second: 40, first_token_ms: 50, load_ms: 200, vram_bytes: 0 };

export function recipeFor(pool: PoolConfig, env: RecipeEnvironment): Recipe {
  const dialect = DIALECTS[pool.engine];
  const provision = provisionFor(pool, dialect, env);
  return {
    ...provision,
    portCount: dialect.portCount,
    apiKeyVariable: dialect.apiKeyVariable,
    modelDigest: (modelRef) => verifiedDigest(pool, modelRef),
    adapter: ({ baseUrl, ports, modelRef, apiKey }) => {
      const [, ...otherPorts] = ports;
      const expectedModelId = provision.modelId(modelRef);
      return dialect.adapter({
        baseUrl,
        ...(apiKey !== null && { apiKey }),
        idleTimeoutMs: pool.timeouts.idle_ms,
        connections: pool.slots + PROBE_CONNECTIONS,
        servedModel: modelRef,
        ...(expectedModelId !== null && { expectedModelId }),
        slots: pool.slots,
        contextLength: pool.ctx,
        otherUrls: provision.spawns ? otherPorts.map(loopbackUrl) : metricsEndpoint(pool),
      });
    },
  };
}

export function loopbackUrl(port: number): string {
  return `http://127.0.0.1:${port}`;
}

function metricsEndpoint(pool: PoolConfig): readonly string[] {
  return pool.metrics_endpoint === undefined ? [] : [pool.metrics_endpoint];
}

function provisionFor(pool: PoolConfig, dialect: Dialect, env: RecipeEnvironment): Provision {
  switch (pool.provisioning.mode) {
    case 'simulated':
      return simulated(pool, dialect, env);
    case 'external':
      return external(pool, dialect);
    default:
      return prepared(pool, dialect, env);
  }
}

/** Of an engine that somebody else runs the model is not ours to look at. */
function verifiedDigest(pool: PoolConfig, modelRef: string): string | null {
  const digest = pool.provisioning.mode === 'external' ? null : promisedDigest(pool, modelRef);
  return digest === null ? null : `sha256:${digest}`;
}

function nothingToLaunch(): never {
  throw new Error('an engine of this pool is not launched');
}

function external(pool: PoolConfig, dialect: Dialect): Provision {
  return {
    spawns: false,
    endpoint: pool.endpoint ?? null,
    simulated: false,
    determinism: dialect.determinism(null),
    workloads: dialect.workloads(null),
    workloadFixes: dialect.workloadFixes,
    readyDeadlineMs: ATTACH_DEADLINE_MS,
    modelId: () => null,
    memory: () => null,
    check: () => null,
    launch: nothingToLaunch,
  };
}

function simulated(pool: PoolConfig, dialect: Dialect, env: RecipeEnvironment): Provision {
  const sim = pool.provisioning.simulated ?? SIM_DEFAULTS;
  return {
    spawns: true,
    endpoint: null,
    simulated: true,
    determinism: { claim: 'byte_exact', because: 'the simulator depends on model, prompt, seed and sampling alone' },
    workloads: dialect.workloads(launchedAs(pool)),
    workloadFixes: dialect.workloadFixes,
    readyDeadlineMs: readyDeadlineMs(pool, dialect),
    modelId: (modelRef) => modelRef,
    memory: () => ({ kind: 'claimed', bytes: sim.vram_bytes }),
    check: () => null,
    launch: ({ modelRef, ports, apiKey }): LaunchSpec => {
      const [port = 0, ...others] = ports;
      const real = dialect.launch(
        launchOf(pool, { binaryPath: '', model: modelRef, modelRef, ports, gpuUuids: [], gpuIndices: [] }),
      );
      return {
        file: env.nodeBinary,
        args: [
          env.simEntry,
          ...['--protocol', pool.engine, '--port', String(port), '--model', modelRef],
          ...(dialect.metricsPort === null ? [] : ['--metrics-port', String(others[dialect.metricsPort - 1] ?? 0)]),
          ...['--ctx', String(pool.ctx), '--slots', String(pool.slots)],
          ...['--tokens-per-second', String(sim.tokens_per_second), '--first-token-ms', String(sim.first_token_ms)],
          ...['--load-ms', String(sim.load_ms)],
          ...pool.provisioning.flags,
        ],
        env: {
          ...pool.provisioning.env,
          ...(dialect.apiKeyVariable !== null && { [dialect.apiKeyVariable]: apiKey }),
        },
        ready: real.ready,
        logPatterns: real.logPatterns,
        stop: { ...real.stop, drainWindowMs: SIM_DRAIN_WINDOW_MS },
      };
    },
  };
}

/** An engine that was made ready on this host before: a program, or an image. */
function prepared(pool: PoolConfig, dialect: Dialect, env: RecipeEnvironment): Provision {
  const { configDir } = env;
  return {
    spawns: true,
    endpoint: null,
    simulated: false,
    determinism: dialect.determinism(launchedAs(pool)),
    workloads: dialect.workloads(launchedAs(pool)),
    workloadFixes: dialect.workloadFixes,
    readyDeadlineMs: readyDeadlineMs(pool, dialect),
    modelId: (modelRef) => (dialect.namesModelBySource ? modelSource(pool, configDir, modelRef) : modelRef),
    memory: (modelRef) => ggufPlan(pool, dialect, env, modelRef),
    check: (modelRef) => filesObstacle(pool, env, modelRef),
    launch: (facts): LaunchSpec => {
      const spec = preparedLaunch(pool, dialect, env, facts);
      if (!env.simulatedGpus) return spec;
      // Whoever pretends GPUs has chosen to run without: an engine on the CPU is what was asked for.
      return { ...spec, logPatterns: spec.logPatterns.filter(({ fault }) => fault !== 'CPU_FALLBACK') };
    },
  };
}

function launchedAs({ slots, provisioning }: PoolConfig) {
  return { slots, extraArgs: provisioning.flags, extraEnv: provisioning.env };
}

function preparedLaunch(pool: PoolConfig, dialect: Dialect, env: RecipeEnvironment, facts: LaunchFacts): LaunchSpec {
  const { modelRef, gpuUuids } = facts;
  const { prepared: made } = planOf(pool, env, { modelRef, present: true });
  const model = modelSource(pool, env.configDir, modelRef) ?? '';
  const mayReachHub = isListed(MODEL_HUB, env.allowHosts);
  const launch = { ...facts, model, mayReachHub, binaryPath: made.binaryPath ?? '' };
  if (made.image === null) return dialect.launch(launchOf(pool, launch));
  // Inside there are no other GPUs, so theirs are the first places.
  const inside = { ...launch, gpuIndices: gpuUuids.map((_, place) => place) };
  const path = modelPath(pool, env.configDir, modelRef);
  const { containerEnv } = env;
  const container = { engine: pool.engine, prepared: made, modelPath: path, gpuUuids, containerEnv };
  return inContainer(dialect.launch(launchOf(pool, inside)), container);
}

function ggufPlan(pool: PoolConfig, dialect: Dialect, env: RecipeEnvironment, modelRef: string): MemoryPlan | null {
  const path = modelSource(pool, env.configDir, modelRef);
  if (!dialect.readsGguf || path === null || changesMemory(pool.provisioning.flags)) return null;
  return {
    ...{ kind: 'gguf', path, contextPerSlot: pool.ctx, slots: pool.slots, ratios: pool.tensor_split ?? null },
  } as const;
}

function readyDeadlineMs(pool: PoolConfig, dialect: Dialect): number {
  const nothing = { binaryPath: '', model: '', modelRef: '', ports: [], gpuUuids: [], gpuIndices: [] };
  return dialect.launch(launchOf(pool, nothing)).ready.deadlineMs;
}

function launchOf(
  pool: PoolConfig,
  facts: Pick<EngineLaunch, 'binaryPath' | 'model' | 'ports' | 'gpuUuids' | 'gpuIndices'> & {
    modelRef: string;
    apiKey?: string;
    mayReachHub?: boolean;
  },
): EngineLaunch {
  const { modelRef, ...rest } = facts;
  return {
    ...rest,
    servedName: modelRef,
    contextPerSlot: pool.ctx,
    slots: pool.slots,
    ...(pool.tensor_split !== undefined && { tensorSplit: pool.tensor_split }),
    extraArgs: pool.provisioning.flags,
    extraEnv: pool.provisioning.env,
  };
}

type FilesEnvironment = Pick<RecipeEnvironment, 'configDir' | 'fileExists'>;

/** What of a launched engine's files the operator has yet to put there. */
export function filesObstacle(pool: PoolConfig, env: FilesEnvironment, modelRef: string): Reason | null {
  return binaryObstacle(pool, env) ?? modelObstacle(pool, env, modelRef);
}

/** Of a program that the operator put there; what we bring here ourselves need not be there yet. */
function binaryObstacle({ provisioning }: PoolConfig, env: FilesEnvironment): Reason | null {
  const { mode, binary } = provisioning;
  const path = mode === 'binary' && binary !== undefined ? pathOfFileUrl(binary.url) : null;
  if (path === null || env.fileExists(path)) return null;
  return {
    code: 'ENGINE_MISSING',
    message: `the engine binary ${path} does not exist`,
    fix: 'Install it there, or correct provisioning.binary.url.',
  };
}

function modelObstacle(pool: PoolConfig, env: FilesEnvironment, modelRef: string): Reason | null {
  const model = modelSource(pool, env.configDir, modelRef);
  if (model === null) {
    return {
      code: 'MODEL_REF_INVALID',
      message: `the model reference ${modelRef} is neither a file URL nor a name`,
      fix: 'Write file:///absolute/path, file:path relative to the configuration file, or a name that does not begin with a dash.',
    };
  }
  if (!isAbsolute(model)) return null;
  if (pool.provisioning.mode === 'container' && !isMountable(model)) {
    return {
      code: 'MODEL_REF_INVALID',
      message: `the model ${model} cannot be mounted in a container: its path has a comma, a quote or a line break`,
      fix: 'Give it another name.',
    };
  }
  if (env.fileExists(model)) return null;
  return {
    code: 'MODEL_MISSING',
    message: `the model ${model} does not exist`,
    fix: 'Put the model there, or correct the model reference.',
  };
}
