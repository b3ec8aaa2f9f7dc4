/** An engine that comes as a program, or as a package that the operator installs. Pure. */
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
  switchRefusal,
} from './plan.js';

/** More is no engine. */
const MAX_DOWNLOAD_BYTES = 16 * 1024 ** 3;
const ARCHIVE = /\.(?:zip|tar|tgz|tar\.\w+|7z|gz|xz|zst)$/i;

export function binaryPart(
  facts: ProvisionFacts,
  { url, path, sha256 }: NonNullable<ProvisionFacts['binary']>,
  host: ProvisionHost,
): Part {
  if (path !== null || sha256 === null) {
    const binaryPath = path ?? '';
    const prepared = { ...NOTHING, binaryPath };
    return { buildRef: url, digest: sha256, steps: [checkBinary(binaryPath, sha256)], prepared, obstacles: [] };
  }
  const { pathname } = new URL(url);
  const to = `${facts.folder}/${programName(pathname)}`;
  const maxBytes = MAX_DOWNLOAD_BYTES;
  const summary = `download ${url} to ${to} and verify sha256 ${sha256}`;
  const download: ProvisionStep = { kind: 'download', name: 'download', summary, url, sha256, to, maxBytes };
  const obstacles = host.present
    ? []
    : [
        ...(ARCHIVE.test(pathname) ? [archiveObstacle(url)] : []),
        ...switchRefusal(
          facts,
          'allow_binary_downloads',
          facts.policy.allowBinaryDownloads,
          'engine programs to be downloaded',
        ),
        ...hostRefusal(facts, url),
      ];
  const steps = [...(host.present ? [] : [download]), checkBinary(to, sha256)];
  return { buildRef: url, digest: sha256, steps, prepared: { ...NOTHING, binaryPath: to }, obstacles };
}

/** The last segment of a URL's path as a file name that cannot lead anywhere else. */
function programName(pathname: string): string {
  const name = (pathname.split('/').at(-1) ?? '').replace(/[^A-Za-z0-9._-]/g, '_');
  return /^\.*$/.test(name) ? 'engine' : name;
}

function archiveObstacle(url: string): Reason {
  return {
    code: 'UNSUPPORTED',
    message: `${url} is an archive; only plain programs are downloaded`,
    fix: 'Unpack it by hand, and give provisioning.binary.url as file:///path/of/the/program.',
  };
}

/** Installing runs code of the package's own choosing, as this user: that stays with the operator. */
export function packagePart(
  facts: ProvisionFacts,
  wanted: NonNullable<ProvisionFacts['package']>,
  host: ProvisionHost,
): Part {
  const { name, version, repo } = wanted;
  const buildRef = version === null ? name : `${name}==${version}`;
  const isPython = facts.engine === 'vllm' || facts.engine === 'tgi';
  const manager = host.packageManager ?? 'apt-get';
  const index = repo === null ? [] : ['--index-url', repo];
  const commands: [string, ...string[]][] = isPython
    ? [
        ['python3', '-m', 'venv', facts.folder],
        [`${facts.folder}/bin/pip`, 'install', ...index, buildRef],
      ]
    : [['sudo', manager, manager === 'pacman' ? '-S' : 'install', version === null ? name : `${name}=${version}`]];
  const steps = commands.map((argv, at): ProvisionStep => {
    const summary = `install ${buildRef}, step ${at + 1} of ${commands.length}`;
    return { kind: 'program', name: `package_install_${at + 1}`, summary, argv, deadlineMs: FETCH_DEADLINE_MS };
  });
  const lines = commands.map((argv) => argv.join(' ')).join(' && ');
  const fix = `Run it yourself: ${lines} — then name the program with mode binary and a file:/// URL.`;
  const refusals = switchRefusal(
    facts,
    'allow_package_installs',
    facts.policy.allowPackageInstalls,
    'packages to be installed',
  );
  const obstacles = [...refusals, { code: 'UNSUPPORTED', message: `packages are not installed by llama-orch`, fix }];
  return { ...NO_PART, buildRef, steps, obstacles };
}
