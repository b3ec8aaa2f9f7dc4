/** Pools whose engines are not there yet: brought here, verified, written down, and serving. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readStat } from '../../src/host/procfs.js';
import { type FakeTools, LLAMA_SERVER, makeFakeTools, writeProgram } from '../support/fakeTools.js';
import { serve, startFileServer } from '../support/fileServer.js';
import { gql } from '../support/graphql.js';
import { LONG } from '../support/long.js';
import { beginOperation, endOf } from '../support/operations.js';
import { post, readStream, taskRequest } from '../support/rest.js';
import { runToEnd } from '../support/server.js';
import { startWorld, type World } from '../support/world.js';

const IMAGE = `localhost:5000/engines/llama@sha256:${'d'.repeat(64)}`;
const PATH = process.env.PATH ?? '';
let folder: string;
let tools: FakeTools;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-provision-'));
  tools = await makeFakeTools(folder);
  process.env.PATH = `${tools.folder}:${PATH}`;
  await writeFile(join(folder, 'm.gguf'), 'a model');
});
afterEach(async () => {
  process.env.PATH = PATH;
  await rm(folder, { recursive: true, force: true });
});

const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex');

function config(
  provisioning: string,
  options: { allowHosts?: string; replicas?: number; model?: string } = {},
): string {
  const { allowHosts = '', replicas = 1, model = 'file:m.gguf' } = options;
  return `
gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
network: { allow_hosts: [${allowHosts}] }
pools:
  - id: p
    engine: llamacpp
    model: ${model}
    ctx: 4096
    replicas: ${replicas}
    slots: 1
    provisioning: ${provisioning}
`;
}

const start = (yaml: string) => startWorld({ config: yaml, configDir: folder });
const startUnready = (yaml: string) => startWorld({ config: yaml, configDir: folder, expectNotReady: true });

async function serves({ url }: World, model = 'file:m.gguf'): Promise<void> {
  const request = taskRequest({ engine: 'llamacpp', model_ref: model, max_tokens: 3 });
  expect((await post(url, '/v1/tasks', request)).status).toBe(202);
  const events = await readStream(url, request.task_id);
  expect(events.at(-1)?.event).toBe('end');
}

async function prepared({ url }: World) {
  const fields = 'engine mode buildRef version digest flags binaryPath image';
  const { data, errors } = await gql(url, `{ preparedEngines { ${fields} } }`);
  expect(errors).toBeUndefined();
  return data.preparedEngines;
}

/** Why the pool is given up; resolves when it is. */
async function refusal({ plane, url }: World) {
  expect(plane.pools[0]?.ready).toBe(false);
  const read = async () => {
    const { data } = await gql(url, '{ pool(name: "p") { replicas { state lastError { code message fix } } } }');
    return data.pool.replicas[0];
  };
  await expect.poll(async () => (await read()).state).toBe('FAILED');
  return (await read()).lastError;
}

const calls = async () => (await readFile(tools.callsFile, 'utf8').catch(() => '')).split('\n').filter(Boolean);

