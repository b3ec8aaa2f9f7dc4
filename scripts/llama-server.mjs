// Obtains a real `llama-server` for tests: from $LLAMA_SERVER_BIN, from PATH, or unpacked from Debian's packages into a
// cache folder. Needs no root and changes nothing of the system: apt runs with a configuration, lists and an archive
// folder of its own. `node scripts/llama-server.mjs` prints the path, or the reason why there is none.
import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, isAbsolute, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/**
 * @typedef {{ file: string, source: 'env' | 'path' | 'debian' } | { unavailable: string }} LlamaServer
 * @typedef {object} ObtainOptions
 * @property {NodeJS.ProcessEnv} [env] default: process.env
 * @property {(line: string) => void} [log] told of each step; default: silent
 * @property {string} [keyring] the keyring that Debian's signatures are checked against; default: the installed one
 */

/** An expected cause: its message becomes `unavailable`. */
class Unavailable extends Error {}

const querySeconds = 30;
const checkSeconds = 10;
const updateSeconds = 180;
const downloadSeconds = 300;
const unpackSeconds = 60;
// Longer than the steps of another process usually take together; after it a caller goes on without the lock.
const lockSeconds = 900;
const lockStaleSeconds = 20;

const libraryFolder = 'usr/lib/x86_64-linux-gnu';
const loaderName = 'ld-linux-x86-64.so.2';

/**
 * Runs a command to its end or to its deadline; never rejects. On the deadline it returns at once: grandchildren may
 * still hold the pipes, so waiting for their end could last forever.
 * @param {string} command
 * @param {string[]} args
 * @param {{ deadlineSeconds: number, env?: NodeJS.ProcessEnv, cwd?: string }} options
 * @returns {Promise<{ ok: boolean, stdout: string, cause: string }>}
 */
function run(command, args, { deadlineSeconds, env = process.env, cwd }) {
  return new Promise((settle) => {
    const child = spawn(command, args, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    /** @param {string | undefined} failure */
    const finish = (failure) => {
      clearTimeout(timer);
      child.stdout.destroy();
      child.stderr.destroy();
      settle({
        ok: failure === undefined,
        stdout,
        cause: failure === undefined ? '' : `${failure}${lastWords(stderr)}`,
      });
    };
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      finish(`${command} did not finish within ${deadlineSeconds} s`);
    }, deadlineSeconds * 1000);
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    child.on('error', (error) => finish(`${command} cannot be run (${error.message})`));
    child.on('close', (code, signal) => finish(code === 0 ? undefined : `${command} ended with ${signal ?? code}`));
  });
}

/** The end of a command's complaint, in one line. @param {string} stderr */
function lastWords(stderr) {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '');
  return lines.length === 0 ? '' : `: ${lines.slice(-3).join(' | ').slice(0, 600)}`;
}

/** @param {string} what @param {Promise<{ ok: boolean, stdout: string, cause: string }>} outcome */
async function must(what, outcome) {
  const { ok, stdout, cause } = await outcome;
  if (!ok) throw new Unavailable(`${what}: ${cause}`);
  return stdout;
}

/** @param {string} file */
function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** @param {NodeJS.ProcessEnv} env */
function onPath(env) {
  const folders = (env.PATH ?? '').split(delimiter).filter(isAbsolute);
  return folders.map((folder) => join(folder, 'llama-server')).find(isExecutable);
}

/** @param {NodeJS.ProcessEnv} env */
function cacheFolder(env) {
  const base = env.LLAMA_ORCH_CACHE ? resolve(env.LLAMA_ORCH_CACHE) : join(homedir(), '.cache', 'llama-orch');
  return join(base, 'llama-server');
}

// --- The wrapper ---

/** The best CPU backend of the package that this processor runs, from the processor's own list of features. */
function cpuBackend() {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' '));
  /** @param {string[]} names */
  const has = (...names) => names.every((name) => flags.has(name));
  // Nothing above haswell: a tiny model gains nothing from AVX-512, and one variant on most machines means one output.
  if (has('avx2', 'fma', 'f16c', 'bmi2')) return 'haswell';
  if (has('avx')) return 'sandybridge';
  return has('sse4_2') ? 'sse42' : 'x64';
}

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * The packages' binary expects the packages' C library and its own folders under /usr, so it is started through the
 * unpacked loader; `exec` makes the server's pid the one that the caller spawned.
 * @param {string} folder
 */
function wrapperText(folder) {
  const lib = join(folder, 'lib');
  const backends = join(lib, 'ggml', 'backends0');
  const wanted = join(backends, `libggml-cpu-${cpuBackend()}.so`);
  const backend = existsSync(wanted) ? wanted : join(backends, 'libggml-cpu-x64.so');
  return `#!/bin/sh
export GGML_BACKEND_PATH=${quoted(backend)}
exec ${quoted(join(lib, loaderName))} --argv0 llama-server \\
  --library-path ${quoted([lib, join(lib, 'llama'), backends].join(':'))} \\
  ${quoted(join(folder, 'bin', 'llama-server'))} "$@"
`;
}

