/** The catalog of models: what they are, whether they are trusted, and whether they take tasks. */
import {
  judge,
  type TrustPolicy as PolicyShape,
  type SbomRef,
  type SignatureMeta as SignatureShape,
} from '../core/trust.js';
import type { CatalogModelDraft } from '../services/catalog/catalog.js';
import type { Verified } from '../services/catalog/verifyModel.js';
import type { ModelState as StateValue } from '../store/generated/prisma/enums.js';
import { builder, pageCost } from './builder.js';
import { Reason } from './reason.js';

export const ModelState = builder.enumType('ModelState', {
  description: 'Whether a model takes tasks.',
  values: {
    ACTIVE: { value: 'Active', description: 'It does.' },
    RETIRED: { value: 'Retired', description: 'It takes no new ones: MODEL_DEPRECATED.' },
  } satisfies Record<Uppercase<StateValue>, { value: StateValue; description: string }>,
});

export const TrustMode = builder.enumType('TrustMode', {
  description: 'What becomes of a model that misses what a policy asks for.',
  values: {
    STRICT: {
      value: 'strict',
      description: 'It takes no tasks: UNTRUSTED_ARTIFACT. A signature is asked for in any case.',
    },
    PERMISSIVE: { value: 'permissive', description: 'It is said in its findings.' },
  } as const,
});

const VerificationResult = builder.enumType('ModelVerificationResult', {
  description: 'What came of verifying a model.',
  values: {
    PASSED: { description: 'Its file has its digest, and nothing is missing.' },
    WARNED: { description: 'Its file has its digest; `reasons` says what is missing.' },
    FAILED: { description: 'Its file has another digest, or the trust policy refuses it.' },
    UNREADABLE: { description: 'Its file is not here, or may not be read.' },
  } satisfies Record<Verified['result'], { description: string }>,
});

const TrustPolicy = builder.objectRef<PolicyShape>('TrustPolicy').implement({
  description: 'What is asked of a model; that of the configuration holds besides.',
  fields: (t) => ({
    mode: t.expose('mode', { type: TrustMode, description: 'Whether it refuses or only tells.' }),
    allowedRegistries: t.exposeStringList('allowedRegistries', {
      description: 'Where it may come from: hosts, `*.domain` or host/path; empty: anywhere.',
    }),
    requireSignature: t.exposeBoolean('requireSignature', { description: 'Whether it has to be signed.' }),
    requireSbom: t.exposeBoolean('requireSbom', { description: 'Whether it has to have an SBOM.' }),
    caRoots: t.exposeStringList('caRoots', { description: 'Roots of its signatures, as they were given.' }),
  }),
});

const SignatureMeta = builder.objectRef<SignatureShape>('SignatureMeta').implement({
  description: 'A signature, as its caller described it.',
  fields: (t) => ({
    signer: t.exposeString('signer', { nullable: true, description: 'Who signed.' }),
    algo: t.exposeString('algo', { nullable: true, description: 'The algorithm.' }),
    verified: t.exposeBoolean('verified', {
      description: 'Whether llama-orch has verified it; false whatever a caller says.',
    }),
    timestampMs: t.float({
      nullable: true,
      description: 'When it was signed, ms since 1970.',
      resolve: ({ timestampMs }) => timestampMs,
    }),
  }),
});

const Sbom = builder.objectRef<SbomRef>('SbomRef').implement({
  description: 'Where the bill of materials of a model is.',
  fields: (t) => ({
    uri: t.exposeString('uri', { nullable: true, description: 'Where.' }),
    digest: t.exposeString('digest', { nullable: true, description: 'Its digest.' }),
  }),
});

const Manifest = builder.objectRef<CatalogModelDraft['manifests'][number]>('ModelManifest').implement({
  description: 'A part of a model.',
  fields: (t) => ({
    digest: t.exposeString('digest', { nullable: true, description: 'Its digest.' }),
    sizeBytes: t.float({ nullable: true, description: 'Its size.', resolve: ({ sizeBytes }) => sizeBytes }),
  }),
});

export const Verification = builder.objectRef<Verified>('ModelVerification').implement({
  description: 'What came of verifying a model.',
  fields: (t) => ({
    result: t.expose('result', { type: VerificationResult, description: 'At one glance.' }),
    reasons: t.field({
      type: [Reason],
      description: 'All that is to be said about it, the worst first.',
      complexity: { field: 1, multiplier: 4 },
      resolve: ({ reasons }) => [...reasons],
    }),
    digest: t.exposeString('digest', { nullable: true, description: 'sha256:hex of its file; null: it was not read.' }),
    at: t.field({ type: 'DateTime', description: 'When.', resolve: ({ atMs }) => new Date(atMs) }),
  }),
});

