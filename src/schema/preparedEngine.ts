/** Engines that were made ready on a host, and what it would take to make one ready. */
import {
  commandOf,
  type ProvisionMode as ModeValue,
  type ProvisionPlan,
  type ProvisionStep,
} from '../core/provision/plan.js';
import { builder } from './builder.js';
import { Engine } from './enums.js';
import { Reason } from './reason.js';

const ProvisionMode = builder.enumType('ProvisionMode', {
  description: 'How an engine comes to be on a host.',
  values: {
    EXTERNAL: { value: 'external', description: 'Somebody else runs it.' },
    SOURCE: { value: 'source', description: 'Cloned and built.' },
    CONTAINER: { value: 'container', description: 'An image, pinned by its digest.' },
    PACKAGE: { value: 'package', description: 'A package that the operator installs.' },
    BINARY: { value: 'binary', description: 'A program, from a URL or already there.' },
    SIMULATED: { value: 'simulated', description: 'No engine at all; one is imitated.' },
  } satisfies Record<Uppercase<ModeValue>, { value: ModeValue; description: string }>,
});

const PreparedEngine = builder.prismaNode('PreparedEngine', {
  id: { field: 'id' },
  nullable: true,
  description: 'An engine that was made ready to be launched on a host, and from what.',
  fields: (t) => ({
    engine: t.field({ type: Engine, description: 'Which engine.', resolve: (prepared) => prepared.engine }),
    mode: t.field({
      type: ProvisionMode,
      description: 'How it came to be there.',
      // Written by the service alone, from the same set.
      resolve: (prepared) => prepared.mode as ModeValue,
    }),
    version: t.exposeString('version', {
      nullable: true,
      description: 'The commit it was built from; null elsewhere.',
    }),
    buildRef: t.exposeString('buildRef', {
      description: 'What it was made from: a URL, a repository at a ref, an image.',
    }),
    digest: t.exposeString('digest', { nullable: true, description: 'SHA-256 of the program or image, hex.' }),
    flags: t.exposeStringList('flags', { description: 'Options it was built with, by name.' }),
    binaryPath: t.exposeString('binaryPath', { nullable: true, description: 'Where its program is.' }),
    image: t.exposeString('image', { nullable: true, description: 'Its image, with the digest.' }),
    preparedAt: t.expose('preparedAt', {
      type: 'DateTime',
      description: 'When what is there now was first found ready.',
    }),
  }),
});

const ProvisionStepType = builder.objectRef<ProvisionStep>('ProvisionStep').implement({
  description: 'One step of a provisioning plan.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'The same for the same step, e.g. git_fetch.' }),
    summary: t.exposeString('summary', { description: 'What is done, in words.' }),
    command: t.stringList({
      nullable: true,
      description: 'The program and its arguments; null where the step runs none.',
      resolve: (step) => commandOf(step),
    }),
  }),
});

const ProvisioningPlan = builder.objectRef<ProvisionPlan>('ProvisioningPlan').implement({
  description: 'What would be done now to have the engine of a pool on its host.',
  fields: (t) => ({
    mode: t.field({ type: ProvisionMode, description: 'How the engine comes.', resolve: (plan) => plan.mode }),
    buildRef: t.exposeString('buildRef', { description: 'What it is made from; empty where nothing is made.' }),
    steps: t.field({
      type: [ProvisionStepType],
      description: 'In order.',
      complexity: { field: 1, multiplier: 10 },
      resolve: (plan) => [...plan.steps],
    }),
    obstacles: t.field({
      type: [Reason],
      description: 'What stands in its way; empty when it can be carried out.',
      complexity: { field: 1, multiplier: 3 },
      resolve: (plan) => [...plan.obstacles],
    }),
  }),
});

builder.prismaObjectFields('Pool', (t) => ({
  provisioningPlan: t.field({
    type: ProvisioningPlan,
    nullable: true,
    description: 'What would be done now to have its engine here; null for a pool of another node.',
    complexity: 5,
    select: { id: true },
    resolve: (pool, _args, { services }) => services.provisioning.plan(pool.id),
  }),
}));

/** Rows of engines that no pool uses any more stay. */
const MAX_PREPARED = 100;

builder.queryField('preparedEngines', (t) =>
  t.prismaField({
    type: [PreparedEngine],
    description: `Engines that were made ready, the newest first; at most ${MAX_PREPARED}.`,
    complexity: { field: 2, multiplier: 10 },
    resolve: (query, _root, _args, { prisma }) =>
      prisma.preparedEngine.findMany({
        ...query,
        orderBy: [{ preparedAt: 'desc' }, { id: 'desc' }],
        take: MAX_PREPARED,
      }),
  }),
);