/**
 * Runs the wrapper's `--version`. The wrapper is written anew when it names another place or processor than this one
 * (a cache that was moved, or is shared by several machines).
 * @param {string} folder
 */
async function checkUnpacked(folder) {
  const wrapper = join(folder, 'llama-server');
  const text = wrapperText(folder);
  if (!isExecutable(wrapper) || readFileSync(wrapper, 'utf8') !== text) {
    const fresh = `${wrapper}.${process.pid}`;
    await writeFile(fresh, text, { mode: 0o755 });
    await rename(fresh, wrapper);
  }
  const { ok, cause } = await run(wrapper, ['--version'], { deadlineSeconds: checkSeconds });
  return { file: ok ? wrapper : undefined, cause };
}

// --- apt, with a configuration of its own ---

/**
 * The host's settings for reaching its mirrors (proxies, certificates, dates of a frozen mirror). Its other settings
 * stay out: hooks that run after an update would touch the system.
 */
async function hostNetworkSettings() {
  const dump = await must('apt is needed', run('apt-config', ['dump'], { deadlineSeconds: querySeconds }));
  const wanted = /^Acquire::(https?|ftp|Check-Valid-Until|Check-Date|(Min|Max)-ValidTime|ForceIPv[46])\b/i;
  return dump.split('\n').filter((line) => wanted.test(line));
}

/** The plain Debian mirror that this machine already uses, and the suite it takes from it. */
async function hostMirror() {
  // Without release info apt also lists what it has not downloaded yet: fresh container images have empty lists.
  const args = ['--no-release-info', 'indextargets', '--format', '$(REPO_URI) $(RELEASE)'];
  const lines = (await must('apt-get is needed', run('apt-get', args, { deadlineSeconds: querySeconds }))).split('\n');
  for (const line of lines) {
    const [uri = '', suite = ''] = line.split(' ');
    if (/debian/i.test(uri) && !/security/i.test(`${uri} ${suite}`) && /^[a-z]+$/.test(suite)) return { uri, suite };
  }
  throw new Unavailable('apt on this machine knows no Debian mirror to take llama-server from');
}

/** Keeps apt inside a folder, and its signature checks on whatever the host has set. @param {string} folder */
function aptSettings(folder) {
  return {
    'Dir::Etc::main': join(folder, 'none', 'apt.conf'),
    'Dir::Etc::parts': join(folder, 'none'),
    'Dir::Etc::sourcelist': join(folder, 'sources.list'),
    'Dir::Etc::sourceparts': join(folder, 'none'),
    'Dir::Etc::preferences': join(folder, 'none', 'preferences'),
    'Dir::Etc::preferencesparts': join(folder, 'none'),
    'Dir::State': join(folder, 'state'),
    'Dir::State::status': join(folder, 'status'),
    'Dir::Cache': join(folder, 'cache'),
    'Acquire::Languages': 'none',
    'Acquire::Retries': '2',
    'Acquire::AllowInsecureRepositories': 'false',
    'Acquire::AllowWeakRepositories': 'false',
    'Acquire::AllowDowngradeToInsecureRepositories': 'false',
    'APT::Get::AllowUnauthenticated': 'false',
    'APT::Update::Error-Mode': 'any',
    // As root apt becomes the user _apt, who cannot read this folder.
    'APT::Sandbox::User': 'root',
  };
}

/**
 * Makes a private apt root with one source and fetches the source's index.
 * @param {string} folder
 * @param {{ uri: string, suite: string, keyring: string | undefined }} source
 */
async function privateApt(folder, { uri, suite, keyring }) {
  await mkdir(join(folder, 'state', 'lists', 'partial'), { recursive: true });
  await mkdir(join(folder, 'cache', 'archives', 'partial'), { recursive: true });
  await mkdir(join(folder, 'none'));
  await writeFile(join(folder, 'status'), '');
  const signedBy = keyring === undefined ? '' : ` signed-by=${keyring}`;
  await writeFile(join(folder, 'sources.list'), `deb [arch=amd64 target=Packages${signedBy}] ${uri} ${suite} main\n`);
  const own = Object.entries(aptSettings(folder)).map(([key, value]) => `${key} "${value}";`);
  const configFile = join(folder, 'apt.conf');
  await writeFile(configFile, `${[...(await hostNetworkSettings()), ...own].join('\n')}\n`);
  const env = { ...process.env, APT_CONFIG: configFile, LC_ALL: 'C' };
  const update = run('apt-get', ['-q', 'update'], { deadlineSeconds: updateSeconds, env, cwd: folder });
  await must(`the package index of Debian ${suite} cannot be fetched and verified`, update);
  return env;
}

