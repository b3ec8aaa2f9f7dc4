/** Why something is as it is, and what to do about it. */
import type { Reason as ReasonShape } from '../core/pool.js';
import { builder } from './builder.js';

export const Reason = builder.objectRef<ReasonShape>('Reason').implement({
  description: 'Why something is as it is, and what to do about it.',
  fields: (t) => ({
    code: t.exposeString('code', { description: 'The same for the same cause.' }),
    message: t.exposeString('message', { description: 'The cause in words.' }),
    fix: t.exposeString('fix', { nullable: true, description: 'What to do, if anything can be done.' }),
  }),
});

/** Reasons are stored as JSON by us alone; anything else there is none. */
export function storedReason(value: unknown): ReasonShape | null {
  if (typeof value !== 'object' || value === null) return null;
  const { code, message, fix } = value as Partial<ReasonShape>;
  if (typeof code !== 'string' || typeof message !== 'string') return null;
  return { code, message, fix: fix ?? null };
}
