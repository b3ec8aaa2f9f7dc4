/** An engine built from its sources: cloned at a ref, built by CMake. Pure. */
import type { Reason } from '../pool.js';
import {
  checkBinary,
  FETCH_DEADLINE_MS,
  hostRefusal,
  NO_PART,
  NOTHING,
  type Part,
  type ProvisionFacts,
  type ProvisionHost,
  type ProvisionStep,
} from './plan.js';
import { checkTools, type Tool, toolObstacles, toolPath } from './tools.js';

const BUILD_DEADLINE_MS = 4 * 3_600_000;
const QUICK_DEADLINE_MS = 60_000;

type SourceFacts = NonNullable<ProvisionFacts['source']>;

export function sourcePart(facts: ProvisionFacts, source: SourceFacts, host: ProvisionHost): Part {
  const { folder } = facts;
  const flags = cmakeFlags(facts, source, host);
  const buildRef = `${source.repo}@${source.ref}`;
  if (facts.engine !== 'llamacpp') {
    const message = `${facts.engine} is not built from source here`;
    const fix = 'Use provisioning mode container, or build it yourself and use mode binary or external.';
    return { ...NO_PART, buildRef, obstacles: [{ code: 'UNSUPPORTED', message, fix }] };
  }
  const binaryPath = `${folder}/build/bin/llama-server`;
  const prepared = { ...NOTHING, binaryPath, flags };
  const check = checkBinary(binaryPath, null);
  if (host.present) return { buildRef, digest: null, steps: [check], prepared, obstacles: [] };
  const wanted = sourceTools(flags, source);
  const steps = [
    checkTools(wanted),
    ...cloneSteps(folder, source, host),
    ...buildSteps(folder, source, flags, host),
    check,
  ];
  const obstacles = [...toolObstacles(wanted, host), ...cloneObstacles(facts, source)];
  return { buildRef, digest: null, steps, prepared, obstacles };
}

function cloneObstacles(facts: ProvisionFacts, { repo }: SourceFacts): Reason[] {
  return repo.startsWith('file:') ? [] : hostRefusal(facts, repo);
}

function sourceTools(flags: readonly string[], { generator }: SourceFacts): Tool[] {
  const usesNinja = generator?.startsWith('Ninja') === true;
  const usesCuda = flags.some((flag) => /^-DGGML_CUDA(?::BOOL)?=(?:ON|1|TRUE|YES)$/i.test(flag));
  return ['git', 'cmake', 'compiler', usesNinja ? 'ninja' : 'make', ...(usesCuda ? (['nvcc'] as const) : [])];
}

/** Ours first, so that the user's win; each option once, in the order of its name. */
function cmakeFlags(facts: ProvisionFacts, source: SourceFacts, host: ProvisionHost): readonly string[] {
  const nvcc = toolPath('nvcc', host);
  const ours = [
    '-DCMAKE_BUILD_TYPE=Release',
    // One program that needs nothing beside itself.
    '-DBUILD_SHARED_LIBS=OFF',
    // What the build would fetch by itself is not seen by policy.
    '-DFETCHCONTENT_FULLY_DISCONNECTED=ON',
    '-DLLAMA_BUILD_TESTS=OFF',
    `-DGGML_CUDA=${facts.cuda ? 'ON' : 'OFF'}`,
    ...(facts.cuda && nvcc !== null ? [`-DCMAKE_CUDA_COMPILER=${nvcc}`] : []),
  ];
  const byName = new Map([...ours, ...source.cmakeFlags].map((flag) => [flag.split(/[:=]/)[0], flag]));
  return [...byName.values()].sort();
}

/** Git is told to stay with the host it was given and to take no other way than the URL says. */
const GIT_RULES = [
  'http.followRedirects=false',
  'advice.detachedHead=false',
  'maintenance.auto=false',
  'gc.auto=0',
].flatMap((rule) => ['-c', rule]);

function cloneSteps(folder: string, { repo, ref, submodules }: SourceFacts, host: ProvisionHost): ProvisionStep[] {
  const git = toolPath('git', host) ?? 'git';
  const at = `${folder}/source`;
  const program = (name: string, summary: string, args: readonly string[], deadlineMs: number): ProvisionStep => {
    return { kind: 'program', name, summary, argv: [git, ...GIT_RULES, ...args], deadlineMs };
  };
  return [
    // A git that was killed leaves locks behind, on which every later one gives up.
    { kind: 'clear_folder', name: 'clear_source', summary: `remove ${at}, if an earlier try left it`, path: at },
    program('git_init', `make a repository in ${at}`, ['init', '--quiet', at], QUICK_DEADLINE_MS),
    program(
      'git_remote',
      `name ${repo} as its origin`,
      ['-C', at, 'config', 'remote.origin.url', repo],
      QUICK_DEADLINE_MS,
    ),
    program('git_fetch', `fetch ${ref} alone`, ['-C', at, 'fetch', '--depth', '1', 'origin', ref], FETCH_DEADLINE_MS),
    program(
      'git_checkout',
      'check it out',
      ['-C', at, 'checkout', '--force', '--detach', 'FETCH_HEAD'],
      FETCH_DEADLINE_MS,
    ),
    ...(submodules ? submoduleSteps(at, repo, git, program) : []),
  ];
}

/** Git itself says where they come from: it reads their list in ways of its own and makes relative URLs whole. */
function submoduleSteps(
  at: string,
  repo: string,
  git: string,
  program: (name: string, summary: string, args: readonly string[], deadlineMs: number) => ProvisionStep,
): ProvisionStep[] {
  const summary = 'check the hosts that its submodules come from';
  return [
    program('git_submodule_init', 'set its submodules up', ['-C', at, 'submodule', 'init'], QUICK_DEADLINE_MS),
    { kind: 'check_submodules', name: 'check_submodules', summary, git, at, repo },
    program(
      'git_submodules',
      'fetch its submodules',
      ['-C', at, 'submodule', 'update', '--depth', '1'],
      FETCH_DEADLINE_MS,
    ),
  ];
}

function buildSteps(
  folder: string,
  { generator }: SourceFacts,
  flags: readonly string[],
  host: ProvisionHost,
): ProvisionStep[] {
  const cmake = toolPath('cmake', host) ?? 'cmake';
  const build = `${folder}/build`;
  const jobs = ['--parallel', String(host.jobs)];
  return [
    {
      kind: 'program',
      name: 'cmake_configure',
      summary: `configure the build in ${build}`,
      argv: [cmake, '-S', `${folder}/source`, '-B', build, ...(generator === null ? [] : ['-G', generator]), ...flags],
      deadlineMs: FETCH_DEADLINE_MS,
    },
    {
      kind: 'program',
      name: 'cmake_build',
      summary: 'build llama-server',
      argv: [cmake, '--build', build, '--config', 'Release', '--target', 'llama-server', ...jobs],
      deadlineMs: BUILD_DEADLINE_MS,
    },
  ];
}
