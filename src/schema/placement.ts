/** Where a task goes, and why. */
import type { CandidateVerdict, PlacementExplanation as Explanation } from '../core/placement.js';
import { builder } from './builder.js';

const PlacementCandidate = builder.objectRef<CandidateVerdict>('PlacementCandidate').implement({
  description: 'A pool that was looked at, and the verdict on it.',
  fields: (t) => ({
    pool: t.exposeString('poolId', { description: 'Name of the pool.' }),
    refusedBecause: t.exposeString('refusedBecause', {
      nullable: true,
      description: 'The rule that ruled it out; null when the task could go there.',
    }),
    preferred: t.exposeBoolean('preferred', { description: 'Whether the request preferred it.' }),
    ready: t.exposeBoolean('ready', { description: 'Whether it was ready.' }),
    slotsFree: t.exposeInt('slotsFree', { description: 'How many slots were free.' }),
    queueDepth: t.exposeInt('queueDepth', { description: 'How many tasks waited.' }),
  }),
});

export const PlacementExplanation = builder.objectRef<Explanation>('PlacementExplanation').implement({
  description: 'Which pool a task goes to, and why not to another.',
  fields: (t) => ({
    candidates: t.field({
      type: [PlacementCandidate],
      description: 'Every pool that was looked at.',
      complexity: { field: 1, multiplier: 5 },
      resolve: (explanation) => explanation.candidates,
    }),
    chosen: t.exposeString('chosen', {
      nullable: true,
      description: 'Name of the chosen pool; null when none was feasible.',
    }),
    rule: t.exposeString('rule', { description: 'What decided between feasible pools, in order.' }),
  }),
});

/** As admission stored it with the task. */
export function storedExplanation(value: unknown): Explanation | null {
  if (typeof value !== 'object' || value === null || !('candidates' in value)) return null;
  return value as Explanation;
}
