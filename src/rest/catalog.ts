/** The catalog of the original control plane. */
import type { CatalogModel, CatalogModelDraft } from '../services/catalog/catalog.js';
import type { Services } from '../services/services.js';
import type { components } from './generated/control.js';
import { type Route, sendJson } from './router.js';

type Schemas = components['schemas'];

function draftOf(model: Schemas['CatalogModel']): CatalogModelDraft {
  const { id, digest, tags, sbom, trust_policy: policy } = model;
  return {
    id,
    digest,
    tags: tags ?? [],
    sourceUrl: model.source_url ?? null,
    manifests: (model.manifests ?? []).map((one) => ({
      digest: one.digest ?? null,
      sizeBytes: numberOf(one.size_bytes),
    })),
    signatures: (model.signatures ?? []).map((one) => ({
      signer: one.signer ?? null,
      algo: one.algo ?? null,
      verified: false,
      timestampMs: numberOf(one.timestamp_ms),
    })),
    sbom: sbom == null ? null : { uri: sbom.uri ?? null, digest: sbom.digest ?? null },
    trustPolicy:
      policy == null
        ? null
        : {
            mode: policy.mode ?? 'permissive',
            allowedRegistries: policy.allowed_registries ?? [],
            requireSignature: policy.require_signature ?? false,
            requireSbom: policy.require_sbom ?? false,
            caRoots: policy.ca_roots ?? [],
          },
  };
}

/** Null, where it is left out. */
function numberOf(value: number | bigint | null | undefined): number | null {
  return value === undefined || value === null ? null : Number(value);
}

/** Members without a value are left out. */
function present(members: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== null));
}

function bodyOf(model: CatalogModel): Record<string, unknown> {
  const { id, digest, sourceUrl, tags, manifests, signatures, sbom, trustPolicy: policy } = model;
  return present({
    id,
    digest,
    source_url: sourceUrl,
    tags,
    manifests: manifests.map((one) => present({ digest: one.digest, size_bytes: one.sizeBytes })),
    signatures: signatures.map(({ signer, algo, verified, timestampMs }) =>
      present({ signer, algo, verified, timestamp_ms: timestampMs }),
    ),
    sbom: sbom === null ? null : present({ uri: sbom.uri, digest: sbom.digest }),
    trust_policy:
      policy === null
        ? null
        : {
            mode: policy.mode,
            allowed_registries: policy.allowedRegistries,
            require_signature: policy.requireSignature,
            require_sbom: policy.requireSbom,
            ca_roots: policy.caRoots,
          },
  });
}

export function catalogRoutes({ catalog }: Services): Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/catalog/models',
      handler: async (call) => {
        const model = await catalog.create(draftOf((await call.body()) as Schemas['CatalogModel']));
        const location = `/v1/catalog/models/${encodeURIComponent(model.id)}`;
        sendJson(call.res, 201, bodyOf(model), { location });
      },
    },
    {
      method: 'GET',
      path: '/v1/catalog/models/{id}',
      handler: async (call) => sendJson(call.res, 200, bodyOf(await catalog.get(call.params.id ?? ''))),
    },
    {
      method: 'DELETE',
      path: '/v1/catalog/models/{id}',
      handler: async (call) => {
        await catalog.delete(call.params.id ?? '');
        call.res.writeHead(204).end();
      },
    },
    {
      method: 'POST',
      path: '/v1/catalog/models/{id}/verify',
      handler: async (call) => {
        const id = call.params.id ?? '';
        const verified = await catalog.verify(id, call.correlationId);
        if (verified === null) return sendJson(call.res, 202, { id, status: 'started' });
        const { result, reasons, digest } = verified;
        sendJson(call.res, 202, { id, status: result.toLowerCase(), ...present({ digest }), warnings: reasons });
      },
    },
    {
      method: 'POST',
      path: '/v1/catalog/models/{id}/state',
      handler: async (call) => {
        const { state, deadline_ms } = (await call.body()) as Schemas['CatalogModelState'];
        const model = await catalog.setState(call.params.id ?? '', state, numberOf(deadline_ms), call.correlationId);
        const drainAt = model.drainAtMs === null ? null : new Date(model.drainAtMs).toISOString();
        sendJson(call.res, 202, { id: model.id, state: model.state, ...present({ drain_at: drainAt }) });
      },
    },
  ];
}