describe('mode binary', () => {
  const binary = (url: string, sha: string, allow = true) =>
    `{ mode: binary, allow_binary_downloads: ${allow}, binary: { url: '${url}', checksum: 'sha256:${sha}' } }`;

  it('downloads an engine once for two replicas, and finds it at the next start with policy off', async () => {
    await using files = await startFileServer(serve(Buffer.from(LLAMA_SERVER)));
    const url = `${files.url}/llama-server`;
    const sha = sha256(LLAMA_SERVER);
    const install = `install_dir: engines`;
    const yaml = config(binary(url, sha).replace('binary: {', `binary: { ${install},`), {
      ...{ allowHosts: `'${files.host}'`, replicas: 2 },
    });
    {
      await using world = await start(yaml);
      await serves(world);
      expect(files.requests).toHaveLength(1);
      expect(await prepared(world)).toMatchObject([
        { engine: 'LLAMACPP', mode: 'BINARY', buildRef: url, digest: sha, flags: [], image: null },
      ]);
      const [row] = await prepared(world);
      expect(sha256(await readFile(row.binaryPath))).toBe(sha);
    }
    await using again = await start(yaml.replace('allow_binary_downloads: true', 'allow_binary_downloads: false'));
    await serves(again);
    expect(files.requests).toHaveLength(1);
  });

  it('opens no socket when policy is off, and says which keys to set', async () => {
    await using files = await startFileServer(serve(Buffer.from(LLAMA_SERVER)));
    const sha = sha256(LLAMA_SERVER);
    await using world = await startUnready(config(binary(`${files.url}/x`, sha, false)));
    expect(await refusal(world)).toMatchObject({
      code: 'POLICY_REFUSED',
      fix: 'Set pools.p.provisioning.allow_binary_downloads: true, if it may be.',
    });
    const { data } = await gql(
      world.url,
      '{ pool(name: "p") { provisioningPlan { mode buildRef steps { name summary command } obstacles { code fix } } } }',
    );
    expect(data.pool.provisioningPlan.obstacles).toHaveLength(2);
    expect(data.pool.provisioningPlan.steps.map(({ name }: { name: string }) => name)).toEqual([
      'download',
      'check_binary',
    ]);
    expect(files.connections()).toBe(0);
  });

  it('refuses a download that is something else', async () => {
    await using files = await startFileServer(serve(Buffer.from('#!/bin/sh\nrm -rf ~\n')));
    const yaml = config(binary(`${files.url}/x`, sha256(LLAMA_SERVER)), { allowHosts: `'${files.host}'` });
    await using world = await startUnready(yaml);
    expect(await refusal(world)).toMatchObject({ code: 'CHECKSUM_MISMATCH' });
  });

  it('verifies a file URL too', async () => {
    const program = join(folder, 'own-server');
    await writeProgram(program, LLAMA_SERVER);
    const good = config(binary(`file://${program}`, sha256(LLAMA_SERVER), false));
    {
      await using world = await start(good);
      await serves(world);
    }
    await appendFile(program, '\n# tampered with\n');
    await using world = await startUnready(good);
    expect(await refusal(world)).toMatchObject({ code: 'CHECKSUM_MISMATCH' });
  });
});

describe('a model with a checksum', () => {
  const provisioning = (sha: string) =>
    `{ mode: binary, binary: { url: 'file://${join(folder, 'tools/llama-server')}' }, model: { checksum: 'sha256:${sha}' } }`;

  it('is verified, remembered, and told with every run', async () => {
    await using world = await start(config(provisioning(sha256('a model'))));
    await serves(world);
    const path = join(folder, 'm.gguf');
    const rows = await world.database.query('SELECT sha256 FROM file_digests WHERE path = $1', [path]);
    expect(rows).toEqual([{ sha256: sha256('a model') }]);
    const { data } = await gql(world.url, '{ pool(name: "p") { replicas { preload { name state } } } }');
    expect(data.pool.replicas[0].preload).toContainEqual({ name: 'verify_model', state: 'SUCCEEDED' });
    const [transcript] = await world.database.query<{ content: unknown }>('SELECT content FROM artifacts');
    expect(transcript?.content).toMatchObject({
      run: { model_digest: `sha256:${sha256('a model')}` },
    });
  });

  it('that is another is refused, with both digests', async () => {
    await using world = await startUnready(config(provisioning(sha256('another'))));
    const { code, message } = await refusal(world);
    expect(code).toBe('CHECKSUM_MISMATCH');
    expect(message).toContain(sha256('another'));
    expect(message).toContain(sha256('a model'));
  });

  it.runIf(LONG)('is not reloaded when its file has changed: the other model goes on', async () => {
    await writeFile(join(folder, 'other.gguf'), 'another model');
    await using world = await start(config(provisioning(sha256('a model'))));
    const reload = async (model: string) => {
      const input = `{ pool: "p", newModelRef: "${model}", drainDeadlineMs: 5000 }`;
      return endOf(world.url, await beginOperation(world.url, `reloadPool(input: ${input})`));
    };
    expect(await reload('file:other.gguf')).toMatchObject({ state: 'SUCCEEDED' });
    await writeFile(join(folder, 'm.gguf'), 'a model!');
    const back = await reload('file:m.gguf');
    expect(back).toMatchObject({ state: 'ROLLED_BACK', error: { code: 'CHECKSUM_MISMATCH' } });
    expect(back.error?.message).toContain(sha256('a model!'));
    const { data } = await gql(world.url, '{ pool(name: "p") { modelRef ready } }');
    expect(data.pool).toEqual({ modelRef: 'file:other.gguf', ready: true });
    await serves(world, 'file:other.gguf');
  });
});