/** Debian's own keys as installed here; undefined leaves the choice to apt's trusted keys. */
function installedKeyring() {
  const names = ['debian-archive-keyring.pgp', 'debian-archive-keyring.gpg'];
  return names.map((name) => join('/usr/share/keyrings', name)).find((file) => existsSync(file));
}

/**
 * Downloads packages and unpacks them; apt compares each with the checksum of the signed index.
 * @param {NodeJS.ProcessEnv} env
 * @param {string} folder
 * @param {string[]} packages
 */
async function unpackPackages(env, folder, packages) {
  const downloads = join(folder, 'debs');
  const unpacked = join(folder, 'unpacked');
  await mkdir(downloads);
  const download = run('apt-get', ['-q', 'download', ...packages], {
    deadlineSeconds: downloadSeconds,
    env,
    cwd: downloads,
  });
  await must('the packages of llama-server cannot be downloaded', download);
  for (const name of await readdir(downloads)) {
    const args = ['-x', join(downloads, name), unpacked];
    await must(`${name} cannot be unpacked`, run('dpkg', args, { deadlineSeconds: unpackSeconds }));
  }
  return unpacked;
}

/**
 * A private apt for suite sid. A host that does not know sid's keys yet takes the newer keyring package from its own
 * suite, which its keys do verify; signatures are never left unchecked.
 * @param {string} work
 * @param {{ keyring: string | undefined, log: (line: string) => void }} options
 */
