/** Under which name it is kept how much GPU memory an engine was seen to take: one for what it loads, one for how it is started. */
import { statSync } from 'node:fs';
import type { LaunchSpec } from '../../engines/launch.js';
import type { VramPeakKey } from '../../store/vramPeaks.js';
import type { MemoryPlan } from './memory.js';
import type { Recipe } from './recipe.js';

export interface StartedAs {
  readonly recipe: Recipe;
  readonly modelRef: string;
  readonly plan: MemoryPlan | null;
  readonly contextLength: number;
  readonly slots: number;
  readonly gpuUuids: readonly string[];
  readonly gpuIndices: readonly number[];
}

const SIMULATED_VRAM_FLAG = '--vram-bytes';
const SECRET_NAME = /KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL/i;

/** Null for what somebody else starts. */
export function peakKeyOf(start: StartedAs, hash: (text: string) => string): VramPeakKey | null {
  const { recipe, modelRef, plan, contextLength, slots, gpuUuids } = start;
  if (!recipe.spawns) return null;
  const { args, env } = launchOf(start);
  const path = plan?.kind === 'gguf' ? plan.path : null;
  const flags = {
    args: args.filter((arg) => arg !== path),
    env: Object.entries(env).filter(([name]) => !SECRET_NAME.test(name)),
    ...{ contextLength, slots, gpuUuids, claimed: plan?.kind === 'claimed' ? plan.bytes : null },
  };
  const modelKey = recipe.modelDigest(modelRef) ?? fileKey(path) ?? `ref:${modelRef}`;
  return { modelKey, flagsKey: hash(JSON.stringify(flags)) };
}

/** Ports and key differ at every start and change nothing. */
function launchOf({ recipe, modelRef, gpuUuids, gpuIndices }: Omit<StartedAs, 'plan'>): LaunchSpec {
  const ports = Array.from({ length: recipe.portCount }, () => 0);
  return recipe.launch({ modelRef, ports, apiKey: '', gpuUuids, gpuIndices });
}

/** What a simulator is told to need; null: nothing, or it is none. */
export function simulatedBytesOf(start: Omit<StartedAs, 'plan'>): number | null {
  if (!start.recipe.simulated) return null;
  const { args } = launchOf(start);
  const at = args.lastIndexOf(SIMULATED_VRAM_FLAG);
  const text = at < 0 ? undefined : args[at + 1];
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** Another size or time of change is another model. */
function fileKey(path: string | null): string | null {
  const stat = path === null ? undefined : statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? null : `file:${path}:${stat.size}:${stat.mtimeNs}`;
}
