/** Carries out one step of a plan. */
import { rm } from 'node:fs/promises';
import type { ProvisionPlan, ProvisionStep } from '../../core/provision/plan.js';
import { download } from '../../host/provision/download.js';
import { runProgram } from '../../host/provision/program.js';
import { ProvisionError } from '../../host/provision/provisionError.js';
import { checkSubmodules } from '../../host/provision/submodules.js';
import { isProgram } from '../../host/provision/tools.js';
import { type VerifyDeps, verifyFile } from './verify.js';

export interface StepDeps extends VerifyDeps {
  readonly allowHosts: readonly string[];
  /** Where programs run; it exists. */
  readonly cwd: string;
  readonly logFile: string;
  readonly mark: string;
}

export interface StepRun {
  readonly signal: AbortSignal;
  readonly say: (detail: string) => void;
}

/** Rejects with a ProvisionError, or with the signal's reason. */
export async function carryOut(step: ProvisionStep, deps: StepDeps, run: StepRun): Promise<void> {
  run.say(step.summary);
  switch (step.kind) {
    case 'check_tools':
      return;
    case 'download':
      return download({ ...step, allowHosts: deps.allowHosts }, run);
    case 'program': {
      const { argv, deadlineMs } = step;
      const { cwd, logFile, mark } = deps;
      return runProgram({ argv, deadlineMs, cwd, logFile, mark, signal: run.signal });
    }
    case 'check_submodules':
      return checkSubmodules(step, deps.allowHosts, run.signal);
    case 'clear_folder':
      return rm(step.path, { recursive: true, force: true });
    case 'check_binary':
      return checkBinary(step, deps, run);
    case 'verify_model':
      return verifyFile(deps, { path: step.path, sha256: step.sha256, missingCode: 'MODEL_MISSING' }, run);
  }
}

async function checkBinary(
  { path, sha256 }: Extract<ProvisionStep, { kind: 'check_binary' }>,
  deps: StepDeps,
  run: StepRun,
): Promise<void> {
  if (sha256 !== null) await verifyFile(deps, { path, sha256, missingCode: 'ENGINE_MISSING' }, run);
  if (isProgram(path)) return;
  const fix = `Look whether it is there, and make it executable: chmod +x ${path}`;
  throw new ProvisionError('ENGINE_MISSING', `${path} is no program that can be run`, fix);
}

/** Whether the steps make something on this host, rather than only look at what is there. */
export function makesSomething({ steps }: ProvisionPlan): boolean {
  return steps.some(({ kind }) => kind === 'download' || kind === 'program');
}
