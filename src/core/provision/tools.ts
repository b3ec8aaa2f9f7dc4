/** Programs that plans need: where they may be found, and what to paste where they are not. Pure. */
import type { Reason } from '../pool.js';
import type { PackageManager, ProvisionHost, ProvisionStep } from './plan.js';

/** Names under which a tool may be found, and the package that has it. */
const TOOLS = {
  git: { names: ['git'], packages: { 'apt-get': 'git', dnf: 'git', zypper: 'git', pacman: 'git' } },
  cmake: { names: ['cmake'], packages: { 'apt-get': 'cmake', dnf: 'cmake', zypper: 'cmake', pacman: 'cmake' } },
  compiler: {
    names: ['c++', 'g++', 'clang++'],
    packages: { 'apt-get': 'g++', dnf: 'gcc-c++', zypper: 'gcc-c++', pacman: 'gcc' },
  },
  make: { names: ['make'], packages: { 'apt-get': 'make', dnf: 'make', zypper: 'make', pacman: 'make' } },
  ninja: {
    names: ['ninja'],
    packages: { 'apt-get': 'ninja-build', dnf: 'ninja-build', zypper: 'ninja', pacman: 'ninja' },
  },
  nvcc: {
    names: ['nvcc'],
    packages: { 'apt-get': 'nvidia-cuda-toolkit', dnf: 'cuda-toolkit', zypper: 'cuda-toolkit', pacman: 'cuda' },
  },
  container: {
    names: ['podman', 'docker'],
    packages: { 'apt-get': 'podman', dnf: 'podman', zypper: 'podman', pacman: 'podman' },
  },
} as const;
export type Tool = keyof typeof TOOLS;

const INSTALL: Readonly<Record<PackageManager, string>> = {
  'apt-get': 'sudo apt-get install -y',
  dnf: 'sudo dnf install -y',
  zypper: 'sudo zypper install -y',
  pacman: 'sudo pacman -S --needed',
};

/** Every program that a plan may ask for. */
export const TOOL_NAMES: readonly string[] = Object.values(TOOLS).flatMap(({ names }) => names);

export function toolPath(tool: Tool, { tools }: ProvisionHost): string | null {
  for (const name of TOOLS[tool].names) {
    const path = tools[name] ?? null;
    if (path !== null) return path;
  }
  return null;
}

export function toolObstacles(wanted: readonly Tool[], host: ProvisionHost): Reason[] {
  const missing = wanted.filter((tool) => toolPath(tool, host) === null);
  if (missing.length === 0) return [];
  const names = missing.map((tool) => TOOLS[tool].names.join(' or ')).join(', ');
  const manager = host.packageManager ?? 'apt-get';
  const line = `${INSTALL[manager]} ${missing.map((tool) => TOOLS[tool].packages[manager]).join(' ')}`;
  const fix = `Install what is missing, then resume the pool: ${line}`;
  return [{ code: 'TOOL_MISSING', message: `not found on the PATH: ${names}`, fix }];
}

export function checkTools(wanted: readonly Tool[]): ProvisionStep {
  const tools = wanted.map((tool) => TOOLS[tool].names.join(' or '));
  return { kind: 'check_tools', name: 'check_tools', summary: `find ${tools.join(', ')}`, tools };
}
