/** The receipt of a task's run: what would make it repeatable, and the hash of what it said. */
import type { RunReceipt, SamplerProfile as SamplerProfileShape } from '../core/receipt.js';
import { receiptIn } from '../services/transcript.js';
import { builder } from './builder.js';

const ClaimKind = builder.enumType('DeterminismClaimKind', {
  description: 'What is claimed of an engine that is asked the same again.',
  values: {
    BYTE_EXACT: { value: 'byte_exact', description: 'It says the same, to the byte.' },
    NONE: { value: 'none', description: 'Nothing; it may still do so.' },
  } as const,
});

const DeterminismClaim = builder.objectRef<RunReceipt['claim']>('DeterminismClaim').implement({
  description: 'Whether an engine, in the way it was started, can be expected to repeat itself.',
  fields: (t) => ({
    kind: t.expose('kind', { type: ClaimKind, description: 'What is claimed.' }),
    because: t.exposeString('because', { description: 'On what it rests, or what stands in its way.' }),
  }),
});

const SamplerProfile = builder.objectRef<SamplerProfileShape>('SamplerProfile').implement({
  description: 'How tokens were chosen.',
  fields: (t) => ({
    version: t.exposeString('version', { description: 'Name of these settings.' }),
    temperature: t.exposeFloat('temperature', { description: 'Temperature.' }),
    topK: t.exposeInt('topK', { description: 'Candidates kept by rank.' }),
    topP: t.exposeFloat('topP', { description: 'Candidates kept by cumulated probability.' }),
    minP: t.exposeFloat('minP', { description: 'Least probability kept, relative to the best candidate.' }),
  }),
});

const Receipt = builder.objectRef<RunReceipt>('Receipt').implement({
  description: 'What another run must have in common with this one to give the same bytes, and the hash of its tokens.',
  fields: (t) => ({
    engineVersion: t.exposeString('engineVersion', { description: 'The build, as the engine tells it.' }),
    modelId: t.exposeString('modelId', { nullable: true, description: 'The model, as the engine names it.' }),
    modelDigest: t.exposeString('modelDigest', {
      nullable: true,
      description: 'Digest of the model, verified here where one was promised; null when nobody told one.',
    }),
    launchArgs: t.exposeStringList('launchArgs', {
      nullable: true,
      description: 'Arguments of the engine, secrets masked; null when llama-orch did not start it.',
    }),
    gpuUuids: t.exposeStringList('gpuUuids', { description: 'GPUs of the engine.' }),
    seed: t.expose('seed', { type: 'BigInt', description: 'Seed of the sampler.' }),
    samplerProfile: t.expose('sampler', { type: SamplerProfile, description: 'How tokens were chosen.' }),
    claim: t.expose('claim', { type: DeterminismClaim, description: 'What its engine promises of a repetition.' }),
    coResidentMax: t.exposeInt('coResidentMax', {
      nullable: true,
      description: 'Most other tasks on its replica at one time, in its last run; null when not known.',
    }),
    tokens: t.exposeInt('tokens', { description: 'Token events in the chain; an engine may count otherwise.' }),
    chainHash: t.exposeString('chainHash', {
      description:
        'Last link of the chain over the token events. A link is the SHA-256 of the link before it, as hex, followed by the JSON text [index,text]; before the first stand 64 zeros.',
    }),
  }),
});

builder.prismaObjectFields('Task', (t) => ({
  receipt: t.field({
    type: Receipt,
    nullable: true,
    description: 'Of the run that ended it, kept in its transcript; null until then, and when no run ended it.',
    // The transcript holds the whole text.
    complexity: 10,
    select: { transcript: { select: { content: true } } },
    resolve: ({ transcript }) => receiptIn(transcript?.content),
  }),
}));
