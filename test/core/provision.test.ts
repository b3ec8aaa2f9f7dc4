/** Plans: the same facts give the same plan, policy stands before every socket, and tools that are missing have a line to paste. */
import { describe, expect, it } from 'vitest';
import { egressRefusal } from '../../src/core/egress.js';
import { commandOf, type ProvisionFacts, type ProvisionHost } from '../../src/core/provision/plan.js';
import { planFor } from '../../src/core/provision/planFor.js';

const SHA = 'a'.repeat(64);
const HOST: ProvisionHost = {
  tools: {
    git: '/usr/bin/git',
    cmake: '/usr/bin/cmake',
    'c++': '/usr/bin/c++',
    make: '/usr/bin/make',
    nvcc: '/usr/local/cuda/bin/nvcc',
    podman: '/usr/bin/podman',
    docker: '/usr/bin/docker',
  },
  packageManager: 'apt-get',
  isRoot: false,
  jobs: 4,
  present: false,
};
const FACTS: ProvisionFacts = {
  poolId: 'chat',
  engine: 'llamacpp',
  mode: 'binary',
  policy: { allowBinaryDownloads: true, allowPackageInstalls: false, allowHosts: ['dl.test', 'github.com', 'ghcr.io'] },
  cuda: true,
  folder: '/home/o/engines/x',
  binary: { url: 'https://dl.test/b1/llama-server?x=1', path: null, sha256: SHA },
  source: {
    repo: 'https://github.com/ggml-org/llama.cpp',
    ref: 'b6000',
    submodules: false,
    cmakeFlags: ['-DGGML_CUDA_F16=ON'],
    generator: null,
  },
  container: { image: `ghcr.io/ggml-org/llama.cpp:server-cuda@sha256:${SHA}`, tag: null },
  package: { name: 'vllm', version: '0.11.0', repo: null },
  model: { path: '/models/m.gguf', sha256s: [] },
};
const off = { allowBinaryDownloads: false, allowPackageInstalls: false, allowHosts: [] };
const codes = (facts: Partial<ProvisionFacts>, host: Partial<ProvisionHost> = {}) =>
  planFor({ ...FACTS, ...facts }, { ...HOST, ...host }).obstacles.map(({ code }) => code);
const names = (facts: Partial<ProvisionFacts>, host: Partial<ProvisionHost> = {}) =>
  planFor({ ...FACTS, ...facts }, { ...HOST, ...host }).steps.map(({ name }) => name);

describe('plans', () => {
  it('are the same for the same facts', () => {
    for (const mode of ['binary', 'source', 'container', 'package', 'external', 'simulated'] as const) {
      const facts = { ...FACTS, mode };
      expect(JSON.stringify(planFor(facts, HOST))).toBe(JSON.stringify(planFor({ ...facts }, { ...HOST })));
    }
  });

  it('of engines that are not ours have nothing to do', () => {
    expect(names({ mode: 'external' })).toEqual([]);
    expect(names({ mode: 'simulated' })).toEqual([]);
  });

  it('verify a model whose digest is promised, last', () => {
    const model = { path: '/m.gguf', sha256s: [SHA] };
    expect(names({ model })).toEqual(['download', 'check_binary', 'verify_model']);
    expect(names({ mode: 'simulated', model })).toEqual(['verify_model']);
    expect(codes({ model: { path: null, sha256s: [SHA] } })).toEqual(['UNSUPPORTED']);
    expect(codes({ model: { path: '/m.gguf', sha256s: [SHA, 'b'.repeat(64)] } })).toEqual(['CHECKSUM_AMBIGUOUS']);
    expect(names({ mode: 'external', model })).toEqual([]);
  });

  it('refuse a checksum for a model in pieces, of which it is for one', () => {
    const of = (path: string) => codes({ model: { path, sha256s: [SHA] } });
    expect(of('/m-00001-of-00003.gguf')).toEqual(['UNSUPPORTED']);
    expect(of('/m-00001-of-00001.gguf')).toEqual([]);
    expect(codes({ model: { path: '/m-00001-of-00003.gguf', sha256s: [] } })).toEqual([]);
  });
});

