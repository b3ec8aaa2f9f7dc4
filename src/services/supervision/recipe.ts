/** How the replicas of a pool are made: which process (if any), and which dialect speaks to it. No effects. */
import { isAbsolute, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PoolConfig } from '../../config/schema.js';
import type { Reason } from '../../core/pool.js';
import type { EngineAdapter, LaunchSpec } from '../../engines/adapter.js';
import { createLlamaCppAdapter } from '../../engines/llamacpp/adapter.js';
import { llamaCppLaunch } from '../../engines/llamacpp/launch.js';

export interface LaunchFacts {
  readonly modelRef: string;
  readonly port: number;
  readonly apiKey: string;
  readonly gpuUuids: readonly string[];
}

export interface Recipe {
  /** False: somebody else runs the engine; we only attach to `endpoint`. */
  readonly spawns: boolean;
  readonly endpoint: string | null;
  readonly simulated: boolean;
  readonly vramBytes: number;
  /** Says what stands in the way of a start, before anything is started. */
  check(modelRef: string): Reason | null;
  launch(facts: LaunchFacts): LaunchSpec;
  adapter(facts: { readonly baseUrl: string; readonly apiKey: string | null }): EngineAdapter;
}

export interface RecipeEnvironment {
  /** The built simulator program. */
  readonly simEntry: string;
  readonly nodeBinary: string;
  readonly configDir: string;
  readonly fileExists: (path: string) => boolean;
}

/** Extra connections beside one per slot: health, metrics, token counts. */
const PROBE_CONNECTIONS = 8;
const SIM_STOP_GRACE_MS = 2_000;

export function recipeFor(pool: PoolConfig, env: RecipeEnvironment): Recipe {
  const base = {
    endpoint: null,
    simulated: false,
    vramBytes: 0,
    adapter: ({ baseUrl, apiKey }: { baseUrl: string; apiKey: string | null }) =>
      createLlamaCppAdapter({
        baseUrl,
        ...(apiKey === null ? {} : { apiKey }),
        idleTimeoutMs: pool.timeouts.idle_ms,
        connections: pool.slots + PROBE_CONNECTIONS,
      }),
  };
  if (pool.engine !== 'llamacpp') return unbuilt(base, `the ${pool.engine} adapter is not built yet`);
  switch (pool.provisioning.mode) {
    case 'simulated':
      return { ...base, ...simulatedRecipe(pool, env) };
    case 'binary':
      return { ...base, ...binaryRecipe(pool, env) };
    case 'external':
      return {
        ...base,
        spawns: false,
        endpoint: pool.endpoint ?? null,
        check: () => null,
        launch: () => nothingToLaunch(),
      };
    default:
      return unbuilt(base, `provisioning mode ${pool.provisioning.mode} is not built yet`);
  }
}

function nothingToLaunch(): never {
  throw new Error('an external engine is not launched');
}

function unbuilt(base: Pick<Recipe, 'endpoint' | 'simulated' | 'vramBytes' | 'adapter'>, message: string): Recipe {
  const reason = {
    code: 'NOT_BUILT',
    message,
    fix: 'Use engine llamacpp with provisioning mode simulated, binary or external.',
  };
  return { ...base, spawns: true, check: () => reason, launch: () => nothingToLaunch() };
}

function simulatedRecipe(pool: PoolConfig, env: RecipeEnvironment) {
  const sim = pool.provisioning.simulated ?? { tokens_per_second: 40, first_token_ms: 50, load_ms: 200, vram_bytes: 0 };
  return {
    spawns: true,
    simulated: true,
    vramBytes: sim.vram_bytes,
    check: () => null,
    launch: (facts: LaunchFacts): LaunchSpec => ({
      file: env.nodeBinary,
      args: [
        env.simEntry,
        ...['--protocol', pool.engine, '--port', String(facts.port), '--model', facts.modelRef],
        ...['--ctx', String(pool.ctx), '--slots', String(pool.slots)],
        ...['--tokens-per-second', String(sim.tokens_per_second), '--first-token-ms', String(sim.first_token_ms)],
        ...['--load-ms', String(sim.load_ms)],
        ...pool.provisioning.flags,
      ],
      env: { ...pool.provisioning.env, LLAMA_API_KEY: facts.apiKey },
      stopGraceMs: SIM_STOP_GRACE_MS,
    }),
  };
}

function binaryRecipe(pool: PoolConfig, env: RecipeEnvironment) {
  const url = pool.provisioning.binary?.url ?? '';
  const binaryPath = url.startsWith('file:') ? fileURLToPath(url) : null;
  return {
    spawns: true,
    check: (modelRef: string): Reason | null => {
      if (binaryPath === null) {
        return {
          code: 'NOT_BUILT',
          message: 'downloading an engine binary is not built yet',
          fix: 'Give provisioning.binary.url as file:///path.',
        };
      }
      if (!env.fileExists(binaryPath)) {
        return {
          code: 'ENGINE_MISSING',
          message: `the engine binary ${binaryPath} does not exist`,
          fix: 'Install it there, or correct provisioning.binary.url.',
        };
      }
      const modelPath = modelFile(modelRef, env.configDir);
      if (!env.fileExists(modelPath)) {
        return {
          code: 'MODEL_MISSING',
          message: `the model file ${modelPath} does not exist`,
          fix: 'Put the model there, or correct the model reference.',
        };
      }
      return null;
    },
    launch: (facts: LaunchFacts): LaunchSpec =>
      llamaCppLaunch({
        binaryPath: binaryPath ?? '',
        modelPath: modelFile(facts.modelRef, env.configDir),
        port: facts.port,
        contextPerSlot: pool.ctx,
        slots: pool.slots,
        gpuUuids: facts.gpuUuids,
        apiKey: facts.apiKey,
        extraArgs: ['--alias', facts.modelRef, ...pool.provisioning.flags],
        extraEnv: pool.provisioning.env,
      }),
  };
}

/** `file:/abs`, `file:rel` and plain paths; relative ones start at the configuration file. */
function modelFile(modelRef: string, configDir: string): string {
  if (modelRef.startsWith('file://')) return fileURLToPath(modelRef);
  const path = modelRef.startsWith('file:') ? modelRef.slice('file:'.length) : modelRef;
  return isAbsolute(path) ? path : resolve(configDir, path);
}
