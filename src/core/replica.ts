/**
 * The life of a replica: one engine process, one model, one device mask.
 *
 *   ABSENT ─launch─► STARTING ─answers─► PRELOADING ─healthy─► SELF_TESTING ─passed─► READY ─drain─► DRAINING
 *      ▲                └──────────── exited / failed ──────────┴───────────────────────┘               │
 *      │                                   ▼                                                          stop
 *      └─────────retry──────────── BACKING_OFF ──give up──► QUARANTINED                                 ▼
 *      ▲──────────────────────────────exited───────────────────────────────────────────────────────STOPPING
 *
 * 1. READY is reached from SELF_TESTING only, SELF_TESTING from PRELOADING only: no gate can be skipped.
 * 2. A process exists only in STARTING … STOPPING; `launch` is possible from ABSENT alone, so none is doubled.
 */
export const REPLICA_STATES = [
  'ABSENT',
  'PROVISIONING',
  'STARTING',
  'PRELOADING',
  'SELF_TESTING',
  'READY',
  'DRAINING',
  'STOPPING',
  'BACKING_OFF',
  'QUARANTINED',
  'FAILED',
] as const;
export type ReplicaState = (typeof REPLICA_STATES)[number];

export const REPLICA_EVENTS = [
  'launch',
  'answers',
  'healthy',
  'passed',
  'drain',
  'stop',
  'exited',
  'retry',
  'give_up',
] as const;
export type ReplicaEvent = (typeof REPLICA_EVENTS)[number];

type Row = Readonly<Partial<Record<ReplicaEvent, ReplicaState>>>;
const RUNNING: Row = { stop: 'STOPPING', exited: 'BACKING_OFF', give_up: 'QUARANTINED' };

/** state × event; an absent cell is refused. PROVISIONING and FAILED are entered by provisioning, which is not built yet. */
export const REPLICA_TABLE: Readonly<Record<ReplicaState, Row>> = {
  ABSENT: { launch: 'STARTING', stop: 'ABSENT' },
  PROVISIONING: { stop: 'ABSENT' },
  STARTING: { ...RUNNING, answers: 'PRELOADING' },
  PRELOADING: { ...RUNNING, healthy: 'SELF_TESTING' },
  SELF_TESTING: { ...RUNNING, passed: 'READY' },
  READY: { ...RUNNING, drain: 'DRAINING' },
  DRAINING: RUNNING,
  // Given up is what SIGKILL does not end: a process inside a hung driver.
  STOPPING: { exited: 'ABSENT', stop: 'STOPPING', give_up: 'QUARANTINED' },
  BACKING_OFF: { retry: 'ABSENT', stop: 'ABSENT', give_up: 'QUARANTINED' },
  QUARANTINED: { retry: 'ABSENT', stop: 'ABSENT' },
  FAILED: { retry: 'ABSENT', stop: 'ABSENT' },
};

export function nextReplicaState(from: ReplicaState, event: ReplicaEvent): ReplicaState | null {
  return REPLICA_TABLE[from][event] ?? null;
}

/** What an operator reads first: is it coming, working, or gone. */
export type ReplicaHealth = 'LOADING' | 'READY' | 'SLOW' | 'STALLED' | 'DEAD';

export function healthOf(state: ReplicaState): ReplicaHealth {
  switch (state) {
    case 'READY':
    case 'DRAINING':
      return 'READY';
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