async function sidApt(work, { keyring, log }) {
  const mirror = await hostMirror();
  try {
    log('reading the package index of Debian sid');
    return await privateApt(join(work, 'sid'), { uri: mirror.uri, suite: 'sid', keyring });
  } catch (error) {
    if (!(error instanceof Unavailable) || !/NO_PUBKEY|not signed|couldn't be verified/i.test(error.message))
      throw error;
    log(`sid is signed by keys unknown here; taking debian-archive-keyring from ${mirror.suite}`);
  }
  const stable = join(work, 'stable');
  const env = await privateApt(stable, { ...mirror, keyring });
  const keys = join(await unpackPackages(env, stable, ['debian-archive-keyring']), 'usr', 'share', 'keyrings');
  const name = (await readdir(keys)).find((file) => /^debian-archive-keyring\.(pgp|gpg)$/.test(file));
  if (name === undefined) throw new Unavailable(`debian-archive-keyring of ${mirror.suite} holds no keyring file`);
  return await privateApt(join(work, 'sid-again'), { uri: mirror.uri, suite: 'sid', keyring: join(keys, name) });
}

/**
 * llama.cpp-tools and every library package it needs, level by level, so that renamed libraries are followed. Only
 * libraries: the server needs neither debconf nor the download programs that the package also depends on.
 * @param {NodeJS.ProcessEnv} env
 */
async function neededPackages(env) {
  const needed = new Set(['llama.cpp-tools']);
  const kinds = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'].map((kind) => `--no-${kind}`);
  for (let level = [...needed]; level.length > 0; ) {
    const query = run('apt-cache', [...kinds, 'depends', ...level], { deadlineSeconds: querySeconds, env });
    const found = [
      ...(await must('Debian sid has no llama-server', query)).matchAll(/^[ |]*(?:Pre)?Depends: (\S+)$/gm),
    ];
    const names = found.map((match) => match[1] ?? '');
    level = [...new Set(names)].filter((name) => /^(lib|zlib)/.test(name) && !/gconv/.test(name) && !needed.has(name));
    for (const name of level) needed.add(name);
  }
  return [...needed];
}

// --- The cache ---

/**
 * @param {string} work a folder of this call's own, on the same file system as `folder`
 * @param {string} folder where the finished set appears, all at once
 * @param {{ keyring: string | undefined, log: (line: string) => void }} options
 */
async function unpackInto(work, folder, { keyring, log }) {
  const env = await sidApt(work, { keyring, log });
  const packages = await neededPackages(env);
  log(`downloading ${packages.length} packages: ${packages.join(' ')}`);
  const unpacked = await unpackPackages(env, work, packages);
  const ready = join(work, 'ready');
  await mkdir(join(ready, 'bin'), { recursive: true });
  await rename(join(unpacked, 'usr/bin/llama-server'), join(ready, 'bin', 'llama-server'));
  await rename(join(unpacked, libraryFolder), join(ready, 'lib'));
  await rm(join(ready, 'lib', 'gconv'), { recursive: true, force: true });
  log('checking that it runs');
  const trial = await checkUnpacked(ready);
  if (trial.file === undefined) throw new Unavailable(`the unpacked llama-server does not run here: ${trial.cause}`);
  if (existsSync(folder)) await rename(folder, join(work, 'replaced'));
  await rename(ready, folder).catch((error) => {
    // Another process was first: its set is as good, and the caller checks what is there.
    if (errorCode(error) !== 'ENOTEMPTY' && errorCode(error) !== 'EEXIST') throw error;
  });
}

/** @param {unknown} error @returns {string | undefined} */
function errorCode(error) {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** How long ago a file or folder was touched; 0 when it is gone. @param {string} path */
async function ageSeconds(path) {
  const entry = await stat(path).catch(() => undefined);
  return entry === undefined ? 0 : (Date.now() - entry.mtimeMs) / 1000;
}

/**
 * Keeps parallel test workers from downloading the same thing. Only thrift depends on it, not correctness: two owners
 * each work in their own folder, and the finished one is renamed into place. The owner touches the file while it works;
 * a process id would say nothing across containers that share the cache.
 * @template T
 * @param {string} file
 * @param {() => Promise<T>} work
 */
async function withLock(file, work) {
  for (const started = performance.now(); performance.now() - started < lockSeconds * 1000; await sleep(250)) {
    try {
      await writeFile(file, '', { flag: 'wx' });
      break;
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
    }
    if ((await ageSeconds(file)) > lockStaleSeconds) await rm(file, { force: true });
  }
  const touch = () => utimes(file, new Date(), new Date()).catch(() => undefined);
  const heartbeat = setInterval(touch, (lockStaleSeconds / 4) * 1000).unref();
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    await rm(file, { force: true });
  }
}

/** What killed runs left behind. @param {string} cache */
async function removeLeftovers(cache) {
  for (const name of await readdir(cache)) {
    const path = join(cache, name);
    if (name.startsWith('work-') && (await ageSeconds(path)) > lockSeconds)
      await rm(path, { recursive: true, force: true });
  }
}

/**
 * @param {string} cache
 * @param {{ keyring: string | undefined, log: (line: string) => void }} options
 * @returns {Promise<string>}
 */
async function fromDebian(cache, options) {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Unavailable(
      `llama-server is unpacked only on linux x64, and this is ${process.platform} ${process.arch}`,
    );
  const folder = join(cache, 'debian');
  const cached = async () =>
    existsSync(join(folder, 'bin', 'llama-server')) ? (await checkUnpacked(folder)).file : undefined;
  const early = await cached();
  if (early !== undefined) return early;
  await mkdir(cache, { recursive: true });
  return await withLock(join(cache, 'lock'), async () => {
    const meanwhile = await cached();
    if (meanwhile !== undefined) return meanwhile;
    await removeLeftovers(cache);
    // mkdtemp makes it 0700: the configuration inside may hold a proxy's password.
    const work = await mkdtemp(join(cache, 'work-'));
    try {
      await unpackInto(work, folder, options);
    } finally {
      // A part of apt that outlived its deadline may still write here; what stays is removed by a later run.
      await rm(work, { recursive: true, force: true, maxRetries: 3 }).catch(() => undefined);
    }
    const done = await checkUnpacked(folder);
    if (done.file === undefined) throw new Unavailable(`the unpacked llama-server does not run here: ${done.cause}`);
    return done.file;
  });
}

/**
 * @param {ObtainOptions} [options]
 * @returns {Promise<LlamaServer>}
 */
export async function obtainLlamaServer({ env = process.env, log = () => {}, keyring = installedKeyring() } = {}) {
  const named = env.LLAMA_SERVER_BIN;
  if (named) {
    if (isExecutable(named)) return { file: resolve(named), source: 'env' };
    return { unavailable: `LLAMA_SERVER_BIN is "${named}", which is not an executable file` };
  }
  const found = onPath(env);
  if (found !== undefined) return { file: found, source: 'path' };
  try {
    return { file: await fromDebian(cacheFolder(env), { keyring, log }), source: 'debian' };
  } catch (error) {
    // System errors (a full disk, a folder that may not be written) are causes too; anything else is a mistake here.
    const code = errorCode(error);
    const isExpected = error instanceof Unavailable || (code !== undefined && /^E[A-Z]+$/.test(code));
    if (isExpected && error instanceof Error) return { unavailable: error.message };
    throw error;
  }
}

const script = process.argv[1];
if (script !== undefined && existsSync(script) && realpathSync(script) === fileURLToPath(import.meta.url)) {
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1).padStart(6);
  const result = await obtainLlamaServer({ log: (line) => console.error(`${seconds()} s  ${line}`) });
  if ('file' in result) {
    console.error(`${seconds()} s  found by way of: ${result.source}`);
    console.log(result.file);
  } else {
    console.error(result.unavailable);
    process.exitCode = 1;
  }
}
