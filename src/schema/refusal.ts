/** Expected failures as data: one concrete type per family of refusals, all with the same fields. */
import { RefusalError, type RefusalFamily } from '../core/errors.js';
import { builder } from './builder.js';
import { Engine, ErrorCode } from './enums.js';

const Refusal = builder.interfaceRef<RefusalError>('Refusal').implement({
  description: 'An expected failure: nothing was changed, and the fields say what to do about it.',
  fields: (t) => ({
    code: t.field({
      type: ErrorCode,
      description: 'What went wrong.',
      resolve: (error) => error.refusal.code,
    }),
    message: t.string({ description: 'The same in words.', resolve: (error) => error.refusal.message }),
    engine: t.field({
      type: Engine,
      nullable: true,
      description: 'The engine concerned, if one is.',
      resolve: (error) => error.refusal.engine ?? null,
    }),
    retriable: t.boolean({
      description: 'Whether the same request may succeed later.',
      resolve: (error) => error.refusal.retriable,
    }),
    retryAfterMs: t.int({
      nullable: true,
      description: 'How long to wait before trying again, ms.',
      resolve: (error) => error.refusal.retryAfterMs ?? null,
    }),
    policyLabel: t.string({
      nullable: true,
      description: 'The policy that refused, if one did: that of a full queue, or `rate-limit`.',
      resolve: (error) => error.refusal.policyLabel ?? null,
    }),
    field: t.string({
      nullable: true,
      description: 'Path of the offending input, in the names of the wire, e.g. `max_tokens`.',
      resolve: (error) => error.refusal.field ?? null,
    }),
  }),
});

export class InvalidParams extends RefusalError {}
export class Backpressure extends RefusalError {}
export class Unavailable extends RefusalError {}
export class Conflict extends RefusalError {}
export class NotFound extends RefusalError {}

const OF_FAMILY: Readonly<Record<RefusalFamily, typeof RefusalError>> = {
  invalid: InvalidParams,
  backpressure: Backpressure,
  unavailable: Unavailable,
  conflict: Conflict,
  not_found: NotFound,
  failed: RefusalError,
};

builder.objectType(InvalidParams, {
  name: 'InvalidParams',
  description: 'The request cannot succeed as it was sent; `retriable` says whether it may later.',
  interfaces: [Refusal],
});
builder.objectType(Backpressure, {
  name: 'Backpressure',
  description: 'There is more work than room for it; try again after `retryAfterMs`.',
  interfaces: [Refusal],
});
builder.objectType(Unavailable, {
  name: 'Unavailable',
  description: 'What is needed for the request is not there now; try again after `retryAfterMs`.',
  interfaces: [Refusal],
});
builder.objectType(Conflict, {
  name: 'Conflict',
  description: 'The request contradicts something that already stands.',
  interfaces: [Refusal],
});
builder.objectType(NotFound, {
  name: 'NotFound',
  description: 'There is nothing of that id.',
  interfaces: [Refusal],
});

/** Lets a refusal of the services become the member of the field's result union that stands for its family. */
export async function asData<Result>(work: Promise<Result>): Promise<Result> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof RefusalError)) throw error;
    throw new OF_FAMILY[error.refusal.family](error.refusal, { cause: error });
  }
}