/** Written by the service alone, in the shapes that are read. */
function stored<Shape>(value: unknown): Shape {
  return value as Shape;
}

const CatalogModel = builder.prismaNode('CatalogModel', {
  id: { field: 'id' },
  nullable: true,
  description:
    'A model as its operator describes it. Tasks may ask for it by modelId, and by digest once it is verified.',
  fields: (t) => ({
    modelId: t.exposeString('id', { description: 'Its id in the catalog; the model_id of the metrics.' }),
    digest: t.exposeString('digest', { description: 'sha256:hex that its file has to have.' }),
    sourceUrl: t.exposeString('sourceUrl', {
      nullable: true,
      description: 'Where it comes from: file:, hf:, https:, s3: or oci:.',
    }),
    tags: t.exposeStringList('tags', { description: 'Words that describe it.' }),
    manifests: t.field({
      type: [Manifest],
      description: 'Its parts.',
      complexity: { field: 1, multiplier: 5 },
      resolve: ({ manifests }) => stored<CatalogModelDraft['manifests']>(manifests) as never,
    }),
    signatures: t.field({
      type: [SignatureMeta],
      description: 'Its signatures.',
      complexity: { field: 1, multiplier: 5 },
      resolve: ({ signatures }) => stored<SignatureShape[]>(signatures),
    }),
    sbom: t.field({
      type: Sbom,
      nullable: true,
      description: 'Its SBOM.',
      resolve: ({ sbom }) => stored<SbomRef | null>(sbom),
    }),
    trustPolicy: t.field({
      type: TrustPolicy,
      nullable: true,
      description: 'Its own policy, which can make that of the configuration tighter, and not looser.',
      resolve: ({ trustPolicy }) => stored<PolicyShape | null>(trustPolicy),
    }),
    state: t.field({ type: ModelState, description: 'Whether it takes tasks.', resolve: ({ state }) => state }),
    drainAt: t.expose('drainAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When pools that serve it are drained; null: they are not.',
    }),
    findings: t.field({
      type: [Reason],
      description: 'What the trust policies miss in it, the worst first.',
      complexity: { field: 1, multiplier: 4 },
      resolve: (model, _args, { services }) => {
        const facts = {
          sourceUrl: model.sourceUrl,
          signatures: stored<SignatureShape[]>(model.signatures),
          sbom: stored<SbomRef | null>(model.sbom),
          trustPolicy: stored<PolicyShape | null>(model.trustPolicy),
        };
        return [...judge(facts, services.catalogView.policy).findings];
      },
    }),
    verification: t.field({
      type: Verification,
      nullable: true,
      description: 'What came of its last verification; null: there was none.',
      resolve: ({ verification }) => stored<Verified | null>(verification),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was registered.' }),
  }),
});

const CatalogModelConnection = builder.connectionObject(
  { type: CatalogModel, name: 'CatalogModelConnection', description: 'A page of models.' },
  { name: 'CatalogModelEdge', description: 'A model in a page.' },
);

builder.queryFields((t) => ({
  catalogModel: t.prismaField({
    type: 'CatalogModel',
    nullable: true,
    description: 'The model of that id; null when there is none.',
    args: { modelId: t.arg.string({ required: true, description: 'Its id in the catalog.' }) },
    resolve: (query, _root, { modelId }, { prisma }) =>
      prisma.catalogModel.findUnique({ ...query, where: { id: modelId } }),
  }),
  catalogModels: t.prismaConnection(
    {
      type: CatalogModel,
      cursor: 'id',
      description: 'Models of the catalog, the newest first.',
      complexity: pageCost,
      args: { state: t.arg({ type: ModelState, description: 'Only those in this state.' }) },
      resolve: (query, _root, { state }, { prisma }) =>
        prisma.catalogModel.findMany({
          ...query,
          where: state == null ? {} : { state },
          orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
        }),
    },
    CatalogModelConnection,
  ),
}));

builder.prismaObjectFields('Pool', (t) => ({
  model: t.prismaField({
    type: 'CatalogModel',
    nullable: true,
    description: 'The model that it serves, as the catalog describes it; the first one that fits, null: none does.',
    complexity: 2,
    select: { id: true, modelRef: true },
    resolve: (query, { id, modelRef }, _args, { prisma, services }) => {
      const [modelId] = services.catalogView.idsServedBy({ id, modelRef });
      return modelId === undefined ? null : prisma.catalogModel.findUnique({ ...query, where: { id: modelId } });
    },
  }),
}));
