/** Whether two runs said the same. Texts are compared, not tokens: an engine may cut the same text in other places. */
import type { Reason } from './pool.js';
import { Replay } from './replay.js';

export interface Said {
  readonly tokens: readonly string[];
  /** It ended by itself, so that this is all; else it was stopped, and might have said more. */
  readonly complete: boolean;
}

export type Comparison =
  | { readonly verdict: 'identical' }
  /** `index` of the first token of `expected` that was not repeated; as many as it has: the other one went on. */
  | {
      readonly verdict: 'diverged';
      readonly index: number;
      /** The token itself; null: the run had ended there. */
      readonly expected: string | null;
      /** What came in its place; null: the other run had ended there. */
      readonly got: string | null;
    }
  /** The other run was stopped before it was as far; all that it said is the same. */
  | { readonly verdict: 'unfinished' };

/** What came of running a task again. */
export interface Findings {
  readonly verdict: 'IDENTICAL' | 'DIVERGED' | 'NOT_COMPARABLE';
  /** Index of the first token that was not repeated; null unless they diverged. */
  readonly firstDivergentIndex: number | null;
  readonly expected: string | null;
  readonly got: string | null;
  /** What differed between the runs besides their text, or why they cannot be compared. */
  readonly reasons: readonly Reason[];
}

/** The most text of a difference that is told, UTF-16 units. */
const QUOTED = 200;

export function compareRuns(expected: Said, got: Said): Comparison {
  const replay = new Replay(expected.tokens);
  const replayed = replay.take(got.tokens);
  if (replayed.verdict === 'diverged') return divergedAt(replayed.index, expected, got);
  if (!replay.finish()) return got.complete ? divergedAt(replay.index, expected, got) : { verdict: 'unfinished' };
  const wentOn = expected.complete && replayed.fresh.some((text) => text !== '');
  return wentOn ? divergedAt(expected.tokens.length, expected, got) : { verdict: 'identical' };
}

function divergedAt(index: number, expected: Said, got: Said): Comparison {
  const token = expected.tokens[index] ?? null;
  const from = expected.tokens.slice(0, index).reduce((sum, text) => sum + text.length, 0);
  const length = token === null ? QUOTED : Math.min(token.length, QUOTED);
  const instead = got.tokens.join('').slice(from, from + length);
  return {
    verdict: 'diverged',
    index,
    expected: token === null ? null : token.slice(0, QUOTED),
    got: instead === '' ? null : instead,
  };
}
