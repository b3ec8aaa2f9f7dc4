/** What a session is held to, and whether its next task may find what it has in common with the last one in a cache. */
import type { BudgetLimits } from './budget.js';
import { invalid, type Refusal } from './errors.js';
import type { Determinism } from './task.js';

export interface SessionRules {
  /** From the admission of its last task, ms. */
  readonly ttlMs: number;
  readonly maxTurns: number;
  /** Of a session that none were set for. */
  readonly limits: BudgetLimits;
}

export function refusedByTurns(sessionId: string, maxTurns: number): Refusal {
  return invalid(
    'session_id',
    `session ${sessionId} has had its ${maxTurns} turns; go on in another session, or raise sessions.max_turns`,
  );
}

export interface PromptCache {
  /** Whether the engine may take what its cache has of the prompt, as far as it can be told. */
  readonly used: boolean;
  readonly because: string;
}

/** A strict run reads its prompt anew whatever is hinted: with a part of it from a cache the arithmetic is another. */
export function promptCache(task: {
  readonly determinism: Determinism;
  readonly kvHint: 'reuse' | 'cold' | null;
}): PromptCache {
  const { determinism, kvHint } = task;
  if (determinism === 'strict') {
    const hinted = kvHint === 'reuse' ? '; kv_hint reuse gives way to it' : '';
    return { used: false, because: `strict determinism reads the whole prompt${hinted}` };
  }
  if (kvHint === 'cold') return { used: false, because: 'kv_hint is cold' };
  return { used: true, because: kvHint === 'reuse' ? 'kv_hint is reuse' : 'best_effort allows it' };
}