describe('mode source', () => {
  async function makeRepository(files: Record<string, string> = { engine: LLAMA_SERVER }) {
    const at = join(folder, 'repo');
    await mkdir(at);
    for (const [name, text] of Object.entries(files)) await writeFile(join(at, name), text);
    const git = (...args: string[]) =>
      execFileSync('git', ['-C', at, '-c', 'user.name=t', '-c', 'user.email=t@t.test', ...args], { encoding: 'utf8' });
    git('init', '--quiet');
    git('add', '.');
    git('commit', '--quiet', '-m', 'engine');
    git('tag', 'b1');
    return { url: `file://${at}`, commit: git('rev-parse', 'HEAD').trim() };
  }
  const source = (url: string, ref = 'b1') =>
    `{ mode: source, source: { repo: '${url}', ref: ${ref}, build: { cache_dir: build, cmake_flags: [-DGGML_NATIVE=OFF] } } }`;

  it('clones with git, builds once, writes down the commit, and serves', async () => {
    const { url, commit } = await makeRepository();
    {
      await using world = await start(config(source(url), { replicas: 2 }));
      await serves(world);
      const [row] = await prepared(world);
      expect(row).toMatchObject({
        mode: 'SOURCE',
        buildRef: `${url}@b1`,
        version: commit,
        digest: sha256(LLAMA_SERVER),
      });
      expect(row.flags).toContain('-DGGML_NATIVE=OFF');
      expect(await calls()).toHaveLength(2);
    }
    await using again = await start(config(source(url)));
    await serves(again);
    expect(await calls()).toHaveLength(2);
  });

  const hasCompiler = ['git', 'cmake', 'make', 'c++'].every((name) =>
    PATH.split(':').some((at) => existsSync(join(at, name))),
  );
  it.skipIf(!hasCompiler)(
    'builds with the real cmake and compiler (skipped where git, cmake, make or c++ is missing)',
    async () => {
      const { url } = await makeRepository({
        'CMakeLists.txt': `cmake_minimum_required(VERSION 3.10)
project(engine CXX)
add_executable(llama-server main.cpp)
set_target_properties(llama-server PROPERTIES RUNTIME_OUTPUT_DIRECTORY "\${CMAKE_BINARY_DIR}/bin")
`,
        'main.cpp': `#include <unistd.h>
int main(int, char **argv) { argv[0] = (char *)"llama-server"; return execv("${join(tools.folder, 'llama-server')}", argv); }
`,
      });
      for (const name of ['cmake', 'make', 'c++']) await rm(join(tools.folder, name));
      await using world = await start(config(source(url)));
      await serves(world);
      const [row] = await prepared(world);
      expect(row.digest).toBe(sha256(await readFile(row.binaryPath)));
    },
  );

  it.runIf(LONG)('builds anew what was changed since, whatever locks git has left', async () => {
    const { url } = await makeRepository();
    let binaryPath = '';
    {
      await using world = await start(config(source(url)));
      [{ binaryPath }] = await prepared(world);
    }
    await appendFile(binaryPath, '# changed\n');
    // As a git that was killed leaves them behind.
    const dotGit = join(binaryPath, '../../../source/.git');
    for (const lock of ['index.lock', 'shallow.lock']) await writeFile(join(dotGit, lock), '');
    await using world = await start(config(source(url)));
    await serves(world);
    expect(await calls()).toHaveLength(4);
    expect(sha256(await readFile(binaryPath))).toBe(sha256(LLAMA_SERVER));
  });

  it.runIf(LONG)('says what the build said when it fails, and tries again', async () => {
    const { url } = await makeRepository();
    await writeProgram(join(tools.folder, 'cmake'), '#!/bin/sh\necho "CMake Error: CUDA not found"; exit 1\n');
    await using world = await startUnready(config(source(url)));
    const read = async () => {
      const { data } = await gql(
        world.url,
        '{ pool(name: "p") { replicas { state lastError { code message fix } } } }',
      );
      return data.pool.replicas[0].lastError;
    };
    await expect
      .poll(read)
      .toMatchObject({ code: 'PROGRAM_FAILED', message: expect.stringContaining('CUDA not found') });
    expect((await read()).fix).toContain('-DGGML_NATIVE=OFF');
  });

  it('names the tool that is missing, with the line to paste', async () => {
    const { url } = await makeRepository();
    await rm(join(tools.folder, 'cmake'));
    process.env.PATH = tools.folder;
    await using world = await startUnready(config(source(url)));
    const { code, message, fix } = await refusal(world);
    expect(code).toBe('TOOL_MISSING');
    expect(message).toContain('git, cmake');
    expect(fix).toContain('install -y git cmake');
  });

  it('ends a build and all it started when the pool is stopped', async () => {
    const { url } = await makeRepository();
    const started = join(folder, 'started');
    const script = `#!/bin/sh\nsleep 600 & echo $! > '${started}.new'; mv '${started}.new' '${started}'; wait\n`;
    await writeProgram(join(tools.folder, 'cmake'), script);
    {
      await using _world = await startUnready(config(source(url)));
      await expect.poll(() => existsSync(started)).toBe(true);
    }
    // Dead, if perhaps not yet reaped.
    const pid = Number(await readFile(started, 'utf8'));
    expect(['Z', 'X', undefined]).toContain(readStat(pid)?.state);
  });
});

