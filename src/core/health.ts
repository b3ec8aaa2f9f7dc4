/** How well a replica works, judged by the tokens it gives and not by what its engine says of itself. Pure. */
import { ewma } from './ewma.js';
import type { ReplicaState } from './replica.js';

/** What an operator reads first: is it coming, working, slow, stuck, or gone. */
export const REPLICA_HEALTH = ['LOADING', 'READY', 'SLOW', 'STALLED', 'DEAD'] as const;
export type ReplicaHealth = (typeof REPLICA_HEALTH)[number];

export interface Vitals {
  /** How long none of the completions under way gave a token, ms; null: none is under way. */
  readonly silentForMs: number | null;
  /** What a stream may be silent before it is given up, ms. */
  readonly idleTimeoutMs: number;
  /** How long the last canary took for its one token, ms; null: there was none since the last completion. */
  readonly canaryMs: number | null;
  /** Of the last few tasks, and of many. */
  readonly speed: Speed;
}

/** Tokens per second; null: no task has ended yet. */
export interface Speed {
  readonly recent: number | null;
  readonly usual: number | null;
}

/** Shares of the idle timeout. A stall is called before the streams are given up, so that nothing new joins them. */
const STALLED_SHARE = 0.5;
const SLOW_SHARE = 0.25;
/** Below this a silence is ordinary: a prompt is being read. */
const SLOW_AT_LEAST_MS = 1_000;
const SLOW_CANARY_MS = 5_000;
/** Load, long prompts and co-residents halve the speed; none of them makes a fifth of it. */
const SLOW_SPEED_SHARE = 0.2;
const RECENT_WEIGHT = 0.3;
const USUAL_WEIGHT = 0.02;

export const NO_SPEED: Speed = { recent: null, usual: null };

export function isStalled({ silentForMs, idleTimeoutMs }: Pick<Vitals, 'silentForMs' | 'idleTimeoutMs'>): boolean {
  return silentForMs !== null && silentForMs >= idleTimeoutMs * STALLED_SHARE;
}

export function healthOf(state: ReplicaState, vitals: Vitals): ReplicaHealth {
  switch (state) {
    case 'READY':
    case 'DRAINING':
      return workingHealth(vitals);
    case 'ABSENT':
    case 'PROVISIONING':
    case 'STARTING':
    case 'PRELOADING':
    case 'SELF_TESTING':
      return 'LOADING';
    default:
      return 'DEAD';
  }
}

function workingHealth(vitals: Vitals): ReplicaHealth {
  if (isStalled(vitals)) return 'STALLED';
  const { silentForMs, idleTimeoutMs, canaryMs, speed } = vitals;
  const slowAfterMs = Math.max(SLOW_AT_LEAST_MS, idleTimeoutMs * SLOW_SHARE);
  if (silentForMs !== null && silentForMs >= slowAfterMs) return 'SLOW';
  if (silentForMs === null && canaryMs !== null && canaryMs >= SLOW_CANARY_MS) return 'SLOW';
  const { recent, usual } = speed;
  return recent !== null && usual !== null && recent < usual * SLOW_SPEED_SHARE ? 'SLOW' : 'READY';
}

/** The speed after one more task. */
export function speedAfter({ recent, usual }: Speed, tokensPerSecond: number | null): Speed {
  return { recent: ewma(recent, tokensPerSecond, RECENT_WEIGHT), usual: ewma(usual, tokensPerSecond, USUAL_WEIGHT) };
}
