/** Artifacts of the original control plane. */
import { parse as parseJson } from 'lossless-json';
import type { ArtifactReference, StoredArtifact } from '../services/artifacts.js';
import type { Services } from '../services/services.js';
import type { components } from './generated/control.js';
import { type Route, sendJson } from './router.js';

type Artifact = components['schemas']['Artifact'];

function referenceOf({ id, kind, digest, createdAtMs, tags }: ArtifactReference): Record<string, unknown> {
  return { id, kind, digest, created_ms: Math.round(createdAtMs), tags };
}

function bodyOf({ kind, content, tags, parent, metadata }: StoredArtifact): Record<string, unknown> {
  return {
    kind,
    // Numbers keep their digits on the way out too.
    content: parseJson(content),
    tags,
    ...(parent !== null && { parent }),
    ...(metadata !== null && { metadata: parseJson(metadata) }),
  };
}

export function artifactRoutes({ artifacts }: Services): Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/artifacts',
      handler: async (call) => {
        const { kind, content, tags, parent, metadata } = (await call.body()) as Artifact;
        const made = await artifacts.create({
          ...{ kind, content, tags: tags ?? [], parent: parent ?? null, metadata: metadata ?? null },
        });
        sendJson(call.res, 201, referenceOf(made), { location: `/v1/artifacts/${made.id}` });
      },
    },
    {
      method: 'GET',
      path: '/v1/artifacts/{id}',
      handler: async (call) => sendJson(call.res, 200, bodyOf(await artifacts.get(call.params.id ?? ''))),
    },
  ];
}
