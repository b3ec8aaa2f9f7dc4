/** An engine in a container: the same engine with the same arguments, under the container runtime's own. No effects. */
import type { Engine } from '../../core/errors.js';
import type { PreparedFacts } from '../../core/provision/plan.js';
import type { LaunchSpec } from '../../engines/launch.js';
import { markVariable } from '../../host/process.js';

/** The program inside; null where the image starts its engine by itself and takes arguments for it. */
const PROGRAMS: Readonly<Record<Engine, string | null>> = {
  llamacpp: null,
  vllm: 'vllm',
  tgi: 'text-generation-launcher',
  triton: 'tritonserver',
};

export interface ContainerFacts {
  readonly engine: Engine;
  readonly prepared: PreparedFacts;
  /** Absolute file or folder, read from inside under the same path; null: the engine resolves a name. */
  readonly modelPath: string | null;
  readonly gpuUuids: readonly string[];
  /** Where the runtime finds the containers of this user. */
  readonly containerEnv: Readonly<Record<string, string>>;
}

/**
 * The network is the host's, so that the engine is on loopback as it would be outside, and no port of it elsewhere.
 * Variables go by name alone: their values, the API key among them, are in no argument. The mark goes in with them, so
 * that what runs inside is found as ours and ended with the rest. `--pull never`: what is run is what was prepared.
 */
export function inContainer(spec: LaunchSpec, facts: ContainerFacts): LaunchSpec {
  const { engine, prepared, modelPath, gpuUuids, containerEnv } = facts;
  const { runtime, image } = prepared;
  const program = PROGRAMS[engine];
  return {
    ...spec,
    file: runtime?.path ?? 'podman',
    args: [
      ...['run', '--rm', '--pull', 'never', '--network', 'host', '--ipc', 'host'],
      ...['--security-opt', 'no-new-privileges'],
      // Else the rules of SELinux keep the model from the engine.
      ...(runtime?.name === 'podman' ? ['--security-opt', 'label=disable'] : []),
      ...gpuArgs(runtime?.name === 'docker', gpuUuids),
      ...[markVariable, ...Object.keys(spec.env)].flatMap((name) => ['--env', name]),
      ...(modelPath === null ? [] : mountedFiles(modelPath).flatMap((path) => ['--mount', mountOf(path)])),
      ...(program === null ? [] : ['--entrypoint', program]),
      image ?? '',
      ...spec.args,
    ],
    env: { ...containerEnv, ...spec.env },
  };
}

function gpuArgs(isDocker: boolean, uuids: readonly string[]): readonly string[] {
  if (uuids.length === 0) return [];
  // The quotes keep docker from reading the comma as its own.
  if (isDocker) return ['--gpus', `"device=${uuids.join(',')}"`];
  return uuids.flatMap((uuid) => ['--device', `nvidia.com/gpu=${uuid}`]);
}

/** A comma would end the path. */
export function isMountable(path: string): boolean {
  return !/[,"\n]/.test(path);
}

function mountOf(path: string): string {
  return `type=bind,source=${path},target=${path},readonly`;
}

/** A GGUF model in pieces is all of its pieces. */
function mountedFiles(path: string): readonly string[] {
  const [, head = '', total = ''] = /^(.*-)\d{5}-of-(\d{5})\.gguf$/.exec(path) ?? [];
  if (total === '') return [path];
  const pieces = Math.min(Number(total), MAX_PIECES);
  return Array.from({ length: pieces }, (_, at) => `${head}${String(at + 1).padStart(5, '0')}-of-${total}.gguf`);
}

const MAX_PIECES = 256;
