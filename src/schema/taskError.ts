/** The error that ended a task. */
import type { TaskFailure } from '../core/errors.js';
import { builder } from './builder.js';
import { Engine, ErrorCode } from './enums.js';

export const TaskError = builder.objectRef<TaskFailure>('TaskError').implement({
  description: 'Why a task failed.',
  fields: (t) => ({
    code: t.field({ type: ErrorCode, description: 'What went wrong.', resolve: (error) => error.code }),
    message: t.exposeString('message', { description: 'The same in words.' }),
    engine: t.field({
      type: Engine,
      nullable: true,
      description: 'The engine it ran on, if it had one.',
      resolve: (error) => error.engine ?? null,
    }),
    retriable: t.exposeBoolean('retriable', {
      description: 'Whether the same task may succeed when it is sent again.',
    }),
    retryAfterMs: t.int({
      nullable: true,
      description: 'How long to wait before that, ms.',
      resolve: (error) => error.retryAfterMs ?? null,
    }),
  }),
});

/** As it was stored with the task. */
export function storedFailure(value: unknown): TaskFailure | null {
  if (typeof value !== 'object' || value === null || !('code' in value)) return null;
  return value as TaskFailure;
}
