/** Artifacts: what tasks and their callers leave behind. */
import { z } from 'zod';
import { ARTIFACT_KINDS, type ArtifactKind as KindValue } from '../core/artifact.js';
import { builder, pageCost } from './builder.js';
import { MAX_PAGE } from './connections.js';
import { asData, InvalidParams, Unavailable } from './refusal.js';

const ArtifactKind = builder.enumType('ArtifactKind', {
  description: 'What an artifact is.',
  values: {
    PLAN: { value: 'plan', description: 'What is to be done.' },
    SUMMARY: { value: 'summary', description: 'What something longer says.' },
    DIFF: { value: 'diff', description: 'What two things differ in.' },
    TRACE: { value: 'trace', description: 'What happened; the transcript of a task is one.' },
    OTHER: { value: 'other', description: 'Anything else.' },
  } satisfies Record<Uppercase<KindValue>, { value: KindValue; description: string }>,
});

const Artifact = builder.prismaNode('Artifact', {
  id: { field: 'id' },
  nullable: true,
  description: 'Something kept under the hash of what it is; it never changes.',
  // Contents are read when they are asked for.
  select: { id: true },
  fields: (t) => ({
    artifactId: t.exposeString('id', {
      description: 'sha256:hex of the canonical JSON of all of it; of its content alone where llama-orch made it.',
    }),
    digest: t.string({
      description: 'sha256:hex of its content.',
      select: { digest: true },
      resolve: ({ id, digest }) => digest ?? id,
    }),
    kind: t.field({
      type: ArtifactKind,
      description: 'What it is.',
      select: { kind: true },
      // Written by the services alone, from the same set.
      resolve: ({ kind }) => ARTIFACT_KINDS.find((known) => known === kind) ?? 'other',
    }),
    content: t.expose('content', {
      type: 'JSON',
      description: 'The artifact itself, up to 1 MiB; transcripts may be larger.',
      complexity: 500,
    }),
    metadata: t.expose('metadata', { type: 'JSON', nullable: true, description: 'What its maker says about it.' }),
    tags: t.exposeStringList('tags', { description: 'Words to find it by, in order.' }),
    sizeBytes: t.exposeInt('sizeBytes', { description: 'Of content and metadata.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was stored.' }),
    parent: t.relation('ancestor', { nullable: true, description: 'What it was made from.' }),
    ancestors: t.prismaField({
      type: ['Artifact'],
      description: 'Its parent, the parent of that, and so on, at most 100.',
      args: {
        first: t.arg.int({
          required: true,
          description: `How many to return, 1 to ${MAX_PAGE}.`,
          validate: z.int().min(1).max(MAX_PAGE),
        }),
      },
      complexity: pageCost,
      resolve: async (query, { id }, { first }, { prisma, services }) => {
        const line = await services.artifacts.ancestors(id, first);
        const found = await prisma.artifact.findMany({ ...query, where: { id: { in: line } } });
        return found.sort((a, b) => line.indexOf(a.id) - line.indexOf(b.id));
      },
    }),
  }),
});

const ArtifactConnection = builder.connectionObject(
  { type: Artifact, name: 'ArtifactConnection', description: 'A page of artifacts.' },
  { name: 'ArtifactEdge', description: 'An artifact in a page.' },
);

builder.prismaObjectFields('Artifact', (t) => ({
  children: t.relatedConnection(
    'children',
    {
      cursor: 'id',
      description: 'What was made from it, the newest first.',
      complexity: pageCost,
      query: { orderBy: [{ createdAt: 'desc' }, { id: 'desc' }] },
    },
    ArtifactConnection,
  ),
}));

const ArtifactFilter = builder.inputType('ArtifactFilter', {
  description: 'Every condition that is given must hold.',
  fields: (t) => ({
    kind: t.field({ type: ArtifactKind, description: 'Of this kind.' }),
    tag: t.string({ description: 'With this tag.' }),
  }),
});

builder.queryFields((t) => ({
  artifact: t.prismaField({
    type: 'Artifact',
    nullable: true,
    description: 'The artifact of that id; null when there is none.',
    args: { artifactId: t.arg.string({ required: true, description: 'sha256:hex.' }) },
    resolve: (query, _root, { artifactId }, { prisma }) =>
      prisma.artifact.findUnique({ ...query, where: { id: artifactId } }),
  }),
  artifacts: t.prismaConnection(
    {
      type: Artifact,
      cursor: 'id',
      description: 'Artifacts, the newest first.',
      complexity: pageCost,
      args: { filter: t.arg({ type: ArtifactFilter, description: 'Which ones; all when it is left out.' }) },
      resolve: (query, _root, { filter }, { prisma }) =>
        prisma.artifact.findMany({
          ...query,
          where: {
            ...(filter?.kind == null ? {} : { kind: filter.kind }),
            ...(filter?.tag == null ? {} : { tags: { has: filter.tag } }),
          },
          orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
        }),
    },
    ArtifactConnection,
  ),
}));

const ArtifactCreated = builder.objectRef<{ readonly id: string }>('ArtifactCreated').implement({
  description: 'The artifact is durable.',
  fields: (t) => ({
    artifact: t.prismaField({
      type: 'Artifact',
      description: 'As it is kept; the one that was there already when it is the same.',
      resolve: (query, { id }, _args, { prisma }) => prisma.artifact.findUniqueOrThrow({ ...query, where: { id } }),
    }),
  }),
});

const CreateArtifactResult = builder.errorUnion('CreateArtifactResult', {
  description: 'The artifact that is kept, or why none is.',
  types: [ArtifactCreated, InvalidParams, Unavailable],
  resolveType: () => 'ArtifactCreated',
});

const CreateArtifactInput = builder.inputType('CreateArtifactInput', {
  description: 'What to keep. All of it makes its id.',
  fields: (t) => ({
    kind: t.field({ type: ArtifactKind, required: true, description: 'What it is.' }),
    content: t.field({ type: 'JSON', required: true, description: 'An object, at most 1 MiB with its metadata.' }),
    metadata: t.field({ type: 'JSON', description: 'An object.' }),
    tags: t.stringList({ description: 'Words to find it by; their order means nothing.' }),
    parent: t.string({ description: 'The artifactId of what it was made from.' }),
  }),
});

builder.mutationField('createArtifact', (t) =>
  t.field({
    type: CreateArtifactResult,
    description: 'Keeps an artifact; keeping the same twice is the same as once.',
    args: { input: t.arg({ type: CreateArtifactInput, required: true, description: 'What to keep.' }) },
    resolve: async (_root, { input }, { services }) => {
      const { kind, content, metadata, tags, parent } = input;
      const draft = { kind, content, metadata: metadata ?? null, tags: tags ?? [], parent: parent ?? null };
      return { id: (await asData(services.artifacts.create(draft))).id };
    },
  }),
);
