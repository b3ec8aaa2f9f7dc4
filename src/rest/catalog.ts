/** The catalog of the original control plane. */
import { z } from 'zod';
import { MODEL_STATES } from '../core/catalog.js';
import type { CatalogModel, CatalogModelDraft } from '../services/catalog/catalog.js';
import type { Services } from '../services/services.js';
import { type Route, sendJson } from './router.js';
import { parse } from './wire.js';

const Text = z.string().max(4096);
const Count = z.union([z.int().min(0), z.bigint().transform(Number)]);

const TrustPolicy = z.object({
  mode: z.enum(['strict', 'permissive']).default('permissive'),
  allowed_registries: z.array(Text).max(256).default([]),
  require_signature: z.boolean().default(false),
  require_sbom: z.boolean().default(false),
  ca_roots: z.array(Text).max(64).default([]),
});
const Signature = z.object({
  signer: Text.nullish(),
  algo: Text.nullish(),
  verified: z.boolean().nullish(),
  timestamp_ms: Count.nullish(),
});

/** CatalogModel; members that the contract does not name are ignored. */
const Model = z.object({
  id: z.string(),
  digest: z.string(),
  source_url: Text.nullish(),
  tags: z.array(Text).max(256).default([]),
  manifests: z
    .array(z.object({ digest: Text.nullish(), size_bytes: Count.nullish() }))
    .max(1024)
    .default([]),
  signatures: z.array(Signature).max(64).default([]),
  sbom: z.object({ uri: Text.nullish(), digest: Text.nullish() }).nullish(),
  trust_policy: TrustPolicy.nullish(),
});

const StateRequest = z.object({ state: z.enum(MODEL_STATES), deadline_ms: z.number().int().min(0).nullish() });

function draftOf(body: unknown): CatalogModelDraft {
  const { id, digest, tags, ...model } = parse(Model, body);
  const policy = model.trust_policy ?? null;
  return {
    id,
    digest,
    tags,
    sourceUrl: model.source_url ?? null,
    manifests: model.manifests.map((one) => ({ digest: one.digest ?? null, sizeBytes: one.size_bytes ?? null })),
    signatures: model.signatures.map((one) => ({
      signer: one.signer ?? null,
      algo: one.algo ?? null,
      verified: false,
      timestampMs: one.timestamp_ms ?? null,
    })),
    sbom: model.sbom == null ? null : { uri: model.sbom.uri ?? null, digest: model.sbom.digest ?? null },
    trustPolicy:
      policy === null
        ? null
        : {
            mode: policy.mode,
            allowedRegistries: policy.allowed_registries,
            requireSignature: policy.require_signature,
            requireSbom: policy.require_sbom,
            caRoots: policy.ca_roots,
          },
  };
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
        const model = await catalog.create(draftOf(await call.body()));
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
        const verified = await catalog.verify(id);
        if (verified === null) return sendJson(call.res, 202, { id, status: 'started' });
        const { result, reasons, digest } = verified;
        sendJson(call.res, 202, { id, status: result.toLowerCase(), ...present({ digest }), warnings: reasons });
      },
    },
    {
      method: 'POST',
      path: '/v1/catalog/models/{id}/state',
      handler: async (call) => {
        const { state, deadline_ms } = parse(StateRequest, await call.body());
        const model = await catalog.setState(call.params.id ?? '', state, deadline_ms ?? null);
        const drainAt = model.drainAtMs === null ? null : new Date(model.drainAtMs).toISOString();
        sendJson(call.res, 202, { id: model.id, state: model.state, ...present({ drain_at: drainAt }) });
      },
    },
  ];
}