describe('mode container', () => {
  const container = (allow = true) =>
    `{ mode: container, allow_binary_downloads: ${allow}, container: { image: '${IMAGE}' } }`;

  it('pulls an image by its digest, once, and runs it with its model and no secret in its arguments', async () => {
    const yaml = config(container(), { allowHosts: 'localhost:5000' });
    {
      await using world = await start(yaml);
      await serves(world);
      expect(await prepared(world)).toMatchObject([
        { mode: 'CONTAINER', image: IMAGE, digest: 'd'.repeat(64), binaryPath: null },
      ]);
    }
    const run = (await calls()).find((line) => line.startsWith('podman run')) ?? '';
    expect(run).toContain(
      `--mount type=bind,source=${join(folder, 'm.gguf')},target=${join(folder, 'm.gguf')},readonly`,
    );
    expect(run).toContain('--pull never');
    expect(run).not.toMatch(/LLAMA_API_KEY=/);
    await using again = await start(config(container(false)));
    await serves(again);
    expect((await calls()).filter((line) => line.startsWith('podman pull'))).toHaveLength(1);
  });

  it('does not pull without policy', async () => {
    await using world = await startUnready(config(container(false)));
    expect(await refusal(world)).toMatchObject({ code: 'POLICY_REFUSED' });
    expect((await calls()).filter((line) => !line.startsWith('podman image'))).toEqual([]);
  });

  it('refuses an image without a digest', async () => {
    await using world = await startUnready(config(container().replace(/@sha256:d+/, '')));
    expect(await refusal(world)).toMatchObject({ code: 'UNPINNED' });
  });
});

describe('llama-orch plan', () => {
  it('prints the same plan twice, starts nothing, and exits by whether it can be carried out', async () => {
    await using files = await startFileServer(serve(Buffer.from(LLAMA_SERVER)));
    const file = join(folder, 'orch.yaml');
    const home = join(folder, 'home');
    const section = (allow: boolean) =>
      `{ mode: binary, allow_binary_downloads: ${allow}, binary: { url: '${files.url}/x', checksum: 'sha256:${'a'.repeat(64)}' } }`;
    const plan = (...args: string[]) => runToEnd(['plan', '--config', file, ...args], { LLAMA_ORCH_HOME: home, PATH });
    await writeFile(file, config(section(true), { allowHosts: "'127.0.0.1'" }));
    const first = await plan();
    expect(first.code).toBe(0);
    expect(first.output).toContain('1. download: ');
    expect(await plan()).toEqual(first);
    const { output } = await plan('--json', '--pool', 'p');
    expect(JSON.parse(output)).toMatchObject([{ pool: 'p', mode: 'binary', obstacles: [] }]);

    await writeFile(file, config(section(false)));
    const refused = await plan();
    expect(refused.code).toBe(1);
    expect(refused.output).toContain('pools.p.provisioning.allow_binary_downloads: true');
    expect((await plan('--pool', 'q')).code).toBe(2);
    expect(files.connections()).toBe(0);
    expect(existsSync(home)).toBe(false);
  });
});
