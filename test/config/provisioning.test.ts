/** What becomes an argument of a program, or an address, is checked before anything is started with it. */
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/config/error.js';
import { parseConfig } from '../../src/config/load.js';

const SHA = `sha256:${'a'.repeat(64)}`;

function parse(provisioning: string, hosts = ''): unknown {
  return parseConfig(
    `network: { allow_hosts: [${hosts}] }\npools: [{ id: a, engine: llamacpp, model: m, provisioning: ${provisioning} }]`,
    'orch.yaml',
  );
}

function problem(provisioning: string, hosts = ''): string {
  try {
    parse(provisioning, hosts);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return 'accepted';
}

const source = (fields: string) => `{ mode: source, source: { ${fields} } }`;
const container = (image: string, tag = '') => `{ mode: container, container: { image: '${image}'${tag} } }`;

describe('accepted', () => {
  it.each([
    source('repo: https://github.com/ggml-org/llama.cpp, ref: b6000, build: { cmake_flags: ["-DGGML_CUDA=ON"] }'),
    source('repo: "file:///srv/llama.cpp", ref: v1.0/fix_2'),
    container(`ghcr.io/ggml-org/llama.cpp:server-cuda@${SHA}`),
    container('vllm/vllm-openai', `, tag: '${SHA}'`),
    container(`localhost:5000/engine@${SHA}`),
    container(`engine:abc@${SHA}`),
    container(`0999/engine@${SHA}`),
    `{ mode: binary, binary: { url: 'file:///opt/my%20engines/llama-server' } }`,
    `{ mode: binary, binary: { url: 'http://127.0.0.1:8000/x', checksum: '${SHA}' } }`,
    '{ mode: package, package: { name: "vllm[flashinfer]", version: 0.11.0 } }',
  ])('%s', (provisioning) => {
    expect(problem(provisioning)).toBe('accepted');
  });

  it.each(['github.com', '"*.githubusercontent.com"', 'mirror.corp:8443', '127.0.0.1', '"[::1]:80"', 'localhost'])(
    'host %s',
    (host) => {
      expect(problem(container('a/b'), host)).toBe('accepted');
    },
  );
});

describe('refused, by its path', () => {
  it.each([
    [source('repo: "ext::sh -c id", ref: b1'), 'source.repo'],
    [source('repo: "git@github.com:a/b", ref: b1'), 'source.repo'],
    [source('repo: "ssh://github.com/a", ref: b1'), 'source.repo'],
    [source('repo: "http://github.com/a", ref: b1'), 'source.repo'],
    [source('repo: "--upload-pack=id", ref: b1'), 'source.repo'],
    [source('repo: https://user:word@github.com/a, ref: b1'), 'source.repo'],
    [source('repo: https://github.com/a, ref: --upload-pack=id'), 'source.ref'],
    [source('repo: https://github.com/a, ref: "+refs/heads/*:refs/x"'), 'source.ref'],
    [source('repo: https://github.com/a, ref: b1, build: { cmake_flags: ["-P", "evil.cmake"] }'), 'cmake_flags[0]'],
    [source('repo: https://github.com/a, ref: b1, build: { generator: "X; id" }'), 'build.generator'],
    [container('--privileged'), 'container.image'],
    [container('a b'), 'container.image'],
    [container(`a@${SHA.slice(0, -1)}`), 'container.image'],
    [container('a', ', tag: "-x"'), 'container.tag'],
    [container(`foo:abc/x@${SHA}`), 'container.image'],
    [container(`foo:99999/x@${SHA}`), 'container.image'],
    ["{ mode: binary, binary: { url: 'file:///%zz' } }", 'binary.url'],
    ["{ mode: binary, binary: { url: 'file:///a%2Fb' } }", 'binary.url'],
    ["{ mode: binary, binary: { url: 'file:///a%00b' } }", 'binary.url'],
    [source('repo: "file:///a%2Fb", ref: b1'), 'source.repo'],
    [`{ mode: binary, binary: { url: 'http://example.com/x', checksum: '${SHA}' } }`, 'binary.url'],
    ["{ mode: binary, binary: { url: 'http://127.0.0.1/x' } }", 'binary.checksum'],
    ['{ mode: package, package: { name: "--index-url=x" } }', 'package.name'],
  ])('%s', (provisioning, path) => {
    expect(problem(provisioning)).toContain(`.${path}  `);
  });

  it.each(['https://github.com', '"*"', '"*.*"', 'a/b', '""', 'user@host', '"github.com:x"'])('host %s', (host) => {
    expect(problem(container('a/b'), host)).toContain('network.allow_hosts[0]');
  });
});
