/** Replicas: one engine process each. */
import { WORKLOADS } from '../core/workload.js';
import { builder } from './builder.js';
import { BreakerState, ReplicaHealth, ReplicaState, Workload } from './enums.js';
import { PreloadStep, storedSteps } from './preloadStep.js';
import { Reason, storedReason } from './reason.js';
import { activeLeases } from './shared.js';

export const Replica = builder.prismaNode('Replica', {
  id: { field: 'id' },
  nullable: true,
  description: 'One engine process of a pool, with its slots.',
  select: { id: true },
  fields: (t) => ({
    name: t.exposeString('id', { description: 'The replica_id of logs and metrics.' }),
    pool: t.relation('pool', { description: 'The pool it belongs to.' }),
    state: t.field({
      type: ReplicaState,
      description: 'Where its engine process stands.',
      select: { state: true },
      resolve: (replica) => replica.state,
    }),
    health: t.field({
      type: ReplicaHealth,
      description: 'How well it works, judged by the tokens it gives.',
      select: { health: true },
      resolve: (replica) => replica.health,
    }),
    breaker: t.field({
      type: BreakerState,
      description: 'Whether work goes to it, and whether it is trusted.',
      select: { breaker: true },
      resolve: (replica) => replica.breaker,
    }),
    preload: t.field({
      type: [PreloadStep],
      description: 'Steps of its present or last way to Ready, in order.',
      select: { preload: true },
      resolve: (replica) => storedSteps(replica.preload),
    }),
    engineVersion: t.exposeString('engineVersion', { nullable: true, description: 'As the engine reports it.' }),
    workloads: t.field({
      type: [Workload],
      description: 'What it takes, or may take as long as its engine has not been tried.',
      select: { workloads: true },
      resolve: ({ workloads }) => WORKLOADS.filter((workload) => workloads.includes(workload)),
    }),
    modelId: t.exposeString('modelId', {
      nullable: true,
      description: 'The model it has loaded, as the engine names it.',
    }),
    deviceMask: t.exposeString('deviceMask', { description: 'The devices its engine may see.' }),
    slotsTotal: t.exposeInt('slotsTotal', { description: 'How many tasks it runs at once.' }),
    slotsFree: t.int({
      description: 'How many more it would take now; 0 unless it is ready.',
      complexity: 2,
      select: { state: true, slotsTotal: true },
      resolve: async (replica, _args, context) => {
        if (replica.state !== 'READY') return 0;
        return Math.max(0, replica.slotsTotal - ((await activeLeases(context)).get(replica.id) ?? 0));
      },
    }),
    vramBytes: t.field({
      type: 'BigInt',
      description: 'GPU memory reserved for it.',
      select: { vramBytes: true },
      resolve: (replica) => replica.vramBytes,
    }),
    modelRef: t.exposeString('modelRef', {
      nullable: true,
      description: "The model it was started to serve; not the pool's while a reload is under way.",
    }),
    kvUsage: t.exposeFloat('kvUsage', {
      nullable: true,
      description: 'Share of its KV cache in use, 0 to 1; null where the engine does not tell.',
    }),
    restartCount: t.exposeInt('restartCount', { description: 'How often its engine was started again.' }),
    backoffUntil: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When it is started again; null unless it is backing off.',
      select: { backoffUntil: true },
      resolve: (replica) => replica.backoffUntil,
    }),
    lastHeartbeatAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When its engine last showed that it is alive.',
      select: { lastHeartbeatAt: true },
      resolve: (replica) => replica.lastHeartbeatAt,
    }),
    lastError: t.field({
      type: Reason,
      nullable: true,
      description: 'The last thing that went wrong with it.',
      select: { lastError: true },
      resolve: (replica) => storedReason(replica.lastError),
    }),
    tokensPerSecond: t.exposeFloat('tokensPerSecond', { nullable: true, description: 'Of its last task.' }),
    firstTokenMs: t.exposeFloat('firstTokenMs', {
      nullable: true,
      description: 'Time to the first token of its last task, ms.',
    }),
  }),
});