describe('a binary', () => {
  it('is downloaded to a file named by its URL, and checked', () => {
    const plan = planFor(FACTS, HOST);
    expect(plan.steps[0]).toMatchObject({ kind: 'download', to: '/home/o/engines/x/llama-server', sha256: SHA });
    expect(plan.prepared.binaryPath).toBe('/home/o/engines/x/llama-server');
    expect(plan).toMatchObject({ obstacles: [], digest: SHA });
  });

  it.each([
    ['https://dl.test/', 'engine'],
    ['https://dl.test/a/..%2f..%2fetc', '.._2f.._2fetc'],
  ])('%s never leaves its folder', (url, name) => {
    const { prepared } = planFor({ ...FACTS, binary: { url, path: null, sha256: SHA } }, HOST);
    expect(prepared.binaryPath).toBe(`${FACTS.folder}/${name}`);
  });

  it('that is an archive is refused with a way out', () => {
    expect(codes({ binary: { url: 'https://dl.test/x.tar.gz', path: null, sha256: SHA } })).toEqual(['UNSUPPORTED']);
  });

  it('is not downloaded without policy, which is named; one that is there needs none', () => {
    const { obstacles } = planFor({ ...FACTS, policy: off }, HOST);
    expect(obstacles.map(({ fix }) => fix)).toEqual([
      'Set pools.chat.provisioning.allow_binary_downloads: true, if it may be.',
      'Add dl.test to network.allow_hosts, if it may be.',
    ]);
    expect(codes({ policy: off }, { present: true })).toEqual([]);
    expect(names({ policy: off }, { present: true })).toEqual(['check_binary']);
  });
});

describe('a source build', () => {
  const source = { mode: 'source' } as const;

  it('is cloned at its ref alone and built for CUDA', () => {
    expect(names(source)).toEqual([
      ...['check_tools', 'clear_source', 'git_init', 'git_remote', 'git_fetch', 'git_checkout'],
      ...['cmake_configure', 'cmake_build', 'check_binary'],
    ]);
    const plan = planFor({ ...FACTS, ...source }, HOST);
    const configure = plan.steps.flatMap((step) => (step.name === 'cmake_configure' ? commandOf(step) : []));
    expect(configure).toEqual(expect.arrayContaining(['-DGGML_CUDA=ON', '-DGGML_CUDA_F16=ON']));
    expect(configure).toContain('-DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc');
    expect(plan.prepared.flags).toEqual([...plan.prepared.flags].sort());
  });

  it('lets flags of the configuration win over ours', () => {
    const own = { ...FACTS.source, cmakeFlags: ['-DGGML_CUDA:BOOL=OFF'] } as ProvisionFacts['source'];
    const { prepared } = planFor({ ...FACTS, ...source, source: own }, HOST);
    expect(prepared.flags.filter((flag) => flag.startsWith('-DGGML_CUDA'))).toEqual(['-DGGML_CUDA:BOOL=OFF']);
    expect(codes({ ...source, source: own }, { tools: { ...HOST.tools, nvcc: null } })).toEqual([]);
  });

  it('names every missing tool with one line to paste', () => {
    const { obstacles } = planFor(
      { ...FACTS, ...source },
      { ...HOST, tools: { git: '/usr/bin/git', make: '/usr/bin/make' } },
    );
    expect(obstacles).toEqual([
      {
        code: 'TOOL_MISSING',
        message: 'not found on the PATH: cmake, c++ or g++ or clang++, nvcc',
        fix: 'Install what is missing, then resume the pool: sudo apt-get install -y cmake g++ nvidia-cuda-toolkit',
      },
    ]);
  });

  it('reaches only hosts that policy names, checks submodules before they are fetched, and is for llama.cpp', () => {
    expect(codes({ ...source, policy: off })).toEqual(['POLICY_REFUSED']);
    const withModules = { ...FACTS.source, submodules: true } as ProvisionFacts['source'];
    const steps = names({ ...source, source: withModules });
    const at = steps.indexOf('git_submodule_init');
    expect(steps.slice(at, at + 3)).toEqual(['git_submodule_init', 'check_submodules', 'git_submodules']);
    expect(codes({ ...source, engine: 'vllm' })).toEqual(['UNSUPPORTED']);
  });
});

