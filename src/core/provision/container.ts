/** An engine in a container: pulled by its digest, with podman before docker. Pure. */
import type { Reason } from '../pool.js';
import {
  type ContainerRuntime,
  FETCH_DEADLINE_MS,
  hostRefusal,
  NOTHING,
  type Part,
  type PreparedFacts,
  type ProvisionFacts,
  type ProvisionHost,
  type ProvisionStep,
  switchRefusal,
} from './plan.js';
import { checkTools, toolObstacles, toolPath } from './tools.js';

const PINNED = /@sha256:([0-9a-f]{64})$/;

export function containerPart(
  facts: ProvisionFacts,
  container: NonNullable<ProvisionFacts['container']>,
  host: ProvisionHost,
): Part {
  const image = qualifiedImage(container);
  const digest = PINNED.exec(image)?.[1] ?? null;
  const path = toolPath('container', host);
  const name: ContainerRuntime = host.tools.podman == null ? 'docker' : 'podman';
  const runtime = path === null ? null : { name, path };
  const prepared: PreparedFacts = { ...NOTHING, image, runtime };
  const pull: ProvisionStep = {
    kind: 'program',
    name: 'container_pull',
    summary: `pull ${image} with ${name}`,
    argv: [path ?? name, 'pull', '--quiet', image],
    deadlineMs: FETCH_DEADLINE_MS,
  };
  const registry = `https://${image.split('/')[0] ?? ''}/`;
  const pullRefusals = host.present
    ? []
    : [
        ...switchRefusal(
          facts,
          'allow_binary_downloads',
          facts.policy.allowBinaryDownloads,
          'engine images to be downloaded',
        ),
        ...hostRefusal(facts, registry),
      ];
  return {
    buildRef: image,
    digest,
    steps: [checkTools(['container']), ...(host.present ? [] : [pull])],
    prepared,
    obstacles: [
      ...toolObstacles(['container'], host),
      ...(path !== null && name === 'docker' && !host.isRoot ? [DOCKER_WITHOUT_ROOT] : []),
      ...(digest === null ? [unpinned(image, name)] : []),
      ...pullRefusals,
    ],
  };
}

const DOCKER_WITHOUT_ROOT: Reason = {
  code: 'UNSUPPORTED',
  message: 'docker runs containers as children of a root daemon, which this user could neither see nor end',
  fix: 'Install podman, which needs no root, and resume the pool; or run llama-orch as root.',
};

function unpinned(image: string, runtime: string): Reason {
  return {
    code: 'UNPINNED',
    message: `the image ${image} is not pinned by its digest`,
    fix: `Write provisioning.container.image: name@sha256:…; ${runtime} image inspect --format '{{.RepoDigests}}' ${image} shows it.`,
  };
}

/** With its registry, so that no runtime has to guess one; a tag beside a digest says nothing and goes. */
function qualifiedImage({ image, tag }: NonNullable<ProvisionFacts['container']>): string {
  const [first = '', ...rest] = image.split('/');
  const hasRegistry = rest.length > 0 && (/[.:]/.test(first) || first === 'localhost');
  const named = hasRegistry ? image : `docker.io/${rest.length === 0 ? 'library/' : ''}${image}`;
  if (named.includes('@')) return named.replace(/:[^:/@]+@/, '@');
  if (tag === null) return named;
  return tag.startsWith('sha256:') ? `${named}@${tag}` : `${named}:${tag}`;
}
