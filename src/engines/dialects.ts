/** The engines we speak to. Everything outside this folder chooses a dialect here and knows only its contract. */
import type { Engine } from '../core/errors.js';
import type { Offers, Workload } from '../core/workload.js';
import type { EngineAdapter } from './adapter.js';
import type { EngineEndpoint } from './client.js';
import type { DeterminismClaim, EngineLaunch, LaunchedAs, LaunchSpec } from './launch.js';
import { createLlamaCppAdapter } from './llamacpp/adapter.js';
import { LLAMACPP_WORKLOAD_FIXES, llamaCppDeterminism, llamaCppLaunch, llamaCppWorkloads } from './llamacpp/launch.js';
import { createTgiAdapter } from './tgi/adapter.js';
import { tgiDeterminism, tgiLaunch } from './tgi/launch.js';
import { createTritonAdapter } from './triton/adapter.js';
import { tritonDeterminism, tritonLaunch } from './triton/launch.js';
import { createVllmAdapter } from './vllm/adapter.js';
import { VLLM_WORKLOAD_FIXES, vllmDeterminism, vllmLaunch, vllmWorkloads } from './vllm/launch.js';

/** What is known of an engine from outside; a dialect uses what its engine does not tell. */
export interface AdapterFacts extends EngineEndpoint {
  /** The name under which it serves the model. */
  readonly servedModel: string;
  readonly slots: number;
  readonly contextLength: number;
  /** URLs of the engine's other ports, in the order of `portCount`. */
  readonly otherUrls: readonly string[];
}

export interface Dialect {
  /** Ports one process listens on. */
  readonly portCount: number;
  /** Which of them serves metrics, where that is not the first. */
  readonly metricsPort: number | null;
  /** The environment variable that carries the API key; null: the engine has no keys. */
  readonly apiKeyVariable: string | null;
  /** Models are GGUF files, whose header tells what they need. */
  readonly readsGguf: boolean;
  /** A model reference is always a path, never a name in a hub. */
  readonly readsFilesOnly: boolean;
  /** It calls its model by where it found it, whatever name it should serve it under. */
  readonly namesModelBySource: boolean;
  /** Launched with a folder of models, of which requests name one. */
  readonly servesRepository: boolean;
  launch(launch: EngineLaunch): LaunchSpec;
  adapter(facts: AdapterFacts): EngineAdapter;
  determinism(launched: LaunchedAs): DeterminismClaim;
  /** What it may take, started like this; whether it does is tried when it is up. */
  workloads(launched: LaunchedAs): readonly Workload[];
  /** What has to be done for it to take what it does not. */
  readonly workloadFixes: Offers;
}

const ONLY_GENERATES = 'this engine only generates; use a pool of llamacpp or vllm';

const COMMON = {
  workloads: (): readonly Workload[] => ['completion'],
  workloadFixes: { completion: null, embedding: ONLY_GENERATES, rerank: ONLY_GENERATES },
  ...{ portCount: 1, metricsPort: null },
  ...{ readsGguf: false, readsFilesOnly: false, namesModelBySource: false, servesRepository: false },
} as const;

export const DIALECTS: Readonly<Record<Engine, Dialect>> = {
  llamacpp: {
    ...COMMON,
    apiKeyVariable: 'LLAMA_API_KEY',
    readsGguf: true,
    readsFilesOnly: true,
    launch: llamaCppLaunch,
    adapter: createLlamaCppAdapter,
    determinism: llamaCppDeterminism,
    workloads: llamaCppWorkloads,
    workloadFixes: LLAMACPP_WORKLOAD_FIXES,
  },
  vllm: {
    ...COMMON,
    apiKeyVariable: 'VLLM_API_KEY',
    launch: vllmLaunch,
    adapter: createVllmAdapter,
    determinism: vllmDeterminism,
    workloads: vllmWorkloads,
    workloadFixes: VLLM_WORKLOAD_FIXES,
  },
  tgi: {
    ...COMMON,
    portCount: 3,
    apiKeyVariable: 'API_KEY',
    namesModelBySource: true,
    launch: tgiLaunch,
    adapter: createTgiAdapter,
    determinism: tgiDeterminism,
  },
  triton: {
    ...COMMON,
    portCount: 2,
    metricsPort: 1,
    apiKeyVariable: null,
    readsFilesOnly: true,
    servesRepository: true,
    launch: tritonLaunch,
    adapter: ({ otherUrls: [metricsUrl], servedModel: model, ...facts }) =>
      createTritonAdapter({ ...facts, model, ...(metricsUrl !== undefined && { metricsUrl }) }),
    determinism: tritonDeterminism,
  },
};