describe('a container', () => {
  const mode = 'container' as const;
  const DOCKER = { tools: { docker: '/usr/bin/docker' }, isRoot: true };

  it('is pulled by digest with podman, else docker; a tag beside the digest goes', () => {
    const plan = planFor({ ...FACTS, mode }, HOST);
    expect(plan.prepared.image).toBe(`ghcr.io/ggml-org/llama.cpp@sha256:${SHA}`);
    expect(plan.steps.map(commandOf)).toEqual([null, ['/usr/bin/podman', 'pull', '--quiet', plan.prepared.image]]);
    const docker = planFor({ ...FACTS, mode }, { ...HOST, ...DOCKER });
    expect(docker.prepared.runtime).toEqual({ name: 'docker', path: '/usr/bin/docker' });
    expect(docker.obstacles).toEqual([]);
    expect(codes({ mode }, { tools: {} })).toEqual(['TOOL_MISSING']);
  });

  it('is not run by docker for a user who could not end it', () => {
    const { obstacles } = planFor({ ...FACTS, mode }, { ...HOST, ...DOCKER, isRoot: false });
    expect(obstacles).toMatchObject([{ code: 'UNSUPPORTED', fix: expect.stringContaining('Install podman') }]);
  });

  it.each([
    ['vllm/vllm-openai', 'docker.io/vllm/vllm-openai'],
    ['ubuntu', 'docker.io/library/ubuntu'],
    ['localhost:5000/a/b', 'localhost:5000/a/b'],
  ])('%s is %s', (image, full) => {
    const { prepared } = planFor({ ...FACTS, mode, container: { image, tag: `sha256:${SHA}` } }, HOST);
    expect(prepared.image).toBe(`${full}@sha256:${SHA}`);
  });

  it('that is not pinned, or whose registry policy does not name, is refused', () => {
    expect(codes({ mode, container: { image: 'ghcr.io/x', tag: 'latest' } })).toEqual(['UNPINNED']);
    expect(codes({ mode, policy: off })).toEqual(['POLICY_REFUSED', 'POLICY_REFUSED']);
    expect(codes({ mode, policy: off }, { present: true })).toEqual([]);
  });
});

describe('a package', () => {
  it('is planned and left to the operator, with the line to paste', () => {
    const allowed = { ...FACTS.policy, allowPackageInstalls: true };
    expect(codes({ mode: 'package', engine: 'vllm' })).toEqual(['POLICY_REFUSED', 'UNSUPPORTED']);
    const { obstacles } = planFor({ ...FACTS, mode: 'package', engine: 'vllm', policy: allowed }, HOST);
    expect(obstacles.map(({ fix }) => fix).join()).toContain('bin/pip install vllm==0.11.0');
  });
});

describe('egress', () => {
  it.each([
    ['https://github.com/x', ['github.com'], true],
    ['https://GitHub.com/x', ['github.com'], true],
    ['https://evilgithub.com/x', ['github.com'], false],
    ['https://a.example.com/x', ['*.example.com'], true],
    ['https://example.com/x', ['*.example.com'], false],
    ['https://example.com:8443/x', ['example.com:443'], false],
    ['https://example.com:8443/x', ['example.com:8443'], true],
    ['https://example.com/x', ['example.com:443'], true],
    ['https://a.example.com:8443/x', ['*.example.com:8443'], true],
    ['https://a.example.com/x', ['*.example.com:8443'], false],
    ['https://a.example.com/x', ['*.example.com:443'], true],
    ['http://127.0.0.1/x', ['127.0.0.1:80'], true],
    ['http://127.0.0.1/x', ['127.0.0.1:443'], false],
    ['http://127.0.0.1/x', ['*.0.0.1'], false],
    ['http://[::1]:9/x', ['[::1]:9'], true],
    ['http://[::1]:9/x', ['[::1]:8'], false],
    ['http://[::1]:9/x', ['[::1]'], true],
    ['http://example.com/x', ['example.com'], false],
    ['http://127.0.0.1:9/x', ['127.0.0.1'], true],
    ['http://2130706433/x', [], false],
    ['ftp://127.0.0.1/x', ['127.0.0.1'], false],
  ])('%s with %j: %s', (url, hosts, allowed) => {
    expect(egressRefusal(new URL(url), hosts) === null).toBe(allowed);
  });
});
