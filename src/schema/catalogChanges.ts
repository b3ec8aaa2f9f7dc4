/** What can be done to the catalog of models. */
import type { Verified } from '../services/catalog/verifyModel.js';
import { builder } from './builder.js';
import { ModelState, TrustMode, Verification } from './catalog.js';
import { asData, Conflict, InvalidParams, NotFound, Unavailable } from './refusal.js';

const SignatureInput = builder.inputType('SignatureMetaInput', {
  description: 'A signature of a model; it is recorded, and not verified.',
  fields: (t) => ({
    signer: t.string({ description: 'Who signed.' }),
    algo: t.string({ description: 'The algorithm.' }),
    timestampMs: t.float({ description: 'When, ms since 1970.' }),
  }),
});

const SbomInput = builder.inputType('SbomRefInput', {
  description: 'Where the bill of materials of a model is.',
  fields: (t) => ({ uri: t.string({ description: 'Where.' }), digest: t.string({ description: 'Its digest.' }) }),
});

const ManifestInput = builder.inputType('ModelManifestInput', {
  description: 'A part of a model.',
  fields: (t) => ({
    digest: t.string({ description: 'Its digest.' }),
    sizeBytes: t.float({ description: 'Its size.' }),
  }),
});

const TrustPolicyInput = builder.inputType('TrustPolicyInput', {
  description: 'What is asked of this model besides what the configuration asks of all.',
  fields: (t) => ({
    mode: t.field({ type: TrustMode, required: true, description: 'Whether it refuses or only tells.' }),
    allowedRegistries: t.stringList({ description: 'Hosts, `*.domain` or host/path; empty: anywhere.' }),
    requireSignature: t.boolean({ description: 'Whether it has to be signed.' }),
    requireSbom: t.boolean({ description: 'Whether it has to have an SBOM.' }),
    caRoots: t.stringList({ description: 'Roots of its signatures; they are recorded.' }),
  }),
});

const CreateCatalogModelInput = builder.inputType('CreateCatalogModelInput', {
  description: 'A model.',
  fields: (t) => ({
    modelId: t.string({ required: true, description: '1 to 255 of A-Z a-z 0-9 . _ : / @ + -.' }),
    digest: t.string({ required: true, description: 'sha256:hex of its file.' }),
    sourceUrl: t.string({ description: 'file:, hf:organisation/repository/file, https:, s3: or oci:.' }),
    tags: t.stringList({ description: 'Words that describe it.' }),
    manifests: t.field({ type: [ManifestInput], description: 'Its parts.' }),
    signatures: t.field({ type: [SignatureInput], description: 'Its signatures.' }),
    sbom: t.field({ type: SbomInput, description: 'Its SBOM.' }),
    trustPolicy: t.field({ type: TrustPolicyInput, description: 'Its own policy.' }),
  }),
});

interface Changed {
  readonly id: string;
}

const CatalogModelChanged = builder.objectRef<Changed>('CatalogModelChanged').implement({
  description: 'The catalog has it so.',
  fields: (t) => ({
    model: t.prismaField({
      type: 'CatalogModel',
      description: 'As it is now.',
      resolve: (query, { id }, _args, { prisma }) => prisma.catalogModel.findUniqueOrThrow({ ...query, where: { id } }),
    }),
  }),
});

const CatalogModelResult = builder.errorUnion('CatalogModelResult', {
  description: 'The model, or why nothing was changed.',
  types: [CatalogModelChanged, InvalidParams, Conflict, NotFound, Unavailable],
  resolveType: () => 'CatalogModelChanged',
});

const CatalogModelVerified = builder
  .objectRef<Changed & { readonly verification: Verified | null }>('CatalogModelVerified')
  .implement({
    description: 'It may be used.',
    fields: (t) => ({
      verification: t.field({
        type: Verification,
        nullable: true,
        description: 'What came of it; null while its file is being read: ask for its `verification` later.',
        resolve: ({ verification }) => verification,
      }),
      model: t.prismaField({
        type: 'CatalogModel',
        description: 'As it is now.',
        resolve: (query, { id }, _args, { prisma }) =>
          prisma.catalogModel.findUniqueOrThrow({ ...query, where: { id } }),
      }),
    }),
  });

