/** Steps of a replica's way to Ready. */
import type { PreloadStep as StepShape } from '../services/supervision/preload.js';
import { builder } from './builder.js';

const StepState = builder.enumType('PreloadStepState', {
  description: 'Where a step of a preload stands; the last two are final.',
  values: {
    RUNNING: { description: 'Under way.' },
    SUCCEEDED: { description: 'Passed.' },
    FAILED: { description: 'Not passed; `detail` says why.' },
  } satisfies Record<StepShape['state'], { description: string }>,
});

export const PreloadStep = builder.objectRef<StepShape>('PreloadStep').implement({
  description: 'One step between the decision to start an engine and Ready.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What is done in it, e.g. wait_until_ready.' }),
    state: t.expose('state', { type: StepState, description: 'Where it stands.' }),
    startedAt: t.field({
      type: 'DateTime',
      description: 'When it began.',
      resolve: (step) => new Date(step.startedAtMs),
    }),
    endedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When it ended; null while it runs.',
      resolve: (step) => (step.endedAtMs === null ? null : new Date(step.endedAtMs)),
    }),
    detail: t.exposeString('detail', { nullable: true, description: 'How far it is, or what came of it, in words.' }),
  }),
});

/** From the row, which holds nothing but what a replica wrote there. */
export function storedSteps(value: unknown): StepShape[] {
  return Array.isArray(value) ? (value as StepShape[]) : [];
}
