/**
 * The life of a replica: one engine process, one model, one device mask.
 *
 *   ABSENT ─provision─► PROVISIONING ─launch─► STARTING ─answers─► PRELOADING ─healthy─► SELF_TESTING ─passed─► READY
 *      ▲                  │  refuse              └──────────────── exited ─────────────────────┴───────────────────┘
 *      │                  │     └──► FAILED                         ▼                                    stop │
 *      ├──────retry───────┴─────exited────────────────────► BACKING_OFF ──give up──► QUARANTINED              ▼
 *      └───────────────────────────────────exited──────────────────────────────────────────────────────── STOPPING
 *
 *                                               READY ─drain─► DRAINING ─resume─► READY; DRAINING ends as READY does
 *
 * 1. READY is reached from SELF_TESTING, that from PRELOADING, that from STARTING, that from PROVISIONING: no gate can be
 *    skipped. DRAINING leads back to READY with the same process.
 * 2. A process exists only in STARTING … STOPPING; `launch` is possible from PROVISIONING alone, so none is doubled.
 * 3. From every state a way leads on: an operator's `stop` or `retry` is never refused where nothing runs.
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
  'provision',
  'refuse',
  'launch',
  'answers',
  'healthy',
  'passed',
  'drain',
  'resume',
  'stop',
  'exited',
  'failed',
  'retry',
  'give_up',
] as const;
export type ReplicaEvent = (typeof REPLICA_EVENTS)[number];

type Row = Readonly<Partial<Record<ReplicaEvent, ReplicaState>>>;
const RUNNING: Row = { stop: 'STOPPING', exited: 'BACKING_OFF', give_up: 'QUARANTINED' };

/** state × event; an absent cell is refused. */
export const REPLICA_TABLE: Readonly<Record<ReplicaState, Row>> = {
  ABSENT: { provision: 'PROVISIONING', stop: 'ABSENT' },
  // Refused is what waiting cannot mend: it takes another configuration, or an operator.
  PROVISIONING: {
    launch: 'STARTING',
    refuse: 'FAILED',
    exited: 'BACKING_OFF',
    give_up: 'QUARANTINED',
    stop: 'ABSENT',
  },
  STARTING: { ...RUNNING, answers: 'PRELOADING' },
  PRELOADING: { ...RUNNING, healthy: 'SELF_TESTING' },
  SELF_TESTING: { ...RUNNING, passed: 'READY' },
  READY: { ...RUNNING, drain: 'DRAINING' },
  DRAINING: { ...RUNNING, resume: 'READY' },
  // `failed` where it was not asked to stop but had to be ended. Given up is what SIGKILL does not end: a process inside
  // a hung driver.
  STOPPING: { exited: 'ABSENT', failed: 'BACKING_OFF', stop: 'STOPPING', give_up: 'QUARANTINED' },
  BACKING_OFF: { retry: 'ABSENT', stop: 'ABSENT', give_up: 'QUARANTINED' },
  QUARANTINED: { retry: 'ABSENT', stop: 'ABSENT' },
  FAILED: { retry: 'ABSENT', stop: 'ABSENT' },
};

export function nextReplicaState(from: ReplicaState, event: ReplicaEvent): ReplicaState | null {
  return REPLICA_TABLE[from][event] ?? null;
}