const VerifyCatalogModelResult = builder.errorUnion('VerifyCatalogModelResult', {
  description: 'What came of it, or why the model is not trusted: InvalidParams with UNTRUSTED_ARTIFACT.',
  types: [CatalogModelVerified, InvalidParams, NotFound, Unavailable],
  resolveType: () => 'CatalogModelVerified',
});

const CatalogModelDeleted = builder.objectRef<Changed>('CatalogModelDeleted').implement({
  description: 'The catalog does not have it any more; its file stays.',
  fields: (t) => ({ modelId: t.exposeString('id', { description: 'Its id.' }) }),
});

const DeleteCatalogModelResult = builder.errorUnion('DeleteCatalogModelResult', {
  description: 'What was deleted, or why nothing was.',
  types: [CatalogModelDeleted, NotFound, Unavailable],
  resolveType: () => 'CatalogModelDeleted',
});

const CatalogModelInput = builder.inputType('CatalogModelInput', {
  description: 'Which model.',
  fields: (t) => ({ modelId: t.string({ required: true, description: 'Its id in the catalog.' }) }),
});

const SetCatalogModelStateInput = builder.inputType('SetCatalogModelStateInput', {
  description: 'Whether a model takes tasks.',
  fields: (t) => ({
    modelId: t.string({ required: true, description: 'Its id in the catalog.' }),
    state: t.field({ type: ModelState, required: true, description: 'Active or retired.' }),
    deadlineMs: t.int({
      description: 'Of RETIRED: after so long the pools that serve it are drained; left out: they are not.',
    }),
  }),
});

type CreateInput = typeof CreateCatalogModelInput.$inferInput;

function draftOf(input: CreateInput) {
  const { modelId, digest, sourceUrl, tags, manifests, signatures, sbom, trustPolicy } = input;
  return {
    id: modelId,
    digest,
    sourceUrl: sourceUrl ?? null,
    tags: tags ?? [],
    manifests: (manifests ?? []).map((one) => ({ digest: one.digest ?? null, sizeBytes: one.sizeBytes ?? null })),
    signatures: (signatures ?? []).map(({ signer, algo, timestampMs }) => ({
      ...{ signer: signer ?? null, algo: algo ?? null, verified: false, timestampMs: timestampMs ?? null },
    })),
    sbom: sbom == null ? null : { uri: sbom.uri ?? null, digest: sbom.digest ?? null },
    trustPolicy:
      trustPolicy == null
        ? null
        : {
            mode: trustPolicy.mode,
            allowedRegistries: trustPolicy.allowedRegistries ?? [],
            requireSignature: trustPolicy.requireSignature ?? false,
            requireSbom: trustPolicy.requireSbom ?? false,
            caRoots: trustPolicy.caRoots ?? [],
          },
  };
}

builder.mutationFields((t) => ({
  createCatalogModel: t.field({
    type: CatalogModelResult,
    description: 'Registers a model; the same twice is the same as once.',
    args: { input: t.arg({ type: CreateCatalogModelInput, required: true, description: 'The model.' }) },
    resolve: async (_root, { input }, { services }) => ({
      id: (await asData(services.catalog.create(draftOf(input)))).id,
    }),
  }),
  verifyCatalogModel: t.field({
    type: VerifyCatalogModelResult,
    description: 'Judges a model by the trust policy, and holds its file against its digest.',
    args: { input: t.arg({ type: CatalogModelInput, required: true, description: 'Which model.' }) },
    resolve: async (_root, { input }, { services, correlationId }) => ({
      id: input.modelId,
      verification: await asData(services.catalog.verify(input.modelId, correlationId)),
    }),
  }),
  setCatalogModelState: t.field({
    type: CatalogModelResult,
    description:
      'Retires a model, or makes it active again. A pool that was drained for it stays so until it is resumed.',
    args: { input: t.arg({ type: SetCatalogModelStateInput, required: true, description: 'What it shall be.' }) },
    resolve: async (_root, { input }, { services, correlationId }) => {
      const { modelId, state, deadlineMs } = input;
      return { id: (await asData(services.catalog.setState(modelId, state, deadlineMs ?? null, correlationId))).id };
    },
  }),
  deleteCatalogModel: t.field({
    type: DeleteCatalogModelResult,
    description: 'Forgets a model.',
    args: { input: t.arg({ type: CatalogModelInput, required: true, description: 'Which model.' }) },
    resolve: async (_root, { input }, { services }) => {
      await asData(services.catalog.delete(input.modelId));
      return { id: input.modelId };
    },
  }),
}));
