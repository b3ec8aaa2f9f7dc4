/** The table of a replica's life, driven at random: what no sequence of events can do, and that every path ends. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  nextReplicaState,
  REPLICA_EVENTS,
  REPLICA_STATES,
  type ReplicaEvent,
  type ReplicaState,
} from '../../src/core/replica.js';
import { afterExit, DEFAULT_RESTART_POLICY } from '../../src/core/restart.js';

const GATES: readonly ReplicaState[] = ['PROVISIONING', 'STARTING', 'PRELOADING', 'SELF_TESTING', 'READY'];
const HAS_PROCESS: ReadonlySet<ReplicaState> = new Set([...GATES.slice(1), 'DRAINING', 'STOPPING']);
/** Nothing runs, and nothing happens by itself. */
const AT_REST: ReadonlySet<ReplicaState> = new Set(['ABSENT', 'QUARANTINED', 'FAILED']);

const events = fc.array(fc.constantFrom(...REPLICA_EVENTS), { maxLength: 60 });

/** Every step that the table allows, of a sequence that may hold others too. */
function* steps(sequence: readonly ReplicaEvent[]): Generator<{ from: ReplicaState; to: ReplicaState }> {
  let from: ReplicaState = 'ABSENT';
  for (const event of sequence) {
    const to = nextReplicaState(from, event);
    if (to === null) continue;
    yield { from, to };
    from = to;
  }
}

describe('a replica', () => {
  it('reaches READY through every gate, in order', () => {
    fc.assert(
      fc.property(events, (sequence) => {
        let passed: ReplicaState[] = [];
        for (const { from, to } of steps(sequence)) {
          if (to === 'ABSENT' || to === 'BACKING_OFF') passed = [];
          else if (GATES.includes(to) && from !== 'DRAINING') passed.push(to);
          if (to === 'READY') expect(passed).toEqual(GATES);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it('never has a second process: one is started only where none is', () => {
    fc.assert(
      fc.property(events, (sequence) => {
        let processes = 0;
        for (const { from, to } of steps(sequence)) {
          if (!HAS_PROCESS.has(from) && HAS_PROCESS.has(to)) processes += 1;
          // Given up is a process that nothing ends: it may be there still, and only an operator goes on from there.
          if (HAS_PROCESS.has(from) && !HAS_PROCESS.has(to)) processes -= 1;
          expect(processes).toBe(HAS_PROCESS.has(to) ? 1 : 0);
          if (to === 'STARTING') expect(from).toBe('PROVISIONING');
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it('ends from every state when it is stopped, within two events', () => {
    for (const state of REPLICA_STATES) {
      const stopped = nextReplicaState(state, 'stop');
      expect(stopped).not.toBeNull();
      if (stopped === null || AT_REST.has(stopped)) continue;
      expect(nextReplicaState(stopped, 'exited')).toBe('ABSENT');
      expect(nextReplicaState(stopped, 'give_up')).toBe('QUARANTINED');
    }
  });

  it('ends when every start fails, however it fails: given up or refused after a bounded number of starts', () => {
    const failures = fc.infiniteStream(fc.record({ gate: fc.nat(GATES.length - 2), refused: fc.boolean() }));
    const forward: readonly ReplicaEvent[] = ['provision', 'launch', 'answers', 'healthy'];
    fc.assert(
      fc.property(failures, fc.double({ min: 0, max: 0.999, noNaN: true }), (how, chance) => {
        let state: ReplicaState = 'ABSENT';
        let failed = 0;
        const take = (event: ReplicaEvent) => {
          const next = nextReplicaState(state, event);
          if (next === null) throw new Error(`${event} is refused in ${state}`);
          state = next;
        };
        for (let starts = 0; state === 'ABSENT'; starts += 1) {
          expect(starts).toBeLessThan(DEFAULT_RESTART_POLICY.maxFailures);
          const { gate, refused } = how.next().value;
          for (const event of forward.slice(0, gate + 1)) take(event);
          if (gate === 0 && refused) {
            take('refuse');
            break;
          }
          const decision = afterExit(DEFAULT_RESTART_POLICY, { failuresBefore: failed, readyForMs: 0 }, chance);
          failed = decision.failures;
          take(decision.next === 'quarantine' ? 'give_up' : 'exited');
          if (decision.next === 'restart') take('retry');
        }
        expect(['QUARANTINED', 'FAILED']).toContain(state);
      }),
      { numRuns: 500 },
    );
  });

  it('goes on from wherever it rests', () => {
    for (const state of AT_REST) {
      const again = state === 'ABSENT' ? state : nextReplicaState(state, 'retry');
      expect(again).toBe('ABSENT');
      expect(nextReplicaState('ABSENT', 'provision')).toBe('PROVISIONING');
    }
  });
});
