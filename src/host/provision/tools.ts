/** Which programs this host has. */
import { accessSync, constants, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, isAbsolute, join } from 'node:path';
import type { PackageManager, ProvisionHost } from '../../core/provision/plan.js';
import { TOOL_NAMES } from '../../core/provision/tools.js';

/** CUDA's installers leave its compiler off the PATH. */
const CUDA_FOLDER = '/usr/local/cuda/bin';
const MANAGERS: readonly PackageManager[] = ['apt-get', 'dnf', 'zypper', 'pacman'];

/** True for a regular file that this user may execute. */
export function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function find(name: string, searchPath: string): string | null {
  const folders = searchPath.split(delimiter).filter(isAbsolute);
  return folders.map((folder) => join(folder, name)).find(isProgram) ?? null;
}

/** What plans ask of this host, as it is now. */
export function readHostTools(searchPath: string): Omit<ProvisionHost, 'present'> {
  const path = `${searchPath}${delimiter}${CUDA_FOLDER}`;
  return {
    tools: Object.fromEntries(TOOL_NAMES.map((name) => [name, find(name, path)])),
    packageManager: MANAGERS.find((name) => find(name, searchPath) !== null) ?? null,
    isRoot: process.getuid?.() === 0,
    jobs: availableParallelism(),
  };
}
